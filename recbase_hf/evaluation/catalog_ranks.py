"""Figures of full rankings, from scores of the whole catalog that come a batch of users at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from recbase_hf.evaluation.figures import Figure, TaskFigures, checked_ids, cut_offs, figures_by_user
from recbase_hf.evaluation.task import CatalogTask

__all__ = ["CatalogRanks"]


_SCORES_TOGETHER = 1 << 22
"""Bounds the memory that a batch takes beside its scores, and keeps the work in the processor's caches."""


class CatalogRanks:
    """Where the held-out item of each user ranks; no scores are kept.

    Args:
        task: who is ranked for, and what competes.
        ks: cut-offs; None takes those of the protocol.
        id_of_item: (items,) int64, the same number for items that share a semantic ID; adds the `semantic_id_` figures.

    Raises:
        ValueError: a cut-off is below 1, or `id_of_item` does not fit the catalog.

    >>> from recbase_hf.data.histories import Histories
    >>> from recbase_hf.evaluation.protocols.leave_one_out import leave_one_out
    >>> task = leave_one_out(Histories(np.array(["ann"], object), np.array([0, 3]), np.array([1, 2, 0])), num_items=4)
    >>> ranks = CatalogRanks(task, ks=[2])
    >>> ranks.add(np.array([[0.5, 0.9, 0.5, 0.1]]), [0])
    >>> figures = ranks.figures("some ranker").metrics
    >>> [figures[name].value for name in ("hit@2", "mrr", "coverage@2")]
    [0.5, 0.41666666666666663, 0.5]
    """

    def __init__(
        self,
        task: CatalogTask,
        *,
        ks: Sequence[int] | None = None,
        id_of_item: np.ndarray | None = None,
    ) -> None:
        self._task = task
        self._ks = cut_offs(task, ks)
        self._items = _Counts(len(task))
        self._added = np.zeros(len(task), dtype=bool)
        self._covered = {k: np.zeros(task.num_items, dtype=bool) for k in self._ks}
        self._users_together = max(1, _SCORES_TOGETHER // max(task.num_items, 1))
        self._semantic_ids: _SemanticIds | None = None
        if id_of_item is not None:
            self._semantic_ids = _semantic_ids(checked_ids(id_of_item, task), len(task))

    def add(self, scores: np.ndarray, rows: Sequence[int] | np.ndarray) -> None:
        """Take in the scores of some users.

        Args:
            scores: (users, items) float, higher is better, infinities allowed.
            rows: (users,) their positions in the task, each once.

        Raises:
            ValueError: the scores have another shape; a user comes twice; a score is NaN (the message names user and
                item).
        """
        rows = np.asarray(rows, dtype=np.int64)
        scores = np.asarray(scores)
        scores = scores if scores.dtype.kind == "f" else scores.astype(np.float64)
        self._require_new(scores, rows)
        for start in range(0, len(rows), self._users_together):
            some = slice(start, start + self._users_together)
            self._add(scores[some], rows[some])

    def _add(self, scores: np.ndarray, rows: np.ndarray) -> None:
        positives = self._task.positives[rows]
        scores = self._without_excluded(scores, rows)
        self._items.add(rows, scores, positives)
        if self._semantic_ids is not None:
            self._semantic_ids.add(rows, scores, positives)
        self._cover(scores)
        self._added[rows] = True

    def figures(self, name: str, *, samples: int = 1000, seed: int = 0) -> TaskFigures:
        """All figures.

        Args:
            name: of the ranker, for the table.
            samples: resamples of the bootstrap.
            seed: of the bootstrap.

        Raises:
            ValueError: the scores of a user have not been added.
        """
        missing = np.flatnonzero(~self._added)
        if len(missing):
            raise ValueError(
                f"{name}: the scores of user {self._task.users[missing[0]]!r} have not been added, nor those of "
                f"{len(missing) - 1} others of {len(self._task)}"
            )
        by_user = {"gauc": self._items.areas(), **self._items.rank_figures(self._ks)}
        if self._semantic_ids is not None:
            over_ids = self._semantic_ids.counts.rank_figures(self._ks)
            by_user |= {f"semantic_id_{metric}": values for metric, values in over_ids.items()}
        figures = figures_by_user(name, by_user, self._items.others > 0, samples=samples, seed=seed)
        coverage = {f"coverage@{k}": Figure(float(covered.mean())) for k, covered in self._covered.items()}
        return replace(figures, metrics={**figures.metrics, **coverage})

    def state(self) -> dict[str, np.ndarray]:
        """What is known so far, as arrays that `absorb` takes."""
        state = {"added": self._added}
        state |= {f"items.{name}": values for name, values in vars(self._items).items()}
        if self._semantic_ids is not None:
            state |= {f"semantic_ids.{name}": values for name, values in vars(self._semantic_ids.counts).items()}
        return state | {f"covered.{k}": covered for k, covered in self._covered.items()}

    def absorb(self, state: dict[str, np.ndarray]) -> None:
        """Take in the `state` of ranks of other users of the same task, made with the same options.

        Raises:
            ValueError: a user is in both.
        """
        rows = np.flatnonzero(state["added"])
        if self._added[rows].any():
            user = self._task.users[rows[np.argmax(self._added[rows])]]
            raise ValueError(f"a user comes twice, such as {user!r}; add the scores of each user once")
        self._added[rows] = True
        counts = {"items": self._items}
        if self._semantic_ids is not None:
            counts["semantic_ids"] = self._semantic_ids.counts
        for what, count in counts.items():
            for name, values in vars(count).items():
                values[rows] = state[f"{what}.{name}"][rows]
        for k, covered in self._covered.items():
            covered |= state[f"covered.{k}"]

    def _require_new(self, scores: np.ndarray, rows: np.ndarray) -> None:
        wanted = (len(rows), self._task.num_items)
        if scores.shape != wanted:
            raise ValueError(f"the scores have shape {scores.shape}; those of {len(rows)} users must have {wanted}")
        again = self._added[rows]
        if again.any() or len(np.unique(rows)) < len(rows):
            user = self._task.users[rows[np.argmax(again)]]
            raise ValueError(f"a user comes twice, such as {user!r}; add the scores of each user once")
        # A NaN makes the maximum of its row NaN, and so nothing as large as the scores is written.
        wrong = np.flatnonzero(np.isnan(scores.max(axis=1, initial=-np.inf)))
        if len(wrong):
            item = np.argmax(np.isnan(scores[wrong[0]]))
            raise ValueError(
                f"the score of user {self._task.users[rows[wrong[0]]]!r} for item {item} (a row of the catalog) is "
                "NaN; fix what computed it"
            )

    def _without_excluded(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The scores with NaN where an item does not compete: neither above the positive, nor tied, nor below."""
        if self._task.excluded is None:
            return scores
        excluded = [self._task.excluded[row] for row in rows.tolist()]
        users = np.repeat(np.arange(len(rows)), [len(items) for items in excluded])
        scores = scores.copy()
        scores[users, np.concatenate([np.empty(0, np.int64), *excluded])] = np.nan
        return scores

    def _cover(self, scores: np.ndarray) -> None:
        """Note the first items of each user; of equal scores the lower row comes first."""
        items, place = _top_items(scores, max(self._covered))
        for k, covered in self._covered.items():
            covered[items[place < k]] = True


class _Counts:
    """How many competitors each user's positive has above it, tied with it, and altogether; (users,) int64 each."""

    def __init__(self, num_users: int) -> None:
        self.above = np.zeros(num_users, dtype=np.int64)
        self.tied = np.zeros(num_users, dtype=np.int64)
        self.others = np.zeros(num_users, dtype=np.int64)

    def add(self, rows: np.ndarray, scores: np.ndarray, positives: np.ndarray) -> None:
        """`scores`: (users, competitors) with NaN where one does not compete; `positives`: (users,) int64, columns."""
        own = scores[np.arange(len(rows)), positives][:, None]
        self.above[rows] = np.count_nonzero(scores > own, axis=1)
        self.tied[rows] = np.count_nonzero(scores == own, axis=1) - 1
        self.others[rows] = np.count_nonzero(scores == scores, axis=1) - 1

    def areas(self) -> np.ndarray:
        """AUC of each user, (users,) float64, nan without a competitor."""
        with np.errstate(invalid="ignore"):
            return 1.0 - (self.above + self.tied / 2) / self.others

    def rank_figures(self, ks: Sequence[int]) -> dict[str, np.ndarray]:
        """(users,) float64 by metric, expected over the order of ties."""
        ranks = np.arange(1, int((self.above + self.tied).max(initial=0)) + 2)
        by_user = {"mrr": self._expected(1.0 / ranks)}
        by_user |= {f"mrr@{k}": self._expected(1.0 / ranks[:k]) for k in ks}
        by_user |= {f"ndcg@{k}": self._expected(1.0 / np.log2(ranks[:k] + 1)) for k in ks}
        hits = {k: self._expected(np.ones(len(ranks[:k]))) for k in ks}
        by_user |= {f"hit@{k}": values for k, values in hits.items()}
        return by_user | {f"recall@{k}": values for k, values in hits.items()}

    def _expected(self, worth: np.ndarray) -> np.ndarray:
        """Mean worth of the ranks that the positive may take; `worth`: (ranks,), nothing past its end."""
        worth_before = np.concatenate([[0.0], np.cumsum(worth)])
        first, last = (np.minimum(rank, len(worth)) for rank in (self.above, self.above + self.tied + 1))
        return (worth_before[last] - worth_before[first]) / (self.tied + 1)


class _SemanticIds(NamedTuple):
    """id_of_item: (items,) int64. order: (items,) int64, items by ID. starts: (ids,) int64, where each ID begins."""

    id_of_item: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    counts: _Counts

    def add(self, rows: np.ndarray, scores: np.ndarray, positives: np.ndarray) -> None:
        """Rank IDs, each by its best competing item; `scores`: (users, items) with NaN where one does not compete."""
        best = np.fmax.reduceat(scores[:, self.order], self.starts, axis=1)
        self.counts.add(rows, best, self.id_of_item[positives])


def _semantic_ids(id_of_item: np.ndarray, num_users: int) -> _SemanticIds:
    order = np.argsort(id_of_item, kind="stable")
    starts = np.flatnonzero(np.diff(id_of_item[order], prepend=-1))
    return _SemanticIds(id_of_item, order, starts, _Counts(num_users))


def _top_items(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` competing items of each user: items and their places from 0, both (found,) int64."""
    costs = -scores  # NaN, which does not compete, is sorted to the end
    count = min(count, costs.shape[1])
    limit = np.partition(costs, count - 1, axis=1)[:, count - 1, None]
    limit = np.where(np.isnan(limit), np.inf, limit)
    better, tied = costs < limit, costs == limit
    missing = count - np.count_nonzero(better, axis=1)
    users, items = np.nonzero(tied)
    first_tied = _place(users) < missing[users]
    better_users, better_items = np.nonzero(better)
    users = np.concatenate([better_users, users[first_tied]])
    items = np.concatenate([better_items, items[first_tied]])
    order = np.lexsort((items, costs[users, items], users))
    return items[order], _place(users[order])


def _place(users: np.ndarray) -> np.ndarray:
    """How many times the same user came before. `users`: (n,) int64, ascending."""
    opens = np.diff(users, prepend=-1) > 0
    return np.arange(len(users)) - np.flatnonzero(opens)[np.cumsum(opens) - 1]
