"""Ranking metrics agree with brute force over every order of ties, and with scikit-learn."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.evaluation import metrics
from recbase_hf.evaluation.intervals import bootstrap_auc_interval

Ranking = tuple[int, ...]

# Few distinct scores, so that ties are the rule.
rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=6)
tables = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def rankings(labels: list[int], scores: list[float]) -> Iterator[Ranking]:
    """The labels in every order that puts better scores first."""
    groups = [[y for y, s in zip(labels, scores, strict=True) if s == score] for score in sorted(set(scores))[::-1]]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain(*orders))


def naive_auc(ranking: Ranking) -> float:
    pairs = [a > b for a, b in itertools.combinations(ranking, 2) if a != b]
    return sum(pairs) / len(pairs)


def naive_mrr(ranking: Ranking) -> float:
    return 1 / (ranking.index(1) + 1)


def naive_ndcg(ranking: Ranking, k: int) -> float:
    def dcg(labels: Ranking) -> float:
        return sum(label / math.log2(place + 2) for place, label in enumerate(labels[:k]))

    return dcg(ranking) / dcg(tuple(sorted(ranking, reverse=True)))


def naive_recall(ranking: Ranking, k: int) -> float:
    return sum(ranking[:k]) / sum(ranking)


def naive_hit_rate(ranking: Ranking, k: int) -> float:
    return float(any(ranking[:k]))


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 8))
def test_values_are_expectations_over_every_order_of_ties(pairs: list[tuple[int, int]], k: int) -> None:
    labels, scores = [y for y, _ in pairs], [float(s) for _, s in pairs]
    users = ["u"] * len(pairs)
    orders = list(rankings(labels, scores))

    def expected(naive: Callable[..., float], *args: int) -> float:
        return float(np.mean([naive(order, *args) for order in orders]))

    if 0 < sum(labels) < len(labels):
        assert metrics.auc(labels, scores) == pytest.approx(expected(naive_auc), abs=1e-12)
        assert metrics.gauc(labels, scores, users).value == pytest.approx(expected(naive_auc), abs=1e-12)
    if sum(labels):
        assert metrics.mrr(labels, scores, users) == pytest.approx(expected(naive_mrr), abs=1e-12)
        assert metrics.ndcg_at_k(labels, scores, users, k) == pytest.approx(expected(naive_ndcg, k), abs=1e-12)
        assert metrics.recall_at_k(labels, scores, users, k) == pytest.approx(expected(naive_recall, k), abs=1e-12)
        assert metrics.hit_rate_at_k(labels, scores, users, k) == pytest.approx(expected(naive_hit_rate, k), abs=1e-12)


def test_agrees_with_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    labels, users = random.integers(0, 2, 300), random.integers(0, 20, 300)
    scores = np.round(0.5 * labels + random.normal(size=300), 1)
    assert metrics.auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    scored, areas = metrics.user_auc(labels, scores, users)
    ranked, gains = metrics.user_ndcg_at_k(labels, scores, users, 5)
    for user, area, gain in zip(scored, areas, gains, strict=True):
        mine = users == user
        assert area == pytest.approx(sklearn_metrics.roc_auc_score(labels[mine], scores[mine]), abs=1e-12)
        assert gain == pytest.approx(sklearn_metrics.ndcg_score([labels[mine]], [scores[mine]], k=5), abs=1e-12)
    assert ranked.tolist() == scored.tolist() == sorted(set(users.tolist()))


def test_constant_scorer_gets_the_random_value() -> None:
    labels, users = [1, 0, 0, 0, 1, 0, 0, 0], [3] * 8
    scores = [0.25] * 8
    assert metrics.auc(labels, scores) == 0.5
    assert metrics.gauc(labels, scores, users).value == 0.5
    assert metrics.recall_at_k(labels, scores, users, 2) == pytest.approx(2 / 8)
    assert metrics.hit_rate_at_k(labels, scores, users, 2) == pytest.approx(1 - (6 * 5) / (8 * 7))
    # One positive of eight lands on each rank equally often.
    one = [1, 0, 0, 0, 0, 0, 0, 0]
    assert metrics.mrr(one, scores, users) == pytest.approx(np.mean(1 / np.arange(1, 9)))
    assert metrics.ndcg_at_k(one, scores, users, 8) == pytest.approx(np.mean(1 / np.log2(np.arange(2, 10))))


def test_large_tie_groups_stay_exact() -> None:
    n = 5000
    labels = np.zeros(n, dtype=int)
    labels[0] = 1
    value = metrics.mrr(labels, np.zeros(n), np.zeros(n))
    assert value == pytest.approx(np.mean(1 / np.arange(1, n + 1)), rel=1e-12)


def test_users_of_one_class_are_skipped_and_counted() -> None:
    labels, scores = [1, 0, 1, 1, 0], [0.9, 0.1, 0.5, 0.4, 0.3]
    users = ["both", "both", "liked all", "liked all", "liked none"]
    keys, areas = metrics.user_auc(labels, scores, users)
    assert (keys.tolist(), areas.tolist()) == (["both"], [1.0])
    assert metrics.gauc(labels, scores, users) == (1.0, 1, 2)
    # Rankings need a positive only.
    assert metrics.user_mrr(labels, scores, users)[0].tolist() == ["both", "liked all"]
    assert metrics.user_recall_at_k(labels, scores, users, 1)[1].tolist() == [1.0, 0.5]


@pytest.mark.parametrize("n", [0, 3])
def test_nobody_to_score_is_nan_not_a_crash(n: int) -> None:
    labels, scores, users = [0] * n, [0.5] * n, ["a"] * n
    result = metrics.gauc(labels, scores, users)
    assert math.isnan(result.value)
    assert (result.scored_users, result.skipped_users) == (0, min(n, 1))
    assert math.isnan(metrics.mrr(labels, scores, users))
    for at_k in (metrics.ndcg_at_k, metrics.recall_at_k, metrics.hit_rate_at_k):
        assert math.isnan(at_k(labels, scores, users, 3))


def all_values(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> list[float]:
    values: list[float] = [*metrics.gauc(labels, scores, users), metrics.mrr(labels, scores, users)]
    values += [metrics.ndcg_at_k(labels, scores, users, 3), metrics.recall_at_k(labels, scores, users, 3)]
    values += [metrics.hit_rate_at_k(labels, scores, users, 2)]
    if 0 < labels.sum() < len(labels):
        values += [metrics.auc(labels, scores), *bootstrap_auc_interval(labels, scores, users, samples=5)]
    return values


@settings(max_examples=60, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_row_order_and_monotone_transforms_of_scores_do_not_matter(table: list[tuple[int, int, int]], random) -> None:  # type: ignore[no-untyped-def]
    labels, scores, users = np.array(table).T
    expected = all_values(labels, scores, users)
    random.shuffle(table)
    labels, scores, users = np.array(table).T
    assert all_values(labels, np.exp(3.0 * scores) - 7, users) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(tables)
def test_many_users_at_once_equal_one_user_at_a_time(table: list[tuple[int, int, int]]) -> None:
    labels, scores, users = np.array(table).T
    for metric in (metrics.user_mrr, lambda y, s, u: metrics.user_ndcg_at_k(y, s, u, k=2)):
        keys, values = metric(labels, scores, users)
        alone = [metric(labels[users == key], scores[users == key], users[users == key])[1][0] for key in keys]
        assert values == pytest.approx(alone, abs=1e-12)


def test_infinite_scores_rank_and_tie_like_any_other() -> None:
    assert metrics.auc([1, 0, 0], [math.inf, 0.0, -math.inf]) == 1.0
    assert metrics.auc([1, 0], [-math.inf, -math.inf]) == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "users", "message"),
    [
        ([0, 1, 1], [0.1, math.nan, math.nan], [1, 1, 1], "scores row 1 is nan"),
        ([0, 1], [0.1, 0.2], [1.0, math.nan], "users row 1 is nan"),
        ([0, 1, 2], [0.1, 0.2, 0.3], [1, 1, 1], "labels row 2 is 2"),
        ([0, 0.5], [0.1, 0.2], [1, 1], "labels row 1 is 0.5"),
        ([0, 1], [0.1, 0.2, 0.3], [1, 1], "columns differ in shape"),
        ([0, 1], [0.1, 0.2], [1], "columns differ in shape"),
        ([[0, 1]], [[0.1, 0.2]], [[1, 1]], "columns differ in shape"),
    ],
)
def test_bad_columns_are_refused_with_the_first_row(labels: list, scores: list, users: list, message: str) -> None:
    for metric in (metrics.gauc, metrics.mrr, bootstrap_auc_interval):
        with pytest.raises(ValueError, match=message):
            metric(labels, scores, users)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 of 3 labels are 1.*gauc"):
        metrics.auc([1, 1, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="k is 0"):
        metrics.recall_at_k([1], [0.5], [0], 0)


def test_importing_the_metrics_does_not_import_evaluate() -> None:
    code = "import sys, recbase_hf.evaluation.metrics; sys.exit('evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
