"""Bootstrap intervals over users: how far a figure would move with other users of the same kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from recbase_hf.evaluation.ties import (
    IntArray,
    area_by_user,
    checked_columns,
    require_both_classes,
    require_no_nan,
    tie_groups,
)

__all__ = ["bootstrap_auc_interval", "bootstrap_interval"]


def bootstrap_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, (users,) float: one value for each user.

    No values give (nan, nan). Raises `ValueError` for NaN values, `confidence` outside (0, 1) or `samples` below 1.

    >>> low, high = bootstrap_interval([0.2, 0.4, 0.6, 0.8], seed=1)
    >>> 0.2 <= low < 0.5 < high <= 0.8
    True
    """
    values = np.asarray(values, dtype=np.float64)
    require_no_nan("values", values)
    means = [counts @ values / len(values) for counts in _resamples(len(values), samples, seed)]
    return _percentile_interval(means, confidence)


def bootstrap_auc_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    users: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the global AUC, resampling whole users because the rows of one go together.

    The columns are those of `recbase_hf.evaluation.metrics`, and checked like there.
    Resamples that happen to hold one class only have no AUC and are left out; (nan, nan) if none remains.
    Raises `ValueError` if the labels are all of one class, for `confidence` outside (0, 1) or `samples` below 1.
    """
    labels, scores, users = checked_columns(labels, scores, users)
    ties = tie_groups(labels, scores)
    require_both_classes(ties)
    keys, user_of_row = np.unique(users, return_inverse=True)
    areas = []
    for counts in _resamples(len(keys), samples, seed):
        weights = counts[user_of_row]
        rows = np.bincount(ties.group_of_row, weights)
        positives = np.bincount(ties.group_of_row, weights * labels)
        areas.append(area_by_user(ties.user, positives, rows - positives)[0])
    return _percentile_interval([area for area in areas if not np.isnan(area)], confidence)


def _resamples(users: int, samples: int, seed: int) -> Iterator[IntArray]:
    """Yield, `samples` times, how often each user is drawn when as many as there are get drawn with replacement."""
    if samples < 1:
        raise ValueError(f"samples is {samples}; a bootstrap needs at least 1, and 200 or more to be of use")
    generator = np.random.default_rng(seed)
    for _ in range(samples if users else 0):
        yield np.bincount(generator.integers(users, size=users), minlength=users)


def _percentile_interval(statistics: list[float], confidence: float) -> tuple[float, float]:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    if not statistics:
        return float("nan"), float("nan")
    low, high = np.quantile(statistics, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
