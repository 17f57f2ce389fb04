"""Figures agree with the metrics, receipts hold what is needed and nothing private, and the table comes from them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from recbase_hf import RecBaseScorer
from recbase_hf.data.histories import Histories
from recbase_hf.errors import DataError
from recbase_hf.evaluation import metrics
from recbase_hf.evaluation.figures import Figures, measure
from recbase_hf.evaluation.protocol import CandidateSet, leave_last_out
from recbase_hf.evaluation.results import read_results, render_table, write_results
from recbase_hf.evaluation.zero_shot import evaluate_zero_shot


def make_histories(users: int = 30, num_items: int = 40, seed: int = 0) -> Histories:
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(num_items)[: rng.integers(2, 9)] for _ in range(users)]
    names = np.array([f"u{user}" for user in range(users)], dtype=object)
    return Histories(names, np.cumsum([0, *map(len, rows)]), np.concatenate(rows))


@pytest.fixture
def candidate_set() -> CandidateSet:
    return leave_last_out(make_histories(), 40)


@pytest.fixture
def figures(candidate_set: CandidateSet) -> list[Figures]:
    noise = np.random.default_rng(1).normal(size=candidate_set.labels.shape)
    return [
        measure("guess", noise, candidate_set, samples=50),
        measure("good", noise + 2 * candidate_set.labels, candidate_set, samples=50),
    ]


def write(path, figures, candidate_set, command="recbase evaluate"):
    return write_results(
        path,
        figures=figures,
        dataset={"name": "tiny", "sha256": "ab", "users": np.int64(30)},
        protocol=candidate_set.settings,
        model={"fingerprint": "f00d", "trained_on": ["sports"]},
        command=command,
        seconds=1.23456,
    )


def test_figures_are_the_metrics_over_all_pairs(candidate_set, figures) -> None:
    noise = np.random.default_rng(1).normal(size=candidate_set.labels.shape)
    labels, scores = candidate_set.labels.ravel(), noise.ravel()
    users = np.repeat(candidate_set.users, 5)
    guess = figures[0]
    assert guess.auc == metrics.auc(labels, scores)
    assert guess.gauc == pytest.approx(metrics.gauc(labels, scores, users).value)
    assert guess.mrr == pytest.approx(metrics.mrr(labels, scores, users))
    assert guess.ndcg == {k: pytest.approx(metrics.ndcg_at_k(labels, scores, users, k)) for k in (1, 3)}
    assert guess.recall == {k: pytest.approx(metrics.recall_at_k(labels, scores, users, k)) for k in (1, 3)}
    assert guess.auc_interval[0] < guess.auc < guess.auc_interval[1]
    assert guess.gauc_interval[0] < guess.gauc < guess.gauc_interval[1]
    assert (guess.scored_users, guess.skipped_users) == (30, 0)


def test_equal_scores_get_the_figures_of_chance(candidate_set) -> None:
    constant = measure("constant", np.zeros(candidate_set.labels.shape), candidate_set, ks=(1, 99), samples=10)
    assert (constant.auc, constant.gauc) == (0.5, 0.5)
    assert constant.recall == {1: pytest.approx(0.2), 5: pytest.approx(1.0)}


def test_users_of_one_class_are_skipped_and_counted(candidate_set) -> None:
    labels = candidate_set.labels.copy()
    labels[:4] = 0
    partly = CandidateSet(candidate_set.users, candidate_set.histories, candidate_set.candidates, labels)
    result = measure("constant", np.zeros(labels.shape), partly, samples=10)
    assert (result.scored_users, result.skipped_users) == (26, 4)


def test_scores_of_another_shape_are_refused(candidate_set) -> None:
    with pytest.raises(ValueError, match=r"guess: the scores have shape \(30, 4\), the candidates \(30, 5\)"):
        measure("guess", np.zeros((30, 4)), candidate_set)


def test_many_pairs_get_fewer_resamples_of_the_auc() -> None:
    candidate_set = leave_last_out(make_histories(6000), 40, num_negatives=29)
    result = measure("constant", np.zeros((6000, 30)), candidate_set, samples=300)
    assert (result.auc_samples, result.gauc_samples) == (277, 300)


def test_a_receipt_reads_back_as_it_was_written(tmp_path, candidate_set, figures) -> None:
    results = write(tmp_path / "receipt.json", figures, candidate_set)
    assert read_results(tmp_path / "receipt.json") == results
    assert results["figures"][0]["name"] == "guess"
    assert results["figures"][0]["ndcg"].keys() == {"1", "3"}
    assert results["figures"][0]["auc_samples"] == 50
    assert results["dataset"]["users"] == 30
    assert results["protocol"] == candidate_set.settings
    assert results["model"]["fingerprint"] == "f00d"
    assert results["date"].endswith("+00:00")
    assert {"python", "recbase-hf", "numpy", "torch"} <= results["versions"].keys()
    assert results["hardware"]["cpus"] >= 1
    assert results["hardware"]["processor"]


def test_the_command_of_a_receipt_holds_no_folder_of_this_machine(tmp_path, candidate_set, figures) -> None:
    command = "/home/ann/env/bin/python examples/evaluate.py --data=/home/ann/data/toys --out /tmp/x.json --name 'a b'"
    results = write(tmp_path / "receipt.json", figures, candidate_set, command=command)
    assert results["command"] == "python examples/evaluate.py --data=toys --out x.json --name 'a b'"


def test_figures_that_do_not_exist_are_null_and_a_dash(tmp_path, candidate_set, figures) -> None:
    missing = Figures(**{**vars(figures[0]), "gauc": math.nan, "gauc_interval": (math.nan, math.nan)})
    results = write(tmp_path / "receipt.json", [missing], candidate_set)
    assert "NaN" not in (tmp_path / "receipt.json").read_text()
    assert results["figures"][0]["gauc"] is None
    assert "–  [–, –]" in render_table(results)


def test_files_that_are_no_receipt_or_a_newer_one_are_refused(tmp_path, candidate_set, figures) -> None:
    results = write(tmp_path / "receipt.json", figures, candidate_set)
    (tmp_path / "newer.json").write_text(json.dumps({**results, "format_version": 99}))
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="newer recbase-hf"):
        read_results(tmp_path / "newer.json")
    with pytest.raises(DataError, match="not a results file"):
        read_results(tmp_path / "other.json")


def test_the_table_says_what_was_measured_and_marks_the_best(tmp_path, candidate_set, figures) -> None:
    write(tmp_path / "receipt.json", figures, candidate_set)
    caption, empty, header, rule, guess, good = render_table(read_results(tmp_path / "receipt.json")).splitlines()
    assert caption == "tiny: 30 users, 5 candidates each, protocol leave-last-out, seed 0"
    assert empty == ""
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "", "AUC", "GAUC [95 % interval]", "MRR", "NDCG@3", "Recall@1",
    ]  # fmt: skip
    assert len({len(line) for line in (header, rule, guess, good)}) == 1
    assert f"{figures[1].gauc:.4f}* [{figures[1].gauc_interval[0]:.4f}, {figures[1].gauc_interval[1]:.4f}]" in good
    assert f"{figures[1].ndcg[3]:.4f}" in good
    assert f"{figures[1].recall[1]:.4f}" in good
    assert "*" not in guess


def test_zero_shot_figures_are_those_of_baselines_and_scorer(world) -> None:
    histories = make_histories(num_items=len(world.catalog))
    candidate_set = leave_last_out(histories, len(world.catalog), num_negatives=3)
    scorer = RecBaseScorer(world.model, world.tokenizer)
    figures = evaluate_zero_shot(scorer, world.catalog, histories, candidate_set, users_per_batch=7)
    assert [row.name for row in figures] == [
        "random",
        "popularity (target set)",
        "text similarity: mean cosine",
        "text similarity: centered, log-sum-exp",
        "RecBase joint",
        "RecBase catalog",
    ]
    for row, method in zip(figures[-2:], ("joint", "catalog"), strict=True):
        scores = scorer.score_rows(
            candidate_set.histories, list(candidate_set.candidates), catalog=world.catalog, method=method
        )
        users = np.repeat(np.arange(len(candidate_set)), 4)
        expected = metrics.gauc(candidate_set.labels.ravel(), np.concatenate(scores), users).value
        assert row.gauc == pytest.approx(expected, abs=0.02)


def test_zero_shot_refuses_bad_options_before_it_computes(world) -> None:
    histories = make_histories(num_items=len(world.catalog))
    candidate_set = leave_last_out(histories, len(world.catalog))
    scorer = RecBaseScorer(world.model, world.tokenizer)
    with pytest.raises(ValueError, match="method is 'best'"):
        evaluate_zero_shot(scorer, world.catalog, histories, candidate_set, methods=["best"])
    with pytest.raises(ValueError, match="users_per_batch is -1"):
        evaluate_zero_shot(scorer, world.catalog, histories, candidate_set, users_per_batch=-1)
