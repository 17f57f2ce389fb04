"""Turns interactions into one sequence of items for each user, oldest first, as flat arrays."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.table_sources import TableSource
from recbase_hf.data.tables import read_interactions
from recbase_hf.errors import DataError, UnknownItemError

if TYPE_CHECKING:
    import datasets

__all__ = ["Histories", "build_histories", "group_events", "with_known_order"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Histories:
    """The item sequence of each user; user `u` owns `items[offsets[u] : offsets[u + 1]]`, oldest first.

    users: (U,) object, user ids (str). offsets: (U + 1,) int64. items: (events,) int64, rows of the item table.

    >>> histories = Histories(np.array(["ann", "bob"], object), np.array([0, 2, 3]), np.array([5, 7, 5]))
    >>> len(histories), histories[0].tolist(), histories.lengths.tolist()
    (2, [5, 7], [2, 1])
    """

    users: np.ndarray
    offsets: np.ndarray
    items: np.ndarray

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.users) + 1 or self.offsets[-1] != len(self.items):
            raise ValueError(
                f"{len(self.users)} users and {len(self.items)} events do not go with {len(self.offsets)} offsets "
                "that must start at 0 and end at the number of events"
            )

    def __len__(self) -> int:
        """Number of users."""
        return len(self.users)

    def __getitem__(self, user: int) -> np.ndarray:
        """A view of the items of one user, (length,) int64."""
        user = range(len(self))[user]
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Events of each user, (U,) int64."""
        return np.diff(self.offsets)

    def select(self, user_indices: Any) -> Histories:
        """The histories of some users, in the order given (indices, or a mask over all users)."""
        chosen = np.arange(len(self))[np.asarray(user_indices) if len(user_indices) else slice(0)]
        lengths = self.lengths[chosen]
        offsets = _offsets(lengths)
        positions = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return Histories(self.users[chosen], offsets, self.items[positions])

    def map_items(self, new_row_of_old: np.ndarray) -> Histories:
        """Move to another item table: item `i` becomes `new_row_of_old[i]`, and its events go if that is -1.

        new_row_of_old: (items of the old table,) int64. Users stay, even those who lose all their events.
        """
        items = np.asarray(new_row_of_old, np.int64)[self.items]
        kept = items >= 0
        return Histories(self.users, _offsets(kept)[self.offsets], items[kept])

    def first(self, lengths: np.ndarray) -> Histories:
        """All users with their first events only; lengths: (U,) int64, how many stay of each."""
        places = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.lengths)
        kept = places < np.repeat(lengths, self.lengths)
        return Histories(self.users, _offsets(kept)[self.offsets], self.items[kept])


def build_histories(
    interactions: TableSource,
    item_ids: Sequence[str],
    *,
    unknown_items: Literal["error", "drop"] = "error",
    unordered_events: Literal["error", "drop"] = "error",
    seed: int = 0,
) -> Histories:
    """Group interactions into one history for each user, users sorted by id.

    interactions: a table as `read_interactions` returns it, or anything that it reads.
    item_ids: ids of the item table, in its order; the histories hold positions in it.
    unknown_items: what to do with events of items that are not in `item_ids`; a drop is logged with their number.
    unordered_events: the same for events without a place in time when others have one.
    seed: for the shuffle of events that have no known order.

    Events with label 0 are left out; events without a label count as positive. Within a user, events are sorted by
    `order`, or by `timestamp` where `order` is absent or all missing, and ties keep the order of the table. If
    neither column exists, the order of the table is the order. If a column exists but all of it is missing, no order
    is known: each user's events are shuffled, in a way that depends only on the seed, the user id and the item ids.
    Of a user's repeated events with one item, the first stays.

    Raises `UnknownItemError` or `DataError`, which name the row (counted from 1) and the fix.

    >>> events = [("bob", "x", 1), ("ann", "x", 2), ("ann", "y", 1)]
    >>> table = [{"user_id": user, "item_id": item, "order": order} for user, item, order in events]
    >>> histories = build_histories(table, ["x", "y"])
    >>> {user: histories[u].tolist() for u, user in enumerate(histories.users)}
    {'ann': [1, 0], 'bob': [0]}
    """
    item_ids = list(item_ids)  # a column of a dataset is slow to index
    table = read_interactions(interactions).with_format("arrow")[:]
    rows = np.arange(table.num_rows)
    if "label" in table.column_names:
        rows = rows[pc.fill_null(pc.equal(table["label"], 1), True).to_numpy()]
    rows, items = _known_items(table, rows, item_ids, drop=unknown_items == "drop")
    time_column = _time_column(table)
    if time_column in ("order", "timestamp"):
        timed = _timed(table[time_column], rows, time_column, drop=unordered_events == "drop")
        rows, items = rows[timed], items[timed]
    times = table[time_column].take(rows).to_numpy() if time_column in ("order", "timestamp") else None
    shuffled_ids = item_ids if time_column == "unknown" else None
    users = table["user_id"].take(rows)
    return group_events(users, items, len(item_ids), times=times, shuffled_ids=shuffled_ids, seed=seed)


