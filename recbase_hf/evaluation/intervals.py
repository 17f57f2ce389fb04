"""Bootstrap intervals over users: how far a figure would move with other users of the same kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from recbase_hf.evaluation.ties import IntArray, checked_columns, require_both_classes, require_no_nan

__all__ = ["bootstrap_auc_interval", "bootstrap_interval", "bootstrap_intervals"]

_RESAMPLES_TOGETHER = 16
"""One product of matrices gives the means of so many resamples; more would only take memory."""


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
    low, high = bootstrap_intervals(values[:, None], confidence=confidence, samples=samples, seed=seed)[0]
    return float(low), float(high)


def bootstrap_intervals(
    values: npt.NDArray, *, confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Percentile bootstrap intervals of the means of several figures, all over the same users.

    Args:
        values: (users, figures) float; a figure with an infinite value has no interval.

    Returns:
        (figures, 2) float64, low and high; nan where there is none. Raises as `bootstrap_interval` does.
    """
    values = np.asarray(values, dtype=np.float64)
    quantiles = _quantiles(confidence)
    infinite = np.isinf(values).any(axis=0)
    values = np.where(infinite, np.nan, values)
    means = [counts @ values for counts in _batches(_resamples(len(values), samples, seed), len(values))]
    if not means:
        return np.full((values.shape[1], 2), np.nan)
    return np.quantile(np.concatenate(means) / len(values), quantiles, axis=0).T


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
    require_both_classes(int(labels.sum()), len(labels))
    quantiles = _quantiles(confidence)
    keys, user = np.unique(users, return_inverse=True)
    positive_scores, positive_user = _ascending(scores[labels == 1], user[labels == 1])
    negative_scores, negative_user = _ascending(scores[labels == 0], user[labels == 0])
    # A positive wins against the negatives that come before its score, and half against those of the same score.
    below = np.searchsorted(negative_scores, positive_scores, side="left")
    not_above = np.searchsorted(negative_scores, positive_scores, side="right")
    areas = []
    for counts in _resamples(len(keys), samples, seed):
        positives = counts[positive_user]
        negatives = np.concatenate([[0], np.cumsum(counts[negative_user])])
        pairs = int(positives.sum()) * int(negatives[-1])
        if pairs:
            areas.append(int(positives @ (negatives[below] + negatives[not_above])) / (2 * pairs))
    if not areas:
        return float("nan"), float("nan")
    low, high = np.quantile(areas, quantiles)
    return float(low), float(high)


def _ascending(scores: npt.NDArray[np.float64], user: IntArray) -> tuple[npt.NDArray[np.float64], IntArray]:
    order = np.argsort(scores)
    return scores[order], user[order]


def _resamples(users: int, samples: int, seed: int) -> Iterator[IntArray]:
    """Yield, `samples` times, how often each user is drawn when as many as there are get drawn with replacement."""
    if samples < 1:
        raise ValueError(f"samples is {samples}; a bootstrap needs at least 1, and 200 or more to be of use")
    generator = np.random.default_rng(seed)
    for _ in range(samples if users else 0):
        yield np.bincount(generator.integers(users, size=users), minlength=users)


def _batches(resamples: Iterator[IntArray], users: int) -> Iterator[npt.NDArray[np.float64]]:
    """Some resamples at a time, (up to 16, users) float64, in one array that the next ones overwrite."""
    batch = np.empty((_RESAMPLES_TOGETHER, users))
    while True:
        count = 0
        for count, counts in enumerate(itertools.islice(resamples, _RESAMPLES_TOGETHER), 1):
            batch[count - 1] = counts
        if not count:
            return
        yield batch[:count]


def _quantiles(confidence: float) -> list[float]:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    return [(1 - confidence) / 2, (1 + confidence) / 2]
