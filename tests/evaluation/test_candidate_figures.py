"""Figures on candidates agree with scikit-learn and with the single metrics, with ties and over semantic IDs."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from evaluation.small_sequences import make_histories
from recbase_hf.evaluation import metrics
from recbase_hf.evaluation.figures import measure_candidates
from recbase_hf.evaluation.intervals import bootstrap_interval, bootstrap_intervals
from recbase_hf.evaluation.task import CandidateTask


def make_task(labels: list[list[int]], items: list[list[int]] | None = None, num_items: int = 1000) -> CandidateTask:
    """Users u0, u1, ... with candidates of these labels."""
    flat = np.array([label for row in labels for label in row], np.int8)
    candidates = np.arange(len(flat)) % num_items if items is None else np.concatenate(items)
    return CandidateTask(
        users=np.array([f"u{user}" for user in range(len(labels))], object),
        histories=[np.empty(0, np.int64)] * len(labels),
        candidates=candidates,
        labels=flat,
        offsets=np.cumsum([0, *map(len, labels)]),
        training=make_histories([]),
        num_items=num_items,
    )


def random_case(seed: int, users: int = 60) -> tuple[CandidateTask, np.ndarray]:
    """Ragged users, some of one class, with many ties."""
    random = np.random.default_rng(seed)
    labels = [random.integers(0, 2, random.integers(1, 12)).tolist() for _ in range(users)]
    task = make_task(labels)
    return task, np.round(random.normal(size=len(task.labels)) + 0.5 * task.labels, 1)


def test_gauc_agrees_with_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(5):
        task, scores = random_case(seed)
        areas = []
        for user in range(len(task)):
            rows = slice(task.offsets[user], task.offsets[user + 1])
            if len(set(task.labels[rows].tolist())) == 2:
                areas.append(sklearn_metrics.roc_auc_score(task.labels[rows], scores[rows]))
        figures = measure_candidates("x", scores, task, samples=2)
        assert abs(figures.metrics["gauc"].value - np.mean(areas)) < 1e-12
        assert figures.users == len(areas)
        assert figures.users + figures.skipped_users == len(task)
        pooled = sklearn_metrics.roc_auc_score(task.labels, scores)
        assert figures.metrics["auc"].value == pytest.approx(pooled, abs=1e-12)


def test_figures_are_means_of_the_single_metrics_over_users_with_both_labels() -> None:
    task, scores = random_case(0)
    figures = measure_candidates("x", scores, task, ks=(1, 3), samples=50)
    user = task.user_of_row
    both = np.isin(user, metrics.user_auc(task.labels, scores, user)[0])
    columns = task.labels[both], scores[both], user[both]
    expected = {"mrr": metrics.mrr(*columns)}
    for k in (1, 3):
        expected[f"ndcg@{k}"] = metrics.ndcg_at_k(*columns, k)
        expected[f"hit@{k}"] = metrics.hit_rate_at_k(*columns, k)
        expected[f"recall@{k}"] = metrics.recall_at_k(*columns, k)
    assert figures.metrics.keys() == {"auc", "gauc", *expected}
    for name, value in expected.items():
        figure = figures.metrics[name]
        assert figure.value == pytest.approx(value, abs=1e-12)
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high


def test_intervals_of_several_figures_are_those_of_each() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    together = bootstrap_intervals(values, samples=100, seed=5)
    apart = [bootstrap_interval(column, samples=100, seed=5) for column in values.T]
    np.testing.assert_allclose(together, apart, atol=1e-12)


def test_a_constant_ranker_gets_the_value_of_random_order() -> None:
    figures = measure_candidates("x", np.zeros(10), make_task([[1, 0, 0, 0, 0]] * 2), ks=[2], samples=10)
    values = {name: figure.value for name, figure in figures.metrics.items()}
    assert (values["auc"], values["gauc"]) == (0.5, 0.5)
    assert values["hit@2"] == values["recall@2"] == pytest.approx(0.4)
    assert values["mrr"] == pytest.approx(np.mean(1 / np.arange(1, 6)))


def test_log_loss_is_the_mean_of_minus_log_softmax() -> None:
    task = make_task([[1, 0, 0], [0, 1]])
    probabilities = [0.2, 0.3, 0.5, 0.9, 0.1]
    figures = measure_candidates("x", np.log(probabilities) - 7.0, task, log_probabilities=True)
    loss = figures.metrics["log_loss"]
    assert loss.value == pytest.approx(-(math.log(0.2) + math.log(0.1)) / 2)
    assert loss.low is not None
    assert loss.low < loss.value
    assert "log_loss" not in measure_candidates("x", np.log(probabilities), task).metrics
    two_positives = make_task([[1, 1, 0], [0, 1]])
    figures = measure_candidates("x", np.log(probabilities), two_positives, log_probabilities=True)
    assert "log_loss" not in figures.metrics


def test_impossible_candidates_have_an_infinite_loss_that_json_lacks() -> None:
    scores = np.array([-np.inf, 0.0, -np.inf, -np.inf])
    figures = measure_candidates("x", scores, make_task([[1, 0], [1, 0]]), log_probabilities=True, samples=20)
    assert figures.metrics["log_loss"].value == math.inf
    assert figures.to_json()["metrics"]["log_loss"]["value"] is None
    equal = measure_candidates("x", np.full(4, -np.inf), make_task([[1, 0], [1, 0]]), log_probabilities=True)
    assert equal.metrics["log_loss"].value == pytest.approx(math.log(2))
    json.dumps(figures.to_json(), allow_nan=False)


def test_a_candidate_with_the_semantic_id_of_the_positive_counts_as_found() -> None:
    # Items 0 and 1 share an ID. The positive, item 0, is third, but its ID is first of two.
    task = make_task([[1, 0, 0]], [np.array([0, 1, 2])], num_items=3)
    figures = measure_candidates("x", np.array([0.1, 0.9, 0.5]), task, ks=[1], id_of_item=np.array([7, 7, 3]))
    values = {name: figure.value for name, figure in figures.metrics.items()}
    assert values["hit@1"] == 0.0
    assert values["semantic_id_hit@1"] == values["semantic_id_mrr"] == values["semantic_id_ndcg@1"] == 1.0
    assert values["gauc"] == 0.0


def test_distinct_ids_change_nothing() -> None:
    task, scores = random_case(3)
    figures = measure_candidates("x", scores, task, ks=[2], id_of_item=np.arange(1000), samples=20).metrics
    for name in ("mrr", "ndcg@2", "hit@2", "recall@2"):
        assert figures[f"semantic_id_{name}"] == pytest.approx(figures[name], abs=1e-12)


def test_json_is_flat() -> None:
    figures = measure_candidates("some ranker", np.array([1.0, 0.0]), make_task([[1, 0]]), samples=5).to_json()
    assert figures.keys() == {"name", "metrics", "users", "skipped_users"}
    assert figures["metrics"]["gauc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert json.loads(json.dumps(figures)) == figures


def test_nan_scores_name_user_and_item() -> None:
    task = make_task([[1, 0], [0, 1]], [np.array([5, 6]), np.array([7, 8])])
    with pytest.raises(ValueError, match=r"model: the score of user 'u1' for item 7 .* is NaN, as are 1 of 4"):
        measure_candidates("model", np.array([0.0, 1.0, np.nan, 2.0]), task)
    with pytest.raises(ValueError, match=r"scores have shape \(3,\)"):
        measure_candidates("model", np.zeros(3), task)
    with pytest.raises(ValueError, match="id_of_item has shape"):
        measure_candidates("model", np.zeros(4), task, id_of_item=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="each at least 1"):
        measure_candidates("model", np.zeros(4), task, ks=[0])


def test_two_hundred_thousand_rows_take_a_moment() -> None:
    task = make_task([[1, 0, 0, 0, 0]] * 40_000)
    scores = np.random.default_rng(0).normal(size=len(task.labels))
    start = time.process_time()
    measure_candidates("x", scores, task, log_probabilities=True, id_of_item=np.arange(1000))
    assert time.process_time() - start < 10.0
