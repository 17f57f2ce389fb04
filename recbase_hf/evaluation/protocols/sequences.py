"""What the protocols do with sequences of events: choose users, cut sequences, hide what is held out."""

from __future__ import annotations

import numpy as np

from recbase_hf.data.histories import Histories

__all__ = [
    "newest_events",
    "other_items",
    "require_at_least_one",
    "require_items_of_catalog",
    "sample_of_users",
]


def require_at_least_one(**settings: int | None) -> None:
    """Raise `ValueError` for the first setting below 1; None means no limit."""
    for name, value in settings.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def require_items_of_catalog(histories: Histories, num_items: int) -> None:
    """Raise `ValueError` if an item is not a row of the catalog."""
    items = histories.items
    if len(items) and not 0 <= items.min() <= items.max() < num_items:
        raise ValueError(
            f"the histories hold items {items.min()} to {items.max()}, but num_items is {num_items}; "
            "build them with the item ids of the catalog"
        )


def sample_of_users(chosen: np.ndarray, count: int | None, generator: np.random.Generator) -> np.ndarray:
    """At most `count` of the users, ascending; without a draw where all may stay. `chosen`: (users,) int64."""
    if count is None or len(chosen) <= count:
        return chosen
    return np.sort(generator.choice(chosen, count, replace=False, shuffle=False))


def newest_events(
    histories: Histories, chosen: np.ndarray, ends: np.ndarray, limit: int | None = None
) -> list[np.ndarray]:
    """The events before `ends`, at most the newest `limit`, one (length,) int64 view a chosen user.

    Args:
        chosen: (users,) int64, positions in `histories`.
        ends: (users,) int64, positions in `histories.items`.
    """
    starts = histories.offsets[:-1][chosen]
    if limit is not None:
        starts = np.maximum(starts, ends - limit)
    return [histories.items[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def other_items(sequences: list[np.ndarray], positives: np.ndarray) -> list[np.ndarray]:
    """The distinct items of each sequence, ascending, less the positive of its user, who may have had it before."""
    distinct = [np.unique(items) for items in sequences]
    return [items[items != positive] for items, positive in zip(distinct, positives.tolist(), strict=True)]
