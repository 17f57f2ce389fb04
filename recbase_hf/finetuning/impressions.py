"""Reads a table of impressions for fine-tuning: of the users that are learned from, without what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.id_index import IdIndex
from recbase_hf.data.prepare.columns import explode
from recbase_hf.data.table_sources import load_table
from recbase_hf.errors import DataError
from recbase_hf.finetuning.examples import Shown

__all__ = ["read_shown"]

_COLUMNS = ("user_id", "history", "candidates", "labels")


def read_shown(folder: str | Path, item_ids: list[str], held_out: Mapping[str, np.ndarray]) -> Shown | None:
    """The impressions in a folder; None where it has no table of them, or none with both a click and another item.

    Args:
        folder: that may hold `impressions.*`, with the columns `user_id`, `history`, `candidates` and `labels` (lists).
        item_ids: of the item table; other items are left out.
        held_out: for each user that is learned from, (n,) int64 rows of items that are not, in histories and candidates
            alike. Impressions of other users are left out.

    Raises:
        DataError: a column is missing, or candidates and labels differ in number; names file and row.
    """
    try:
        table, origin = load_table(folder, "impressions")
    except FileNotFoundError:
        return None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"{origin.name}: no column {missing[0]!r}; the columns are {table.column_names}")
    index = IdIndex(pa.chunked_array([pa.array(item_ids, pa.large_string())]))
    histories, candidates = (_rows(table[name], index) for name in ("history", "candidates"))
    labels = explode(table["labels"])
    label_lists = _cut(pc.equal(labels.values, 1).to_numpy(zero_copy_only=False), labels.rows, table.num_rows)
    found = Shown([], [], [])
    for row, user in enumerate(table["user_id"].cast(pa.large_string()).to_pylist()):
        if len(candidates[row]) != len(label_lists[row]):
            raise DataError(
                f"{origin.row(row + 1)}: {len(candidates[row])} candidates, but {len(label_lists[row])} labels; give "
                "one a candidate"
            )
        if user not in held_out:
            continue
        history, shown, clicked = histories[row], candidates[row], label_lists[row]
        known = (shown >= 0) & ~np.isin(shown, held_out[user])
        if clicked[known].any() and not clicked[known].all():
            found.histories.append(history[(history >= 0) & ~np.isin(history, held_out[user])])
            found.candidates.append(shown[known])
            found.labels.append(clicked[known].astype(np.int8))
    return found if found.histories else None


def _rows(lists: pa.ChunkedArray, index: IdIndex) -> list[np.ndarray]:
    """For each list the rows of its items in the item table, -1 where they are not in it."""
    each = explode(lists)
    items = index.find(pa.chunked_array([each.values.cast(pa.large_string())]))
    return _cut(np.asarray(items, dtype=np.int64), each.rows, len(lists))


def _cut(values: np.ndarray, rows: np.ndarray, count: int) -> list[np.ndarray]:
    return np.split(values, np.searchsorted(rows, np.arange(1, count)))
