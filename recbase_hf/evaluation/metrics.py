"""Ranking metrics over items: AUC, GAUC, MRR, NDCG, recall and hit rate.

Every metric is honest under ties: its value is the expected one when equal scores are put in a uniformly random order.
A constant scorer therefore gets the value of random ranking, and items that share a semantic ID cannot flatter.

All functions take flat columns with one row for each (user, candidate) pair, in any order:

* `labels`: (n,) 0 or 1, bool, integer or float
* `scores`: (n,) float, higher is better, infinities allowed
* `users`: (n,) keys of any one sortable kind (integers, strings)

The functions `..._by_user` take what `tie_groups` made of the columns instead, so that rows are sorted once for all
metrics; they give a value for each of its users, nan where there is none.

Columns of different lengths, labels other than 0 and 1, and NaN scores or users raise `ValueError` with the first row.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from recbase_hf.evaluation.ties import FloatArray, TieGroups, area_by_user, require_both_classes, tie_groups

__all__ = [
    "GaucResult",
    "auc",
    "gauc",
    "hit_rate_at_k",
    "hit_rate_by_user",
    "mrr",
    "mrr_by_user",
    "ndcg_at_k",
    "ndcg_by_user",
    "recall_at_k",
    "recall_by_user",
    "user_auc",
    "user_hit_rate_at_k",
    "user_mrr",
    "user_ndcg_at_k",
    "user_recall_at_k",
]

UserValues: TypeAlias = tuple[npt.NDArray[np.generic], FloatArray]


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
    ties = tie_groups(labels, scores)
    require_both_classes(int(ties.positives.sum()), len(ties.group_of_row))
    return float(area_by_user(ties.user, ties.positives, ties.negatives)[0])


def user_auc(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> UserValues:
    """The users who have both classes, sorted, and the AUC of each one, (scored users,) float64.

    >>> user_auc([1, 0, 1, 0, 1], [0.9, 0.1, 0.3, 0.3, 0.8], ["a", "a", "b", "b", "c"])
    (array(['a', 'b'], dtype='<U1'), array([1. , 0.5]))
    """
    ties = tie_groups(labels, scores, users)
    return _with_value(ties, area_by_user(ties.user, ties.positives, ties.negatives))


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> GaucResult:
    """Unweighted mean of the per-user AUC; users with one class only are skipped and counted.

    >>> gauc([1, 0, 1, 0, 1], [0.9, 0.1, 0.3, 0.3, 0.8], ["a", "a", "b", "b", "c"])
    GaucResult(value=0.75, scored_users=2, skipped_users=1)
    """
    ties = tie_groups(labels, scores, users)
    areas = area_by_user(ties.user, ties.positives, ties.negatives)
    scored = areas[~np.isnan(areas)]
    return GaucResult(_mean(scored), len(scored), len(areas) - len(scored))


def user_mrr(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> UserValues:
    """The users with a positive, sorted, and each one's expected reciprocal rank of the first positive, float64."""
    ties = tie_groups(labels, scores, users)
    return _with_value(ties, mrr_by_user(ties))


def mrr_by_user(ties: TieGroups) -> FloatArray:
    """Expected reciprocal rank of each user's first positive, (users,) float64, nan without a positive."""
    reciprocal_ranks = 1.0 / np.arange(1, _longest_ranking(ties) + 1)
    return _expected_worth_of_first_positive(ties, reciprocal_ranks)


def mrr(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> float:
    """Mean of `user_mrr` over the users with a positive; nan if there are none.

    >>> mrr([0, 1, 0, 1], [0.9, 0.2, 0.5, 0.5], ["a", "a", "b", "b"])
    0.625
    """
    return _mean(user_mrr(labels, scores, users)[1])


def user_ndcg_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> UserValues:
    """The users with a positive, sorted, and each one's expected NDCG of the first `k` ranks, float64.

    The gain is the label, the discount `1 / log2(rank + 1)`, the ideal has all positives first.
    Raises `ValueError` unless `k >= 1`.
    """
    ties = tie_groups(labels, scores, users)
    return _with_value(ties, ndcg_by_user(ties, k))


def ndcg_by_user(ties: TieGroups, k: int) -> FloatArray:
    """Expected NDCG of each user's first `k` ranks, (users,) float64, nan without a positive."""
    depth = min(_checked_k(k), _longest_ranking(ties))
    # discount_before[r] is what the first r ranks are worth together; ranks past the depth add nothing.
    discount_before = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, depth + 2)))])
    first, last = np.minimum(ties.start, depth), np.minimum(ties.start + ties.size, depth)
    gain = _sum_by_user(ties, ties.positives / ties.size * (discount_before[last] - discount_before[first]))
    positives = _sum_by_user(ties, ties.positives)
    ideal = discount_before[np.minimum(positives.astype(np.int64), depth)]
    return _ratio(gain, ideal)