def with_known_order(interactions: datasets.Dataset) -> datasets.Dataset:
    """Interactions less those without a place in time when others have one, as `unordered_events="drop"` has it.

    Args:
        interactions: as `read_interactions` returns them.
    """
    table = interactions.with_format("arrow")[:]
    column = _time_column(table)
    if column not in ("order", "timestamp"):
        return interactions
    rows = np.arange(table.num_rows)
    return interactions.select(rows[_timed(table[column], rows, column, drop=True)])


def group_events(
    user_ids: pa.ChunkedArray,
    items: np.ndarray,
    num_items: int,
    *,
    times: np.ndarray | None = None,
    shuffled_ids: Sequence[str] | None = None,
    seed: int = 0,
) -> Histories:
    """Positive events to histories: the last step of `build_histories`, which any share of the users can take alone.

    Args:
        user_ids: (events,) text.
        items: (events,) int64, rows of the item table.
        num_items: rows of that table.
        times: (events,) numbers to sort by; ties keep the order of the events. None keeps it altogether.
        shuffled_ids: item ids, an item row each, where no order is known: each user's events are shuffled.
        seed: of the shuffle.
    """
    names, users = _sorted_users(user_ids)
    if shuffled_ids is not None:
        by_user = np.lexsort((_shuffle_keys(names, users, shuffled_ids, items, seed), users))
    elif times is not None:
        by_user = np.lexsort((times, users))
    else:
        by_user = np.argsort(users, kind="stable")
    users, items = users[by_user], items[by_user]

    _, first = np.unique(users * num_items + items, return_index=True)
    first.sort()
    lengths = np.bincount(users[first], minlength=len(names))
    return Histories(names, _offsets(lengths), items[first])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _known_items(
    table: pa.Table, rows: np.ndarray, item_ids: Sequence[str], *, drop: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose item is in `item_ids`, and its position there, both (kept,) int64."""
    found = pc.index_in(table["item_id"].take(rows), value_set=pa.array(item_ids, pa.large_string()))
    positions = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    unknown = positions < 0
    if unknown.any() and not drop:
        row = rows[np.argmax(unknown)]
        raise UnknownItemError(
            f"interactions, row {row + 1}: item {table['item_id'][row].as_py()!r} is not in the item table "
            f"({unknown.sum()} events with such items); add the items to the item table, or remove these events from "
            "the interactions (in Python unknown_items='drop' does)"
        )
    _log_dropped(unknown, "their item is not in the item table (unknown_items='drop')")
    return rows[~unknown], positions[~unknown]


def _time_column(table: pa.Table) -> Literal["order", "timestamp", "table", "unknown"]:
    there: list[Literal["order", "timestamp"]] = [name for name in ("order", "timestamp") if name in table.column_names]
    filled = [name for name in there if table[name].null_count < table.num_rows]
    if filled:
        return filled[0]
    return "unknown" if there else "table"


def _timed(column: pa.ChunkedArray, rows: np.ndarray, name: str, *, drop: bool) -> np.ndarray:
    """Which of `rows` have a value in a column that is not all missing, (rows,) bool."""
    timed = pc.is_valid(column.take(rows)).to_numpy()
    if not timed.all() and not drop:
        raise DataError(
            f"interactions, row {rows[np.argmin(timed)] + 1}, column {name!r}: missing, as in {(~timed).sum()} events, "
            "while others have one; fill it in, remove the column, or drop these events (--unordered-events drop, or "
            "unordered_events='drop')"
        )
    _log_dropped(~timed, f"they have no value in the column {name!r} (unordered_events='drop')")
    return timed


def _log_dropped(dropped: np.ndarray, reason: str) -> None:
    if dropped.any():
        logger.warning("dropped %d of %d events: %s", dropped.sum(), len(dropped), reason)


def _sorted_users(user_ids: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """User ids sorted, (U,) object, and the position of each event's user among them, (events,) int64."""
    encoded = pc.dictionary_encode(user_ids.combine_chunks())
    ascending = pc.array_sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(ascending), np.int64)
    rank[ascending] = np.arange(len(ascending))
    names = np.empty(len(ascending), object)
    names[:] = encoded.dictionary.take(ascending).to_pylist()
    return names, rank[encoded.indices.to_numpy()]


def _shuffle_keys(
    names: np.ndarray, users: np.ndarray, item_ids: Sequence[str], items: np.ndarray, seed: int
) -> np.ndarray:
    """A random number for each event, (events,) uint64, from seed, user id and item id alone.

    So a user's shuffle stays the same when other users, other items or the order of the table change.
    """
    used, item_of_event = np.unique(items, return_inverse=True)
    keys = _hashes(names, f"user {seed}")[users] + _hashes([item_ids[int(row)] for row in used], "item")[item_of_event]
    # The finalizer of SplitMix64; without it the items would stand in one cyclic order for every user.
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _hashes(texts: Sequence[str] | np.ndarray, salt: str) -> np.ndarray:
    start = hashlib.blake2b(salt.encode() + b"\0", digest_size=8)
    digests = []
    for text in texts:
        digest = start.copy()
        digest.update(text.encode())
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
