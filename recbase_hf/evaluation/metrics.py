"""Ranking metrics over items: AUC, GAUC, MRR, NDCG, recall and hit rate, with bootstrap intervals over users.

Every metric is honest under ties: its value is the expected one when equal scores are put in a uniformly random order.
A constant scorer therefore gets the value of random ranking, and items that share a semantic ID cannot flatter.

All functions take flat columns with one row for each (user, candidate) pair, in any order:

* `labels`: (n,) 0 or 1, bool, integer or float
* `scores`: (n,) float, higher is better, infinities allowed
* `users`: (n,) keys of any one sortable kind (integers, strings)

Columns of different lengths, labels other than 0 and 1, and NaN scores or users raise `ValueError` with the first row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "GaucResult",
    "auc",
    "bootstrap_auc_interval",
    "bootstrap_interval",
    "gauc",
    "hit_rate_at_k",
    "mrr",
    "ndcg_at_k",
    "recall_at_k",
    "user_auc",
    "user_hit_rate_at_k",
    "user_mrr",
    "user_ndcg_at_k",
    "user_recall_at_k",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class GaucResult(NamedTuple):
    """`value`: unweighted mean of the per-user AUC, nan if nobody could be scored; `scored_users`: users with both
    classes; `skipped_users`: users with one class only, who have no AUC."""

    value: float
    scored_users: int
    skipped_users: int


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Probability that a random positive row scores above a random negative one, a tie counting one half.

    Raises `ValueError` if the labels are all of one class.

    >>> auc([1, 0, 1, 0], [0.9, 0.1, 0.4, 0.4])
    0.875
    """
    labels, scores, _ = _checked_columns(labels, scores)
    _require_both_classes(labels)
    ties = _tie_groups(labels, scores)
    return float(_area_by_user(ties.user, ties.positives, ties.size - ties.positives)[0])


def user_auc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike
) -> tuple[npt.NDArray[np.generic], FloatArray]:
    """The users who have both classes, sorted, and the AUC of each one, (scored users,) float64.

    >>> user_auc([1, 0, 1, 0, 1], [0.9, 0.1, 0.3, 0.3, 0.8], ["a", "a", "b", "b", "c"])
    (array(['a', 'b'], dtype='<U1'), array([1. , 0.5]))
    """
    ties = _tie_groups(*_checked_columns(labels, scores, users))
    areas = _area_by_user(ties.user, ties.positives, ties.size - ties.positives)
    scored = ~np.isnan(areas)
    return ties.keys[scored], areas[scored]


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> GaucResult:
    """Unweighted mean of the per-user AUC; users with one class only are skipped and counted.

    >>> gauc([1, 0, 1, 0, 1], [0.9, 0.1, 0.3, 0.3, 0.8], ["a", "a", "b", "b", "c"])
    GaucResult(value=0.75, scored_users=2, skipped_users=1)
    """
    _, areas = user_auc(labels, scores, users)
    return GaucResult(_mean(areas), len(areas), len(np.unique(np.asarray(users))) - len(areas))


def user_mrr(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike
) -> tuple[npt.NDArray[np.generic], FloatArray]:
    """The users with a positive, sorted, and each one's expected reciprocal rank of the first positive, float64."""
    ties = _tie_groups(*_checked_columns(labels, scores, users))
    reciprocal_ranks = 1.0 / np.arange(1, _longest_ranking(ties) + 1)
    return ties.keys[_users_with_positives(ties)], _expected_worth_of_first_positive(ties, reciprocal_ranks)


def mrr(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> float:
    """Mean of `user_mrr` over the users with a positive; nan if there are none.

    >>> mrr([0, 1, 0, 1], [0.9, 0.2, 0.5, 0.5], ["a", "a", "b", "b"])
    0.625
    """
    return _mean(user_mrr(labels, scores, users)[1])


def user_ndcg_at_k(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[np.generic], FloatArray]:
    """The users with a positive, sorted, and each one's expected NDCG of the first `k` ranks, float64.

    The gain is the label, the discount `1 / log2(rank + 1)`, the ideal has all positives first.
    Raises `ValueError` unless `k >= 1`.
    """
    ties = _tie_groups(*_checked_columns(labels, scores, users))
    depth = min(_checked_k(k), _longest_ranking(ties))
    # discount_before[r] is what the first r ranks are worth together; ranks past the depth add nothing.
    discount_before = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, depth + 2)))])
    first, last = np.minimum(ties.start, depth), np.minimum(ties.start + ties.size, depth)
    gain = _sum_by_user(ties, ties.positives / ties.size * (discount_before[last] - discount_before[first]))
    chosen = _users_with_positives(ties)
    ideal = discount_before[np.minimum(_sum_by_user(ties, ties.positives)[chosen].astype(np.int64), depth)]
    return ties.keys[chosen], gain[chosen] / ideal


