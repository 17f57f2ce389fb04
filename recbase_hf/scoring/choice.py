"""Which items may be recommended to whom, from the ids and masks that a caller gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from recbase_hf.catalog import ItemCatalog

__all__ = ["ItemChoice", "choose_items", "is_one_list"]


class ItemChoice(NamedTuple):
    """For each user, catalog rows."""

    allowed: list[np.ndarray | None]
    """That may be recommended; None for all of the catalog."""

    excluded: list[np.ndarray]
    """That may not."""

    def of(self, users: Iterable[int]) -> ItemChoice:
        """The choice of some of the users."""
        users = list(users)
        return ItemChoice([self.allowed[user] for user in users], [self.excluded[user] for user in users])

    def require(self, k: int, num_items: int) -> None:
        """Raise unless every user has k items to be recommended, out of a catalog of `num_items`.

        Raises:
            ValueError: says how many remain.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        for user, (allowed, excluded) in enumerate(zip(*self, strict=True)):
            remaining = (
                num_items - len(np.unique(excluded)) if allowed is None else len(np.setdiff1d(allowed, excluded))
            )
            if k > remaining:
                raise ValueError(
                    f"k is {k}, but {remaining} of the catalog's {num_items} items remain to recommend to history "
                    f"{user}; ask for fewer, or allow more"
                )


def choose_items(
    catalog: ItemCatalog,
    histories: Sequence[np.ndarray],
    *,
    allowed: Sequence[Any] | None,
    exclude: Iterable[Any],
    exclude_history: bool,
    mask: Any,
) -> ItemChoice:
    """The choice of each user.

    Args:
        histories: for each user (n,) catalog rows.
        allowed: item ids for all users, or one list of them a user.
        exclude: likewise.
        exclude_history: whether the items of the history are excluded.
        mask: (items,) or (users, items) bool, True where an item may be recommended.

    Raises:
        UnknownItemError: an id is not in the catalog.
        ValueError: the number of lists, or the shape or type of the mask, does not fit.
    """
    num_users = len(histories)
    of_mask = _rows_of_mask(mask, num_users, len(catalog))
    of_list = [None] * num_users if allowed is None else _rows_of_ids(catalog, allowed, num_users, "allowed")
    both = [_intersection(first, second) for first, second in zip(of_mask, of_list, strict=True)]
    excluded = _rows_of_ids(catalog, exclude if isinstance(exclude, str) else list(exclude), num_users, "exclude")
    if exclude_history:
        excluded = [np.concatenate(parts) for parts in zip(excluded, histories, strict=True)]
    return ItemChoice(both, excluded)


def is_one_list(items: Any) -> bool:
    """Whether these are item ids, and not a list of such lists.

    Raises:
        TypeError: a single string.
    """
    if isinstance(items, str):
        raise TypeError(f"give a list of item ids, not the single string {items!r}")
    return not any(isinstance(item, list | tuple | np.ndarray) for item in items)


def _rows_of_ids(catalog: ItemCatalog, ids: Sequence[Any], num_users: int, name: str) -> list[np.ndarray]:
    if is_one_list(ids):
        return [catalog.rows(ids)] * num_users
    if len(ids) != num_users:
        raise ValueError(f"{name} has {len(ids)} lists for {num_users} histories; give one list, or one a history")
    return [catalog.rows(part) for part in ids]


def _rows_of_mask(mask: Any, num_users: int, num_items: int) -> list[np.ndarray | None]:
    if mask is None:
        return [None] * num_users
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape not in ((num_items,), (num_users, num_items)):
        raise ValueError(
            f"mask is {mask.dtype} of shape {mask.shape}; it must be bool of shape ({num_items},), the items of the "
            f"catalog, or ({num_users}, {num_items}), one row a history"
        )
    return [np.flatnonzero(row) for row in np.broadcast_to(mask, (num_users, num_items))]


def _intersection(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    if first is None or second is None:
        return second if first is None else first
    return np.intersect1d(first, second)
