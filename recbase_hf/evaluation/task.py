"""Who is evaluated on what: users with their histories, and the items that a ranker has to put in order for each."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recbase_hf.data.histories import Histories

__all__ = ["CandidateTask", "CatalogTask", "RankingTask"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RankingTask:
    """What both kinds of task share; all items are rows of one catalog.

    Attributes:
        users: (users,) object, user ids (str).
        histories: one (length,) int64 array a user, oldest first, already cut to the protocol's length; may be empty.
        training: what a ranker that is fitted on the data set may learn from: no held-out event is in it.
        num_items: items in the catalog.
        settings: for the receipt, JSON values: the protocol's `name`, every switch by its name, `seed`, `ks` (the
            cut-offs that the protocol reports) and how many users were left out and why.
    """

    users: np.ndarray
    histories: list[np.ndarray]
    training: Histories
    num_items: int
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.users) != len(self.histories):
            raise ValueError(f"{len(self.users)} users, but {len(self.histories)} histories; give one of each a user")
        self._require_rows("history", self.histories)
        events = self.training.items
        if len(events) and not 0 <= events.min() <= events.max() < self.num_items:
            raise ValueError(
                f"training holds items {events.min()} to {events.max()}, but num_items is {self.num_items}; "
                "build it with the item ids of the catalog"
            )

    def __len__(self) -> int:
        """Number of users."""
        return len(self.users)

    def content_hash(self) -> str:
        """Sixteen hexadecimal digits that stand for who is ranked for, on what, and what may be learned."""
        digest = hashlib.sha256(json.dumps(self.users.tolist()).encode())
        for array in self._arrays():
            digest.update(f"{array.shape} ".encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").data)
        return digest.hexdigest()[:16]

    def _arrays(self) -> list[np.ndarray]:
        """All whole numbers of the task."""
        lengths = np.array([len(history) for history in self.histories], dtype=np.int64)
        histories = np.concatenate([np.empty(0, np.int64), *self.histories])
        return [lengths, histories, self.training.offsets, self.training.items]

    def _require_rows(self, what: str, parts: Sequence[np.ndarray]) -> None:
        """Check that the items of each user are rows of the catalog; (length,) int64 a user."""
        rows = np.concatenate([np.empty(0, np.int64), *parts])
        outside = (rows < 0) | (rows >= self.num_items)
        if outside.any():
            first = int(np.argmax(outside))
            user = np.searchsorted(np.cumsum([len(part) for part in parts]), first, side="right")
            raise ValueError(
                f"user {self.users[user]!r}: the {what} holds item {rows[first]}, but the catalog has rows 0 to "
                f"{self.num_items - 1}; build it with the item ids of the catalog"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class CandidateTask(RankingTask):
    """A few candidates to rank for each user; user `u` owns the rows `offsets[u] : offsets[u + 1]`.

    Attributes:
        candidates: (rows,) int64, user after user, one or more each; an item may come twice.
        labels: (rows,) int8, 1 where the user chose the candidate, else 0.
        offsets: (users + 1,) int64.

    Raises:
        ValueError: the parts do not fit together, a label is neither 0 nor 1, or an item is not in the catalog.

    >>> task = CandidateTask(
    ...     users=np.array(["ann", "bob"], object),
    ...     histories=[np.array([3, 1]), np.array([0])],
    ...     candidates=np.array([2, 4, 1, 5]),
    ...     labels=np.array([0, 1, 1, 0]),
    ...     offsets=np.array([0, 2, 4]),
    ...     training=Histories(np.array(["ann"], object), np.array([0, 2]), np.array([3, 1])),
    ...     num_items=6,
    ... )
    >>> [items.tolist() for items in task.candidates_of(0, 2)], task.user_of_row.tolist()
    ([[2, 4], [1, 5]], [0, 0, 1, 1])
    """

    candidates: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = np.shape(self.candidates)
        if len(shape) != 1 or np.shape(self.labels) != shape:
            raise ValueError(
                f"candidates have shape {shape}, labels {np.shape(self.labels)}; both must be (rows,), user after user"
            )
        if len(self.offsets) != len(self.users) + 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.candidates):
            raise ValueError(
                f"offsets must be {len(self.users) + 1} numbers from 0 to {len(self.candidates)}, the number of "
                "candidates: user u owns the rows offsets[u] to offsets[u + 1]"
            )
        empty = np.flatnonzero(np.diff(self.offsets) < 1)
        if len(empty):
            raise ValueError(f"user {self.users[empty[0]]!r} has no candidates; leave such users out")
        wrong = np.flatnonzero((self.labels != 0) & (self.labels != 1))
        if len(wrong):
            raise ValueError(f"labels row {wrong[0]} is {self.labels[wrong[0]]}; labels must be 0 or 1")
        self._require_rows("list of candidates", self.candidates_of(0, len(self)))

    def _arrays(self) -> list[np.ndarray]:
        return [*super()._arrays(), self.candidates, self.labels, self.offsets]

    @property
    def user_of_row(self) -> np.ndarray:
        """(rows,) int64, positions in `users`."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def candidates_of(self, start: int, stop: int) -> list[np.ndarray]:
        """The candidates of the users `start` to `stop`, one (n,) int64 view each."""
        bounds = self.offsets[start : stop + 1].tolist()
        return [self.candidates[first:last] for first, last in itertools.pairwise(bounds)]


@dataclass(frozen=True, eq=False, kw_only=True)
class CatalogTask(RankingTask):
    """Every item of the catalog to rank for each user, one of them right.

    Attributes:
        positives: (users,) int64, the held-out item of each user.
        excluded: one (n,) int64 array a user, items that do not compete (such as those of the history), never the
            positive; None where all compete.

    Raises:
        ValueError: the parts do not fit together, or an item is not in the catalog.
    """

    positives: np.ndarray
    excluded: list[np.ndarray] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if np.shape(self.positives) != (len(self),):
            raise ValueError(f"positives have shape {np.shape(self.positives)}; give one item for each of {len(self)}")
        self._require_rows("held-out part", list(self.positives[:, None]))
        if self.excluded is None:
            return
        if len(self.excluded) != len(self):
            raise ValueError(f"{len(self)} users, but {len(self.excluded)} lists of excluded items; give one a user")
        self._require_rows("list of excluded items", self.excluded)
        for user, (positive, excluded) in enumerate(zip(self.positives.tolist(), self.excluded, strict=True)):
            if (excluded == positive).any():
                raise ValueError(
                    f"user {self.users[user]!r}: the held-out item {positive} is among the excluded items, so that no "
                    "ranker could find it; take it out of them"
                )

    def _arrays(self) -> list[np.ndarray]:
        return [*super()._arrays(), self.positives, *(self.excluded or [])]