def ndcg_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> float:
    """Mean of `user_ndcg_at_k` over the users with a positive; nan if there are none.

    >>> round(ndcg_at_k([0, 1, 0], [0.9, 0.5, 0.1], ["a", "a", "a"], k=2), 4)
    0.6309
    """
    return _mean(user_ndcg_at_k(labels, scores, users, k)[1])


def user_recall_at_k(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[np.generic], FloatArray]:
    """The users with a positive, sorted, and the expected share of each one's positives in the first `k`, float64.

    Raises `ValueError` unless `k >= 1`.
    """
    ties = _tie_groups(*_checked_columns(labels, scores, users))
    places_in_top = np.clip(_checked_k(k) - ties.start, 0, ties.size)
    found = _sum_by_user(ties, ties.positives * places_in_top / ties.size)
    chosen = _users_with_positives(ties)
    return ties.keys[chosen], found[chosen] / _sum_by_user(ties, ties.positives)[chosen]


def recall_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> float:
    """Mean of `user_recall_at_k` over the users with a positive; nan if there are none.

    >>> recall_at_k([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1], ["a", "a", "a", "a"], k=2)
    0.75
    """
    return _mean(user_recall_at_k(labels, scores, users, k)[1])


def user_hit_rate_at_k(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[np.generic], FloatArray]:
    """The users with a positive, sorted, and the probability that each one has any in the first `k`, float64.

    Raises `ValueError` unless `k >= 1`.
    """
    ties = _tie_groups(*_checked_columns(labels, scores, users))
    hits = np.ones(min(_checked_k(k), _longest_ranking(ties)))
    return ties.keys[_users_with_positives(ties)], _expected_worth_of_first_positive(ties, hits)


def hit_rate_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> float:
    """Mean of `user_hit_rate_at_k` over the users with a positive; nan if there are none.

    >>> hit_rate_at_k([0, 1, 0, 1], [0.9, 0.2, 0.5, 0.5], ["a", "a", "b", "b"], k=1)
    0.25
    """
    return _mean(user_hit_rate_at_k(labels, scores, users, k)[1])


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
    _check_no_nan("values", values)
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
    """Percentile bootstrap interval of the global `auc`, resampling whole users because the rows of one go together.

    Resamples that happen to hold one class only have no AUC and are left out; (nan, nan) if none remains.
    Raises `ValueError` if the labels are all of one class, for `confidence` outside (0, 1) or `samples` below 1.
    """
    labels, scores, users = _checked_columns(labels, scores, users)
    _require_both_classes(labels)
    keys, user_of_row = np.unique(users, return_inverse=True)
    ties = _tie_groups(labels, scores)
    areas = []
    for counts in _resamples(len(keys), samples, seed):
        weights = counts[user_of_row]
        rows = np.bincount(ties.group_of_row, weights)
        positives = np.bincount(ties.group_of_row, weights * labels)
        areas.append(_area_by_user(ties.user, positives, rows - positives)[0])
    return _percentile_interval([area for area in areas if not np.isnan(area)], confidence)


class _TieGroups(NamedTuple):
    """Maximal runs of rows with one user and one score, ordered by user and then from the best score to the worst."""

    keys: npt.NDArray[np.generic]  # (users,) sorted
    user: IntArray  # (groups,) index into `keys`
    start: IntArray  # (groups,) how many rows of the same user score higher
    size: IntArray  # (groups,) rows
    positives: IntArray  # (groups,) rows with label 1
    group_of_row: IntArray  # (n,)


