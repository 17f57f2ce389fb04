"""Histories of codes to packed rows of tokens, in which no user sees another.

A row holds several windows (`<bos>` and the items of one user), position ids start anew at each, and attention must not
cross: transformers keeps documents apart when it is given such position ids, no mask and `use_cache=False`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.modeling.token_layout import TokenLayout

__all__ = ["PackedRows", "pack_histories"]

IGNORED = -100
"""Label of positions without a target, as everywhere in transformers."""


@dataclass(frozen=True)
class PackedRows:
    """Rows of tokens, each (rows, row_length).

    Attributes:
        input_ids: int32; padding at the end of a row.
        position_ids: int32, from 0 at each `<bos>` and at the start of the padding.
        labels: int32, the token that each position has to predict, or -100.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted."""
        return int((self.labels != IGNORED).sum())

    @property
    def efficiency(self) -> float:
        """Share of positions that hold a token."""
        return float((self.input_ids != 0).mean()) if len(self) else 1.0


def pack_histories(
    histories: Histories, codes: np.ndarray, layout: TokenLayout, *, row_length: int, max_items: int, min_items: int = 2
) -> PackedRows:
    """Cut histories into windows and pack the windows into rows, largest first into the fullest row that has room.

    Args:
        histories: rows of `codes`, oldest first.
        codes: (items, levels) semantic IDs.
        layout: of the tokens.
        row_length: tokens a row.
        max_items: items a window; a longer history gives several, cut from its end so that the newest is full.
        min_items: shorter windows are left out: one item alone has no history to be predicted from.

    Raises:
        ValueError: a window of `max_items` does not fit a row, or no history has `min_items` items.
    """
    if 1 + layout.num_levels * max_items > row_length:
        raise ValueError(
            f"{max_items} items take {1 + layout.num_levels * max_items} tokens, a row has {row_length}; "
            f"lower max_items to {(row_length - 1) // layout.num_levels} or raise row_length"
        )
    windows = _windows(histories, max_items, min_items)
    if not windows:
        raise ValueError(
            f"none of the {len(histories)} histories has {min_items} items, so there is nothing to learn from"
        )
    ids = layout.codes_to_ids(codes)
    rows = _best_fit([1 + layout.num_levels * (end - start) for start, end in windows], row_length)
    input_ids = np.full((len(rows), row_length), layout.pad, dtype=np.int32)
    position_ids = np.zeros((len(rows), row_length), dtype=np.int32)
    for row, members in enumerate(rows):
        at = 0
        for member in members:
            start, end = windows[member]
            tokens = ids[histories.items[start:end]].ravel()
            input_ids[row, at] = layout.bos
            input_ids[row, at + 1 : at + 1 + len(tokens)] = tokens
            position_ids[row, at : at + 1 + len(tokens)] = np.arange(1 + len(tokens))
            at += 1 + len(tokens)
        position_ids[row, at:] = np.arange(row_length - at)
    labels = np.full_like(input_ids, IGNORED)
    labels[:, :-1] = input_ids[:, 1:]
    labels[(labels == layout.pad) | (labels == layout.bos)] = IGNORED
    return PackedRows(input_ids, position_ids, labels)


def _windows(histories: Histories, max_items: int, min_items: int) -> list[tuple[int, int]]:
    """(start, end) in `histories.items` of each window."""
    windows = []
    for first, last in zip(histories.offsets[:-1].tolist(), histories.offsets[1:].tolist(), strict=True):
        for end in range(last, first, -max_items):
            start = max(first, end - max_items)
            if end - start >= min_items:
                windows.append((start, end))
    return windows


def _best_fit(lengths: list[int], row_length: int) -> list[list[int]]:
    """Members of each row: every length, largest first, goes to the row with the least room that suffices."""
    rows: list[list[int]] = []
    rows_with_room: dict[int, list[int]] = defaultdict(list)
    rooms = np.zeros(row_length + 1, dtype=bool)
    for member in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[member]
        fitting = int(np.argmax(rooms[length:])) + length
        if rooms[fitting]:
            row = rows_with_room[fitting].pop()
            rooms[fitting] = bool(rows_with_room[fitting])
        else:
            row, fitting = len(rows), row_length
            rows.append([])
        rows[row].append(member)
        rows_with_room[fitting - length].append(row)
        rooms[fitting - length] = True
    return rows
