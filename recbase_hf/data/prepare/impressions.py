"""Impressions as logs have them (a history, what was shown, what was clicked), and the interactions that they tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.id_index import IdIndex
from recbase_hf.data.prepare.columns import explode, one_array
from recbase_hf.data.prepare.known_items import KnownItems
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["CLICKS", "IMPRESSIONS", "KnownImpressions", "histories_and_clicks", "history_events", "split_files"]

IMPRESSIONS = pa.schema(
    {
        "user_id": pa.string(),
        "history": pa.list_(pa.string()),
        "candidates": pa.list_(pa.string()),
        "labels": pa.list_(pa.int8()),
        "timestamp": pa.int64(),
    }
)
CLICKS = pa.schema(
    {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64(), "order": pa.int64(), "label": pa.int8()}
)


def histories_and_clicks(impressions: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The history of each user's first impression, and all clicks.

    Args:
        impressions: tables of the schema `IMPRESSIONS`.

    Yields:
        Tables of the schema `CLICKS`. The events of a history have no time: their `order` counts up to -1, and that of
        a click is its time, so that the history comes first.
    """
    seen: set[str] = set()
    for table in impressions:
        is_new = []
        for user in table["user_id"].to_pylist():
            is_new.append(user not in seen)
            seen.add(user)
        new = table.filter(pa.array(is_new, pa.bool_()))
        yield history_events(new["user_id"], new["history"])
        yield _clicks(table)


def history_events(users: pa.Array | pa.ChunkedArray, histories: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Histories as rows of the schema `CLICKS`: no time, an order that counts up to -1, label 1."""
    events = explode(histories)
    count = len(events.rows)
    columns = [
        users.take(pa.array(events.rows)),
        events.values,
        pa.nulls(count, pa.int64()),
        pa.array(events.places - events.lengths),
        pa.repeat(pa.scalar(1, pa.int8()), count),
    ]
    return pa.table(columns, schema=CLICKS)


def _clicks(table: pa.Table) -> pa.Table:
    candidates = explode(table["candidates"])
    rows, labels = pa.array(candidates.rows), pc.list_flatten(one_array(table["labels"]))
    times = table["timestamp"].take(rows)
    shown = pa.table([table["user_id"].take(rows), candidates.values, times, times, labels], schema=CLICKS)
    return shown.filter(pc.equal(labels, 1))


class KnownImpressions:
    """Leaves items that the item table lacks out of impressions, and impressions that lose all that was liked.

    Those in which nothing was liked from the start stay as they are.

    Attributes:
        history: counts the unknown items of histories.
        candidates: counts those among the candidates.
        left_out: counts impressions without a candidate, or without any that was liked, though some was.
    """

    def __init__(self, index: IdIndex) -> None:
        self.history, self.candidates = KnownItems(index), KnownItems(index)
        self.left_out = 0
        self._rows = 0

    def of(self, impressions: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """What is left of tables of impressions.

        Raises:
            DataError: an impression has not one label for each candidate; says which.
        """
        for table in impressions:
            yield self._known(table)
            self._rows += table.num_rows

    def _known(self, table: pa.Table) -> pa.Table:
        shown, labels = explode(table["candidates"]), explode(table["labels"])
        num_shown, num_labels = (np.bincount(each.rows, minlength=table.num_rows) for each in (shown, labels))
        differ = np.flatnonzero(num_shown != num_labels)
        if len(differ):
            row = int(differ[0])
            raise DataError(
                f"impressions, row {self._rows + row + 1}: {num_labels[row]} labels for {num_shown[row]} candidates; "
                "download the raw files again"
            )
        kept = self.candidates.are_known(shown.values)
        liked = pc.fill_null(pc.equal(labels.values, 1), False).to_numpy(zero_copy_only=False)
        has_candidate, has_like, had_like = (
            np.bincount(shown.rows[mask], minlength=table.num_rows) > 0 for mask in (kept, kept & liked, liked)
        )
        is_left = has_candidate & (has_like | ~had_like)
        self.left_out += int(np.count_nonzero(~is_left))
        history = self.history.are_known(explode(table["history"]).values)
        for name, mask in (("history", history), ("candidates", kept), ("labels", kept)):
            table = table.set_column(table.column_names.index(name), name, _elements(table[name], mask))
        return table.filter(pa.array(is_left))


def _elements(lists: pa.ChunkedArray, kept: np.ndarray) -> pa.Array | pa.ChunkedArray:
    """Lists without the elements that are not kept; a missing list stays missing."""
    if kept.all():
        return lists
    each = explode(lists)
    ends = np.cumsum(np.bincount(each.rows[kept], minlength=len(lists)))
    is_missing = pc.is_null(one_array(lists))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    values = each.values.filter(pa.array(kept))
    return pa.ListArray.from_arrays(offsets, values, mask=is_missing).cast(lists.type)


def split_files(raw: RawFolder, name: str) -> dict[str, RawFile]:
    """The files of one name, by the folder (or zip archive) that they lie in: `train`, `MINDsmall_dev`, ...

    Raises:
        FileNotFoundError: there is none.
        DataError: a folder is there twice, such as once more in its archive.
    """
    splits: dict[str, RawFile] = {}
    for file in raw.all(name) or [raw.find(name)]:
        path = file.path if file.member is None else file.path.with_suffix("") / file.member
        if path.parent.name in splits:
            raise DataError(f"{raw.path}: both {splits[path.parent.name].name} and {file.name} are there; leave one")
        splits[path.parent.name] = file
    return splits