def _tie_groups(labels: IntArray, scores: FloatArray, users: npt.NDArray[np.generic] | None = None) -> _TieGroups:
    """Sort the rows once; without `users` all rows belong to one."""
    keys, user = np.unique(np.zeros(len(labels), np.int64) if users is None else users, return_inverse=True)
    order = np.lexsort((-scores, user))
    user, scores = user[order], scores[order]
    opens = np.ones(len(order), dtype=bool)
    opens[1:] = (user[1:] != user[:-1]) | (scores[1:] != scores[:-1])
    group_of_row = np.empty(len(order), dtype=np.int64)
    group_of_row[order] = np.cumsum(opens) - 1
    first = np.flatnonzero(opens)
    return _TieGroups(
        keys=keys,
        user=user[first],
        start=first - np.searchsorted(user, user[first]),
        size=np.diff(first, append=len(order)),
        positives=np.bincount(group_of_row, labels, minlength=len(first)).astype(np.int64),
        group_of_row=group_of_row,
    )


def _area_by_user(user: IntArray, positives: npt.NDArray, negatives: npt.NDArray) -> FloatArray:
    """AUC of each user, (users,) float64, nan without both classes, from the (weighted) counts of its tie groups."""
    total_positives, total_negatives = np.bincount(user, positives), np.bincount(user, negatives)
    negatives_below = np.cumsum(total_negatives)[user] - np.cumsum(negatives)
    pairs_won = np.bincount(user, positives * (negatives_below + negatives / 2))
    with np.errstate(invalid="ignore"):
        return pairs_won / (total_positives * total_negatives)


def _expected_worth_of_first_positive(ties: _TieGroups, worth: FloatArray) -> FloatArray:
    """Expected `worth[rank]` of each user's best-ranked positive, (users with positives,) float64.

    `worth` is indexed by rank from 0; ranks past its end are worth nothing. The first positive lies in the user's
    first tie group that has one, at a place that follows the negative hypergeometric distribution. Places are walked
    together for all users, so that untied users leave after the first step.
    """
    with_positives = np.flatnonzero(ties.positives)
    _, first = np.unique(ties.user[with_positives], return_index=True)
    groups = with_positives[first]
    start, size, positives = ties.start[groups], ties.size[groups], ties.positives[groups]
    expected, none_yet = np.zeros(len(groups)), np.ones(len(groups))
    open_ = np.arange(len(groups))
    for place in range(size.max(initial=0)):
        open_ = open_[(place <= (size - positives)[open_]) & (start[open_] + place < len(worth))]
        if not open_.size:
            break
        here = positives[open_] / (size[open_] - place)
        expected[open_] += none_yet[open_] * here * worth[start[open_] + place]
        none_yet[open_] *= 1.0 - here
    return expected


def _users_with_positives(ties: _TieGroups) -> npt.NDArray[np.bool_]:
    return _sum_by_user(ties, ties.positives) > 0


def _sum_by_user(ties: _TieGroups, values: npt.NDArray) -> FloatArray:
    return np.bincount(ties.user, values, minlength=len(ties.keys)).astype(np.float64, copy=False)


def _longest_ranking(ties: _TieGroups) -> int:
    return int((ties.start + ties.size).max(initial=0))


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


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


def _checked_columns(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike | None = None
) -> tuple[IntArray, FloatArray, npt.NDArray[np.generic]]:
    """The columns as arrays of one length; without `users` all rows belong to user 0."""
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    users = np.zeros(len(labels), dtype=np.int64) if users is None else np.asarray(users)
    columns = {"labels": labels, "scores": scores, "users": users}
    if any(column.ndim != 1 for column in columns.values()) or len({len(column) for column in columns.values()}) > 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise ValueError(f"columns differ in shape ({shapes}); give one label, one score and one user for each row")
    _check_no_nan("scores", scores)
    _check_no_nan("users", users)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise ValueError(f"labels row {wrong[0]} is {labels[wrong[0]]}; labels must be 0 or 1, so threshold them first")
    return labels.astype(np.int64), scores, users


def _check_no_nan(name: str, column: npt.NDArray) -> None:
    # Only NaN (and NaT) differ from themselves; unlike isnan this accepts strings and objects.
    wrong = np.flatnonzero(column != column)
    if wrong.size:
        raise ValueError(f"{name} row {wrong[0]} is {column[wrong[0]]}; drop such rows or fix what computed them")


def _checked_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; the cut-off must be at least 1")
    return k


def _require_both_classes(labels: IntArray) -> None:
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise ValueError(
            f"AUC needs both classes, but {positives} of {len(labels)} labels are 1; "
            "add rows of the missing class, or use gauc, which skips such users"
        )
