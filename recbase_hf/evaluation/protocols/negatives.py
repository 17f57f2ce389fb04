"""Draws items that a user never had, uniformly over the rest of the catalog."""

from __future__ import annotations

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.protocols.sequences import require_items_of_catalog

__all__ = ["draw_outside", "own_items"]


def own_items(histories: Histories, num_items: int) -> Histories:
    """The distinct items of each user, ascending.

    Raises:
        ValueError: an item is not a row of the catalog.
    """
    require_items_of_catalog(histories, num_items)
    owners = np.repeat(np.arange(len(histories)), histories.lengths)
    owners, items = np.divmod(np.unique(owners * num_items + histories.items), max(num_items, 1))
    offsets = np.searchsorted(owners, np.arange(len(histories) + 1))
    return Histories(histories.users, offsets, items)


def draw_outside(own: Histories, num_items: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Items that are not a user's own, (users, count) int64, uniform without replacement.

    Args:
        own: from `own_items`; each user must lack `count` items or more.
    """
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