def ndcg_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> float:
    """Mean of `user_ndcg_at_k` over the users with a positive; nan if there are none.

    >>> round(ndcg_at_k([0, 1, 0], [0.9, 0.5, 0.1], ["a", "a", "a"], k=2), 4)
    0.6309
    """
    return _mean(user_ndcg_at_k(labels, scores, users, k)[1])


def user_recall_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> UserValues:
    """The users with a positive, sorted, and the expected share of each one's positives in the first `k`, float64.

    Raises `ValueError` unless `k >= 1`.
    """
    ties = tie_groups(labels, scores, users)
    return _with_value(ties, recall_by_user(ties, k))


def recall_by_user(ties: TieGroups, k: int) -> FloatArray:
    """Expected share of each user's positives in the first `k`, (users,) float64, nan without a positive."""
    places_in_top = np.clip(_checked_k(k) - ties.start, 0, ties.size)
    found = _sum_by_user(ties, ties.positives * places_in_top / ties.size)
    return _ratio(found, _sum_by_user(ties, ties.positives))


def recall_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> float:
    """Mean of `user_recall_at_k` over the users with a positive; nan if there are none.

    >>> recall_at_k([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1], ["a", "a", "a", "a"], k=2)
    0.75
    """
    return _mean(user_recall_at_k(labels, scores, users, k)[1])


def user_hit_rate_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> UserValues:
    """The users with a positive, sorted, and the probability that each one has any in the first `k`, float64.

    Raises `ValueError` unless `k >= 1`.
    """
    ties = tie_groups(labels, scores, users)
    return _with_value(ties, hit_rate_by_user(ties, k))


def hit_rate_by_user(ties: TieGroups, k: int) -> FloatArray:
    """Probability that each user has a positive in the first `k`, (users,) float64, nan without a positive."""
    hits = np.ones(min(_checked_k(k), _longest_ranking(ties)))
    return _expected_worth_of_first_positive(ties, hits)


def hit_rate_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike, k: int) -> float:
    """Mean of `user_hit_rate_at_k` over the users with a positive; nan if there are none.

    >>> hit_rate_at_k([0, 1, 0, 1], [0.9, 0.2, 0.5, 0.5], ["a", "a", "b", "b"], k=1)
    0.25
    """
    return _mean(user_hit_rate_at_k(labels, scores, users, k)[1])


def _expected_worth_of_first_positive(ties: TieGroups, worth: FloatArray) -> FloatArray:
    """The expected `worth[rank]` of each user's best-ranked positive, (users,) float64, nan without a positive.

    `worth` is indexed by rank from 0; ranks past its end are worth nothing. The first positive lies in the user's
    first tie group that has one, at a place that follows the negative hypergeometric distribution. Places are walked
    together for all users, so that untied users leave after the first step.
    """
    with_positives = np.flatnonzero(ties.positives)
    users, first = np.unique(ties.user[with_positives], return_index=True)
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
    by_user = np.full(len(ties.keys), np.nan)
    by_user[users] = expected
    return by_user


def _with_value(ties: TieGroups, by_user: FloatArray) -> UserValues:
    """The users who have a value, sorted, and their values."""
    there = ~np.isnan(by_user)
    return ties.keys[there], by_user[there]


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """`part / whole`, nan where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _sum_by_user(ties: TieGroups, values: npt.NDArray) -> FloatArray:
    return np.bincount(ties.user, values, minlength=len(ties.keys)).astype(np.float64, copy=False)


def _longest_ranking(ties: TieGroups) -> int:
    return int((ties.start + ties.size).max(initial=0))


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _checked_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; the cut-off must be at least 1")
    return k
