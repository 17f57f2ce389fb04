"""All figures of one ranker on one task, each with a bootstrap interval over users."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from recbase_hf.evaluation import metrics
from recbase_hf.evaluation.intervals import bootstrap_auc_interval, bootstrap_intervals
from recbase_hf.evaluation.task import CandidateTask, RankingTask
from recbase_hf.evaluation.ties import TieGroups, area_by_user, tie_groups

__all__ = [
    "Figure",
    "TaskFigures",
    "checked_ids",
    "cut_offs",
    "figures_by_user",
    "measure_candidates",
]

_AUC_BOOTSTRAP_PAIRS = 100_000_000
"""One resample of the global AUC walks over all pairs, so that many pairs get fewer resamples, but 100 at least."""


class Figure(NamedTuple):
    """One number and its 95 % bootstrap interval over users; None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class TaskFigures:
    """What one ranker reaches on one task.

    Every value is the expected one when equal scores are put in a uniformly random order.

    Attributes:
        name: of the ranker.
        metrics: by name. `auc` is over all pairs of a user and a candidate together, `gauc` the mean AUC of a user,
            `log_loss` the mean of minus the log-probability of the positive among the user's candidates, in nats.
            `mrr`, `ndcg@k`, `hit@k` (any positive in the first k) and `recall@k` (share of the positives in the first
            k) are means over users. `coverage@k` is the share of the catalog that is in somebody's first k. Names that
            start with `semantic_id_` rank distinct semantic IDs instead of items, as much of the literature does: an
            ID scores as its best item, and any item with the positive's ID counts as found.
        users: that the means are over.
        skipped_users: left out of the means, because they have nothing to rank: candidates of one label only, or no
            item to beat. They count in `auc`.
    """

    name: str
    metrics: dict[str, Figure]
    users: int
    skipped_users: int

    def to_json(self) -> dict[str, Any]:
        """Flat JSON; what is not finite becomes None."""
        return {
            "name": self.name,
            "metrics": {
                name: {part: _finite(number) for part, number in figure._asdict().items()}
                for name, figure in self.metrics.items()
            },
            "users": self.users,
            "skipped_users": self.skipped_users,
        }


