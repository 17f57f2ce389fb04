"""Which items may be recommended to whom, from the ids and masks that a caller gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from recbase_hf.catalog import ItemCatalog

__all__ = ["ItemChoice", "NamedItems", "as_list", "is_one_list", "rows_of_users"]


class NamedItems(NamedTuple):
    """The items of a catalog that one user may be recommended: by name, or all but those that are named."""

    rows: np.ndarray
    """(n,) catalog rows, ascending, each once."""

    are_allowed: bool
    """Whether these are the allowed items; otherwise all others are."""

    def count(self, num_items: int) -> int:
        """How many may be recommended of a catalog of `num_items`."""
        return len(self.rows) if self.are_allowed else num_items - len(self.rows)


class ItemChoice:
    """The choice of each user of a call, put together only when it is asked for.

    Args:
        histories: for each user (n,) catalog rows.
        allowed: item ids for all users, or one list of them a user; None for all items.
        exclude: likewise; of none of them by default.
        exclude_history: whether the items of the history are excluded.
        mask: (items,) or (users, items) bool, True where an item may be recommended.

    Raises:
        UnknownItemError: an id is not in the catalog.
        ValueError: the number of lists, or the shape or type of the mask, does not fit.
    """

    def __init__(
        self,
        catalog: ItemCatalog,
        histories: Sequence[np.ndarray],
        *,
        allowed: Iterable[Any] | None,
        exclude: Iterable[Any],
        exclude_history: bool,
        mask: Any,
    ) -> None:
        self._num_items, self._num_users = len(catalog), len(histories)
        self._histories = histories if exclude_history else None
        self._allowed = None if allowed is None else _rows_of_ids(catalog, allowed, self._num_users, "allowed")
        self._excluded = _rows_of_ids(catalog, exclude, self._num_users, "exclude")
        self._mask = None if mask is None else _checked_mask(mask, self._num_users, self._num_items)
        # A mask for all users is looked at once.
        self._of_mask = _named(self._mask) if self._mask is not None and self._mask.ndim == 1 else None

    def of(self, user: int) -> NamedItems:
        """The choice of one user."""
        named = self._of_mask
        if named is None:
            named = NamedItems(np.zeros(0, dtype=np.int64), False) if self._mask is None else _named(self._mask[user])
        if self._allowed is not None:
            named = _both(named, NamedItems(np.unique(self._allowed[user]), True))
        excluded = self._excluded[user]
        if self._histories is not None:
            excluded = np.concatenate([excluded, self._histories[user]])
        return _both(named, NamedItems(np.unique(excluded), False))

    def require(self, k: int) -> None:
        """Raise unless every user has k items to be recommended.

        Raises:
            ValueError: says how many remain.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        for user in range(self._num_users):
            remaining = self.of(user).count(self._num_items)
            if k > remaining:
                whom = f" to history {user}" if self._num_users > 1 else ""
                raise ValueError(
                    f"k is {k}, but {remaining} of the catalog's {self._num_items} items remain to recommend{whom}; "
                    "ask for fewer, or allow more"
                )


def as_list(items: Any) -> list[Any]:
    """Items as a list, because a generator can be read only once.

    Raises:
        TypeError: a single string.
    """
    if isinstance(items, str):
        raise TypeError(f"give a list of item ids, not the single string {items!r}")
    return list(items)


def is_one_list(items: list[Any]) -> bool:
    """Whether these are item ids, and not a list of such lists; an empty list is one list."""
    return not any(isinstance(item, list | tuple | np.ndarray) for item in items)


def _both(first: NamedItems, second: NamedItems) -> NamedItems:
    """What both allow."""
    if first.are_allowed and second.are_allowed:
        return NamedItems(np.intersect1d(first.rows, second.rows, assume_unique=True), True)
    if not first.are_allowed and not second.are_allowed:
        return NamedItems(np.union1d(first.rows, second.rows), False)
    listed, excluded = (first, second) if first.are_allowed else (second, first)
    return NamedItems(np.setdiff1d(listed.rows, excluded.rows, assume_unique=True), True)


def _named(mask: np.ndarray) -> NamedItems:
    """A mask, by the fewer of its items."""
    are_allowed = bool(2 * np.count_nonzero(mask) <= len(mask))
    return NamedItems(np.flatnonzero(mask == are_allowed), are_allowed)


def _rows_of_ids(catalog: ItemCatalog, ids: Iterable[Any], num_users: int, name: str) -> list[np.ndarray]:
    ids = as_list(ids)
    if is_one_list(ids):
        return [catalog.rows(ids)] * num_users
    if len(ids) != num_users:
        raise ValueError(f"{name} has {len(ids)} lists for {num_users} histories; give one list, or one a history")
    return [catalog.rows(part) for part in ids]


def _checked_mask(mask: Any, num_users: int, num_items: int) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape not in ((num_items,), (num_users, num_items)):
        raise ValueError(
            f"mask is {mask.dtype} of shape {mask.shape}; it must be bool of shape ({num_items},), the items of the "
            f"catalog, or ({num_users}, {num_items}), one row a history"
        )
    return mask


def rows_of_users(
    history: Sequence[Any], candidates: Sequence[Any], catalog: ItemCatalog
) -> tuple[list[np.ndarray], list[np.ndarray], bool]:
    """Histories and candidates as catalog rows, a list entry a user, and whether they were given for one user."""
    history, candidates = as_list(history), as_list(candidates)
    one_user = is_one_list(history) and is_one_list(candidates)
    histories, candidate_lists = ([history], [candidates]) if one_user else (history, candidates)
    if len(histories) != len(candidate_lists):
        raise ValueError(f"{len(histories)} histories but {len(candidate_lists)} candidate lists; give one each a user")
    return [catalog.rows(ids) for ids in histories], [catalog.rows(ids) for ids in candidate_lists], one_user
