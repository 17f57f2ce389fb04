"""Histories of codes to packed rows of tokens, in which no user sees another.

A row holds several windows (`<bos>` and the items of one user), position ids start anew at each, and attention must not
cross: transformers keeps documents apart when it is given such position ids, no mask and `use_cache=False`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.modeling.token_layout import TokenLayout

__all__ = [
    "IGNORED",
    "PackedRows",
    "Windows",
    "cut_windows",
    "default_row_length",
    "pack_histories",
    "require_fitting",
    "token_type",
]

IGNORED = -100
"""Label of positions without a target, as everywhere in transformers."""


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Rows of tokens.

    Attributes:
        input_ids: (rows, row_length) unsigned integers; padding at the end of a row.
        layout: of the tokens.

    >>> layout = TokenLayout(num_levels=1, codebook_size=4)
    >>> rows = PackedRows(np.array([[layout.bos, 1, 2, layout.bos, 4, 3, 0]]), layout)
    >>> rows.position_ids.tolist(), rows.labels.tolist()
    ([[0, 1, 2, 0, 1, 2, 0]], [[1, 2, -100, 4, 3, -100, -100]])
    """

    input_ids: np.ndarray
    layout: TokenLayout

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def position_ids(self) -> np.ndarray:
        """(rows, row_length) int32, from 0 at each `<bos>` and at the start of the padding."""
        padding = self.input_ids == self.layout.pad
        starts = self.input_ids == self.layout.bos
        starts[:, 1:] |= padding[:, 1:] & ~padding[:, :-1]
        places = np.arange(self.input_ids.shape[1], dtype=np.int32)
        return places - np.maximum.accumulate(np.where(starts, places, 0), axis=1)

    @property
    def labels(self) -> np.ndarray:
        """(rows, row_length) int32, the token that each position has to predict, or -100."""
        labels = np.full(self.input_ids.shape, IGNORED, dtype=np.int32)
        labels[:, :-1] = self.input_ids[:, 1:]
        labels[(labels == self.layout.pad) | (labels == self.layout.bos)] = IGNORED
        return labels

    @property
    def num_tokens(self) -> int:
        """Positions that hold a token."""
        return int((self.input_ids != self.layout.pad).sum())

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted: all but `<bos>`."""
        return self.num_tokens - int((self.input_ids == self.layout.bos).sum())

    @property
    def efficiency(self) -> float:
        """Share of positions that hold a token."""
        return self.num_tokens / self.input_ids.size if len(self) else 1.0


class Windows(NamedTuple):
    """Cuts of histories: `starts` and `ends`, both (windows,) int64, in `histories.items`."""

    starts: np.ndarray
    ends: np.ndarray


def pack_histories(
    histories: Histories,
    codes: np.ndarray,
    layout: TokenLayout,
    *,
    row_length: int,
    max_items: int,
    min_items: int = 2,
    shifts: np.ndarray | None = None,
) -> PackedRows:
    """Cut histories into windows and pack the windows into rows, largest first into the fullest row that has room.

    Args:
        histories: rows of `codes`, oldest first.
        codes: (items, levels) semantic IDs.
        layout: of the tokens.
        row_length: tokens a row.
        max_items: items a window; a longer history gives several, cut from its end so that the newest is full.
        min_items: shorter windows are left out: one item alone has no history to be predicted from.
        shifts: (histories,) integers below `max_items`, by how many items each cut of a history that is longer than a
            window comes later; default 0.

    Returns:
        No row, where no history has `min_items` items.

    Raises:
        ValueError: a window of `max_items` does not fit a row.
    """
    require_fitting(layout, row_length=row_length, max_items=max_items)
    windows = cut_windows(histories, max_items, min_items, shifts)
    lengths = 1 + layout.num_levels * (windows.ends - windows.starts)
    members, rows, places = _best_fit(lengths, row_length)
    num_rows = int(rows.max(initial=-1)) + 1
    tokens = np.full(num_rows * row_length, layout.pad, dtype=token_type(layout))
    first = rows * row_length + places
    tokens[first] = layout.bos
    counts = (windows.ends - windows.starts)[members]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    events = histories.items[np.repeat(windows.starts[members], counts) + within]
    where = np.repeat(first, counts) + 1 + layout.num_levels * within
    ids = layout.codes_to_ids(codes[events])
    for level in range(layout.num_levels):
        tokens[where + level] = ids[:, level]
    return PackedRows(tokens.reshape(num_rows, row_length), layout)


def default_row_length(layout: TokenLayout, max_items: int) -> int:
    """Tokens of two full windows, or of as many as make 512: full windows then leave no room in a row.

    >>> default_row_length(TokenLayout(num_levels=4, codebook_size=1024), max_items=50)
    603
    """
    window = 1 + layout.num_levels * max_items
    return window * max(2, -(-512 // window))


def require_fitting(layout: TokenLayout, *, row_length: int, max_items: int) -> None:
    """Check that a window of `max_items` fits a row.

    Raises:
        ValueError: it does not; says what would.
    """
    if 1 + layout.num_levels * max_items > row_length:
        raise ValueError(
            f"{max_items} items take {1 + layout.num_levels * max_items} tokens, a row has {row_length}; "
            f"lower max_items to {(row_length - 1) // layout.num_levels} or raise row_length"
        )


def token_type(layout: TokenLayout) -> np.dtype:
    """The smallest unsigned type that holds every token id."""
    return np.dtype(np.uint16 if layout.num_tokens <= 1 << 16 else np.uint32)


def cut_windows(histories: Histories, max_items: int, min_items: int, shifts: np.ndarray | None = None) -> Windows:
    """From the end of each history backwards, windows of `max_items` items; the oldest may be shorter.

    With a shift the newest lacks that many items, and the others lie as many later: `min_items` are left to it.

    >>> histories = Histories(np.array(["u"], dtype=object), np.array([0, 7]), np.arange(7))
    >>> cut_windows(histories, 3, 1), cut_windows(histories, 3, 1, np.array([1]))  # doctest: +NORMALIZE_WHITESPACE
    (Windows(starts=array([4, 1, 0]), ends=array([7, 4, 1])),
     Windows(starts=array([5, 2, 0]), ends=array([7, 5, 2])))
    """
    lengths = histories.lengths
    shifts = np.zeros_like(lengths) if shifts is None else np.minimum(shifts, max_items - min_items)
    shifts = np.where(lengths > max_items, shifts, 0)
    counts = -(-(lengths + shifts) // max_items)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    stops = np.repeat(histories.offsets[1:], counts)
    ends = stops + np.repeat(shifts, counts) - nth * max_items
    starts = np.maximum(np.repeat(histories.offsets[:-1], counts), ends - max_items)
    ends = np.minimum(ends, stops)
    long_enough = ends - starts >= min_items
    return Windows(starts[long_enough], ends[long_enough])


def _best_fit(lengths: np.ndarray, row_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every window, largest first, into the row with the least room that suffices.

    Returns:
        Windows, and the row and the place in it of each, all (windows,) int64.
    """
    members = np.argsort(-lengths, kind="stable")
    rows, places = np.empty(len(members), np.int64), np.empty(len(members), np.int64)
    num_rows = 0
    rows_with_room: dict[int, list[int]] = defaultdict(list)
    rooms = np.zeros(row_length + 1, dtype=bool)
    for number, length in enumerate(lengths[members].tolist()):
        room = int(rooms[length:].argmax()) + length
        if rooms[room]:
            row = rows_with_room[room].pop()
            rooms[room] = bool(rows_with_room[room])
        else:
            row, room = num_rows, row_length
            num_rows += 1
        rows[number], places[number] = row, row_length - room
        rows_with_room[room - length].append(row)
        rooms[room - length] = True
    return members, rows, places
