"""Dropout of history items: each time that a row is seen, other items are missing from its histories."""

from __future__ import annotations

import numpy as np

from recbase_hf.shards.packing import PackedRows

__all__ = ["drop_items"]


def drop_items(rows: PackedRows, chances: np.ndarray, probability: float) -> PackedRows:
    """Leave items out of packed rows; what stays moves to the left, and padding takes the room.

    Args:
        rows: of whole items.
        chances: (rows, items that a row may hold) float64 in [0, 1), one for each item in the order of its row.
        probability: items with lower chances are left out, but for the two highest of each window: one item alone has
            no history to be predicted from.

    >>> from recbase_hf.modeling.token_layout import TokenLayout
    >>> layout = TokenLayout(num_levels=1, codebook_size=4)
    >>> rows = PackedRows(np.array([[layout.bos, 1, 2, 3, layout.bos, 4, 3, 0]]), layout)
    >>> drop_items(rows, np.array([[0.9, 0.1, 0.5, 0.1, 0.2]]), 0.3).input_ids.tolist()
    [[5, 1, 3, 5, 4, 3, 0, 0]]
    """
    ids, layout = rows.input_ids, rows.layout
    begins, empty = ids == layout.bos, ids == layout.pad
    is_code = ~begins & ~empty
    tokens_before = np.cumsum(is_code, axis=1) - is_code
    places = np.argwhere(is_code)[:: layout.num_levels]  # of the first token of each item
    row, number = places[:, 0], tokens_before[tuple(places.T)] // layout.num_levels
    windows = np.cumsum(begins.ravel())[row * ids.shape[1] + places[:, 1]]

    chance = chances[row, number]
    order = np.lexsort((-chance, windows))
    starts = np.searchsorted(windows[order], windows[order], side="left")
    rank_in_window = np.empty(len(order), dtype=np.int64)
    rank_in_window[order] = np.arange(len(order)) - starts
    stays = (chance >= probability) | (rank_in_window < 2)

    kept = begins
    kept[is_code] = np.repeat(stays, layout.num_levels)
    left = np.argsort(~kept, axis=1, kind="stable")
    return PackedRows(np.take_along_axis(np.where(kept, ids, layout.pad).astype(ids.dtype), left, axis=1), layout)
