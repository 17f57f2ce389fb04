"""Who is evaluated on what: each user's history, the held-out item and the negatives that it has to beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recbase_hf.data.histories import Histories

__all__ = ["CandidateSet", "leave_last_out"]


@dataclass(frozen=True, eq=False)
class CandidateSet:
    """Candidates to rank for each user; all items are rows of one catalog.

    Attributes:
        users: (users,) object, user ids (str).
        histories: one (length,) int64 array a user, oldest first.
        candidates: (users, candidates) int64.
        labels: (users, candidates) int8, 1 where the candidate is what the user chose.
        settings: how the set was made, for the receipt: JSON values.
    """

    users: np.ndarray
    histories: list[np.ndarray]
    candidates: np.ndarray
    labels: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.candidates.ndim != 2 or self.candidates.shape != self.labels.shape:
            raise ValueError(
                f"candidates have shape {self.candidates.shape}, labels {self.labels.shape}; "
                "both must be (users, candidates)"
            )
        if not len(self.users) == len(self.histories) == len(self.candidates):
            raise ValueError(
                f"{len(self.users)} users, {len(self.histories)} histories and {len(self.candidates)} rows of "
                "candidates; give one of each a user"
            )

    def __len__(self) -> int:
        """Number of users."""
        return len(self.users)


def leave_last_out(
    histories: Histories,
    num_items: int,
    *,
    num_negatives: int = 4,
    max_history: int = 20,
    max_users: int | None = None,
    seed: int = 0,
) -> CandidateSet:
    """Hold out each user's last item and hide it among items that the user never had.

    Args:
        histories: rows of the catalog, oldest first.
        num_items: items in the catalog.
        num_negatives: candidates beside the held-out item, drawn uniformly without replacement from the catalog less
            all items of the user, also those older than `max_history`.
        max_history: the newest items before the held-out one that the user is described by.
        max_users: if more users can be evaluated, a random sample of this size is.
        seed: of one random generator for all users: the draw of a user depends on who else is evaluated.

    Returns:
        Users in the order of `histories`; the candidates of each in random order, so that no order of ties favors
        the held-out item. Users with fewer than 2 events, and users with fewer than `num_negatives` items of the
        catalog outside their own, are left out; `settings` counts them.

    Raises:
        ValueError: a setting is out of range, an item is not a row of the catalog, or nobody can be evaluated.

    >>> histories = Histories(np.array(["ann", "bob"], object), np.array([0, 3, 4]), np.array([5, 7, 2, 5]))
    >>> ann_only = leave_last_out(histories, num_items=10)
    >>> ann_only.users.tolist(), ann_only.histories[0].tolist(), ann_only.candidates[ann_only.labels == 1].tolist()
    (['ann'], [5, 7], [2])
    """
    for name, value in {"num_negatives": num_negatives, "max_history": max_history, "max_users": max_users}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    own = _own_items(histories, num_items)
    long_enough = histories.lengths >= 2
    negatives_enough = num_items - own.lengths >= num_negatives
    chosen = np.flatnonzero(long_enough & negatives_enough)
    counts = {
        "users_too_short": int((~long_enough).sum()),
        "users_without_negatives": int((long_enough & ~negatives_enough).sum()),
    }
    if not len(chosen):
        raise ValueError(_nobody_left(len(histories), num_items, num_negatives, **counts))

    generator = np.random.default_rng(seed)
    if max_users is not None and len(chosen) > max_users:
        chosen = np.sort(generator.choice(chosen, max_users, replace=False, shuffle=False))
    ends = histories.offsets[1:][chosen] - 1
    starts = np.maximum(histories.offsets[:-1][chosen], ends - max_history)
    negatives = _draw_outside(own.select(chosen), num_items, num_negatives, generator)
    candidates = np.concatenate([histories.items[ends][:, None], negatives], axis=1)
    order = np.argsort(generator.random(candidates.shape), axis=1)
    return CandidateSet(
        users=histories.users[chosen],
        histories=[histories.items[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)],
        candidates=np.take_along_axis(candidates, order, axis=1),
        labels=(order == 0).astype(np.int8),
        settings={
            "name": "leave-last-out",
            "seed": seed,
            "num_items": num_items,
            "num_users": len(chosen),
            "num_candidates": num_negatives + 1,
            "max_history": max_history,
            "max_users": max_users,
            **counts,
        },
    )


def _own_items(histories: Histories, num_items: int) -> Histories:
    """The distinct items of each user, ascending."""
    if len(histories.items) and not 0 <= histories.items.min() <= histories.items.max() < num_items:
        raise ValueError(
            f"the histories hold items {histories.items.min()} to {histories.items.max()}, but num_items is "
            f"{num_items}; build them with the item ids of the catalog"
        )
    owners = np.repeat(np.arange(len(histories)), histories.lengths)
    owners, items = np.divmod(np.unique(owners * num_items + histories.items), max(num_items, 1))
    offsets = np.searchsorted(owners, np.arange(len(histories) + 1))
    return Histories(histories.users, offsets, items)


def _draw_outside(own: Histories, num_items: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Items that are not a user's own, (users, count) int64, uniform without replacement."""
    ranks = _distinct_ranks(num_items - own.lengths, count, generator)
    # With own items s_0 < s_1 < ..., the item of rank r among the others is r + (how many s_i - i are at most r).
    owners = np.repeat(np.arange(len(own)), own.lengths)
    thresholds = own.items - (np.arange(len(own.items)) - own.offsets[owners])
    wanted = np.arange(len(own))[:, None] * num_items + ranks
    skipped = np.searchsorted(owners * num_items + thresholds, wanted, side="right") - own.offsets[:-1, None]
    return ranks + skipped


def _distinct_ranks(sizes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` distinct numbers below each of `sizes`, (users, count) int64, by Floyd's algorithm.

    Every set is equally likely, but not every order of it.
    """
    ranks = np.empty((len(sizes), count), dtype=np.int64)
    for column in range(count):
        last = sizes - count + column
        drawn = generator.integers(0, last, endpoint=True)
        taken = (ranks[:, :column] == drawn[:, None]).any(axis=1)
        ranks[:, column] = np.where(taken, last, drawn)
    return ranks


def _nobody_left(
    num_users: int, num_items: int, num_negatives: int, *, users_too_short: int, users_without_negatives: int
) -> str:
    return (
        f"none of {num_users} users can be evaluated: {users_too_short} have fewer than 2 events (one for the history, "
        f"one to hold out; add interactions), {users_without_negatives} have fewer than {num_negatives} of the "
        f"catalog's {num_items} items outside their own (add items, or lower num_negatives)"
    )