def measure_candidates(
    name: str,
    scores: np.ndarray,
    task: CandidateTask,
    *,
    ks: Sequence[int] | None = None,
    id_of_item: np.ndarray | None = None,
    log_probabilities: bool = False,
    seed: int = 0,
    samples: int = 1000,
) -> TaskFigures:
    """All figures of one ranker on candidates.

    Args:
        name: of the ranker, for the table.
        scores: (rows,) float, one a row of `task.candidates`, higher is better.
        task: gives users and labels.
        ks: cut-offs; None takes those of the protocol.
        id_of_item: (items,) int64, the same number for items that share a semantic ID; adds the `semantic_id_` figures.
        log_probabilities: whether the scores are log-probabilities up to a constant of the user. Then `log_loss` is
            there, if every user who counts has one positive.
        seed: of the bootstrap.
        samples: resamples of the bootstrap; the AUC takes fewer where there are more than 100,000 pairs.

    Raises:
        ValueError: there is not one score a row; a score is NaN (the message names user and item); all labels are the
            same; a cut-off is below 1; or `id_of_item` does not fit the catalog.

    >>> from recbase_hf.data.histories import Histories
    >>> from recbase_hf.evaluation.protocols.leave_last_out import leave_last_out
    >>> task = leave_last_out(Histories(np.array(["ann"], object), np.array([0, 2]), np.array([1, 0])), num_items=8)
    >>> best = measure_candidates("oracle", task.labels.astype(float), task)
    >>> best.metrics["gauc"], best.to_json()["metrics"]["hit@1"]
    (Figure(value=1.0, low=1.0, high=1.0), {'value': 1.0, 'low': 1.0, 'high': 1.0})
    """
    scores = _checked_scores(name, scores, task)
    ks = cut_offs(task, ks)
    user = task.user_of_row
    ties = tie_groups(task.labels, scores, user)
    areas = area_by_user(ties.user, ties.positives, ties.negatives)
    by_user = {"gauc": areas}
    if log_probabilities and _one_positive_each(ties, ~np.isnan(areas)):
        by_user["log_loss"] = _log_loss_by_user(scores, task)
    by_user |= _rank_figures(ties, ks)
    if id_of_item is not None:
        over_ids = tie_groups(*_rows_of_ids(scores, task, user, checked_ids(id_of_item, task)))
        by_user |= {f"semantic_id_{metric}": values for metric, values in _rank_figures(over_ids, ks).items()}
    auc_samples = min(samples, max(100, _AUC_BOOTSTRAP_PAIRS // len(scores)))
    pooled = Figure(
        metrics.auc(task.labels, scores),
        *bootstrap_auc_interval(task.labels, scores, user, samples=auc_samples, seed=seed),
    )
    figures = figures_by_user(name, by_user, ~np.isnan(areas), samples=samples, seed=seed)
    return replace(figures, metrics={"auc": pooled, **figures.metrics})


def figures_by_user(
    name: str, by_user: dict[str, np.ndarray], scored: np.ndarray, *, samples: int = 1000, seed: int = 0
) -> TaskFigures:
    """Means over users with intervals. `by_user`: (users,) float by metric; `scored`: (users,) bool, who counts."""
    values = np.stack([column[scored] for column in by_user.values()], axis=1)
    means = values.mean(axis=0) if len(values) else np.full(values.shape[1], math.nan)
    intervals = bootstrap_intervals(values, samples=samples, seed=seed)
    return TaskFigures(
        name=name,
        metrics={
            metric: Figure(float(mean), float(low), float(high))
            for metric, mean, (low, high) in zip(by_user, means, intervals, strict=True)
        },
        users=int(scored.sum()),
        skipped_users=int((~scored).sum()),
    )


def cut_offs(task: RankingTask, ks: Sequence[int] | None) -> list[int]:
    """The cut-offs to report, ascending: those given, else those of the protocol.

    Raises:
        ValueError: there are none, or one is below 1.
    """
    chosen = sorted(set(task.settings.get("ks", (1, 3, 5, 10)) if ks is None else ks))
    if not chosen or chosen[0] < 1:
        raise ValueError(f"ks are {chosen}; give one cut-off or more, each at least 1")
    return chosen


def checked_ids(id_of_item: np.ndarray, task: RankingTask) -> np.ndarray:
    """Numbers from 0 for the semantic IDs of the items, (items,) int64, without gaps.

    Raises:
        ValueError: there is not one ID an item.
    """
    if np.shape(id_of_item) != (task.num_items,):
        raise ValueError(
            f"id_of_item has shape {np.shape(id_of_item)}, but the catalog has {task.num_items} items; give one "
            "number an item, the same for items that share a semantic ID"
        )
    return np.unique(id_of_item, return_inverse=True)[1]


def _checked_scores(name: str, scores: np.ndarray, task: CandidateTask) -> np.ndarray:
    """(rows,) float64."""
    if np.shape(scores) != task.candidates.shape:
        raise ValueError(
            f"{name}: the scores have shape {np.shape(scores)}, the candidates {task.candidates.shape}; "
            "give one score a candidate, user after user"
        )
    scores = np.asarray(scores, dtype=np.float64)
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"{name}: the score of user {task.users[task.user_of_row[row]]!r} for item {task.candidates[row]} (a row "
            f"of the catalog) is NaN, as are {len(wrong)} of {len(scores)}; fix what computed it"
        )
    return scores


def _rank_figures(ties: TieGroups, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """(users,) float64 by metric."""
    by_user = {"mrr": metrics.mrr_by_user(ties)}
    by_user |= {f"ndcg@{k}": metrics.ndcg_by_user(ties, k) for k in ks}
    by_user |= {f"hit@{k}": metrics.hit_rate_by_user(ties, k) for k in ks}
    return by_user | {f"recall@{k}": metrics.recall_by_user(ties, k) for k in ks}


def _one_positive_each(ties: TieGroups, scored: np.ndarray) -> bool:
    return bool((np.bincount(ties.user, ties.positives)[scored] == 1).all())


def _log_loss_by_user(scores: np.ndarray, task: CandidateTask) -> np.ndarray:
    """Minus the log-softmax over the user's candidates at the positive, (users,) float64 in nats."""
    starts, counts = task.offsets[:-1], np.diff(task.offsets)
    best = np.maximum.reduceat(scores, starts)
    # Where no candidate is possible at all, they are equally unlikely.
    impossible = np.repeat(best == -np.inf, counts)
    shifted = np.where(impossible, 0.0, scores - np.repeat(np.maximum(best, np.finfo(np.float64).min), counts))
    totals = np.add.reduceat(np.exp(shifted), starts)
    positive = np.add.reduceat(np.where(task.labels == 1, shifted, 0.0), starts)
    return np.log(totals) - positive


def _rows_of_ids(
    scores: np.ndarray, task: CandidateTask, user: np.ndarray, id_of_item: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and users of the distinct semantic IDs among each user's candidates."""
    num_ids = int(id_of_item.max(initial=0)) + 1
    keys = user * num_ids + id_of_item[task.candidates]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    labels = np.maximum.reduceat(task.labels[order], starts)
    return labels, np.maximum.reduceat(scores[order], starts), keys[starts] // num_ids


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
