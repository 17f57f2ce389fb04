"""Impressions as logs have them (a history, what was shown, what was clicked), and the interactions that they tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode, one_array
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["CLICKS", "IMPRESSIONS", "histories_and_clicks", "history_events", "split_files"]

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
