"""Bootstrap intervals hold what they are of, shrink with more users, and repeat."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recbase_hf.evaluation.intervals import bootstrap_auc_interval, bootstrap_interval
from recbase_hf.evaluation.metrics import auc


def random_table(n: int, users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and users of n rows."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, n)
    scores = np.round(0.5 * labels + random.normal(size=n), 1)
    return labels, scores, random.integers(0, users, n)


def test_interval_contains_the_mean_shrinks_with_users_and_repeats() -> None:
    random = np.random.default_rng(0)
    widths = []
    for users in (30, 300, 3000):
        values = random.random(users)
        low, high = bootstrap_interval(values, samples=200)
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert bootstrap_interval(values, samples=200) == (low, high)
    assert bootstrap_interval(values, samples=200, seed=1) != (low, high)
    narrow = bootstrap_interval(values, samples=200, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_of_independent_values_matches_theory() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(values, samples=2000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_interval_of_nobody_is_nan() -> None:
    assert all(math.isnan(bound) for bound in bootstrap_interval([]))


def test_auc_interval_contains_the_auc_shrinks_with_users_and_repeats() -> None:
    widths = []
    for users in (20, 500):
        table = random_table(n=10 * users, users=users)
        low, high = bootstrap_auc_interval(*table, samples=200)
        assert low < auc(*table[:2]) < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]
    assert bootstrap_auc_interval(*table, samples=200) == (low, high)
    assert bootstrap_auc_interval(*table, samples=200, seed=1) != (low, high)


def test_auc_interval_equals_auc_of_repeated_rows() -> None:
    labels, scores, users = random_table(n=40, users=5)
    drawn = np.random.default_rng(7).integers(5, size=5)
    repeated = np.concatenate([np.flatnonzero(users == user) for user in drawn])
    low, high = bootstrap_auc_interval(labels, scores, users, samples=1, seed=7)
    assert low == high == pytest.approx(auc(labels[repeated], scores[repeated]), abs=1e-12)


def test_auc_interval_leaves_out_resamples_of_one_class() -> None:
    low, high = bootstrap_auc_interval([1, 0], [0.9, 0.1], ["a", "b"], samples=50)
    assert (low, high) == (1.0, 1.0)


def test_bad_arguments_of_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_interval([0.5], confidence=95)
    with pytest.raises(ValueError, match="samples is 0"):
        bootstrap_interval([0.5], samples=0)
    with pytest.raises(ValueError, match="values row 0 is nan"):
        bootstrap_interval([math.nan])
