"""RecBench's ready-made splits: one data set's `items`, `users`, and `test` and `finetune` (or `interactions`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import one_array
from recbase_hf.data.prepare.impressions import CLICKS, IMPRESSIONS, history_events
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "recbench"]

TEXTS = ("title", "title_en", "original_title", "name", "detail_desc", "track_name", "artist_name", "hotel_name")
"""Each data set has some of them."""


class _Split(NamedTuple):
    """`table`: user_id, item_id (text) and label (int8), in the order of the file."""

    name: str
    table: pa.Table


def recbench(raw: RawFolder) -> PreparedTables:
    """Any of its data sets: they differ in what the user and item columns are called.

    The two columns are found by where they come again: `nid` in items and test, `uid` in users and test. A history
    comes before the candidates, which have no order among themselves. `impressions` has one row for each user of a
    split, and a column `split` that says which.
    """
    items, users = raw.find("items.parquet"), raw.find("users.parquet")
    found = {name: raw.look_for(f"{name}.parquet") for name in ("test", "finetune")}
    files = {name: file for name, file in found.items() if file is not None}
    files = files or {"interactions": raw.find("interactions.parquet")}
    user, item = _user_and_item(users, items, next(iter(files.values())))
    splits = [_Split(name, _candidates(file, user, item)) for name, file in files.items()]
    return PreparedTables(_items(items, item), _interactions(users, user, splits), _impressions(users, user, splits))


def _user_and_item(users: RawFile, items: RawFile, split: RawFile) -> tuple[str, str]:
    names = _column_names(split)
    user = [name for name in names if name in _column_names(users)]
    item = [name for name in names if name in _column_names(items) and name not in user]
    if len(user) != 1 or len(item) != 1:
        raise DataError(
            f"{split.name}: of its columns {names} one should be in {users.name} and one in {items.name}; are they of "
            "the same data set?"
        )
    return user[0], item[0]


def _column_names(file: RawFile) -> list[str]:
    names: list[str] = next(file.parquet_tables()).column_names
    return names


def _candidates(file: RawFile, user: str, item: str) -> pa.Table:
    table = pa.concat_tables(file.parquet_tables([user, item, "click"]))
    columns = [_texts(table[user]), _texts(table[item]), table["click"].cast(pa.int8())]
    return pa.table(columns, names=["user_id", "item_id", "label"])


def _items(file: RawFile, item: str) -> Iterator[pa.Table]:
    for table in file.parquet_tables():
        texts = {name: _texts(table[name]) for name in table.column_names if not name.startswith("__index_level")}
        yield pa.table({"item_id": texts.pop(item), **texts})


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Anything as text; lists of texts with commas."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return one_array(pc.binary_join(column.cast(pa.list_(pa.string())), ", "))
    return one_array(column.cast(pa.string()))


def _histories(users: RawFile, user: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    for table in users.parquet_tables([user, "history"]):
        yield _texts(table[user]), one_array(table["history"].cast(pa.list_(pa.string())))


def _interactions(users: RawFile, user: str, splits: list[_Split]) -> Iterator[pa.Table]:
    for user_ids, histories in _histories(users, user):
        yield history_events(user_ids, histories)
    for _, table in splits:
        columns = [
            table["user_id"],
            table["item_id"],
            pa.nulls(table.num_rows, pa.int64()),
            pa.repeat(pa.scalar(0, pa.int64()), table.num_rows),
            table["label"],
        ]
        yield pa.table(columns, schema=CLICKS)


def _impressions(users: RawFile, user: str, splits: list[_Split]) -> Iterator[pa.Table]:
    blocks = list(_histories(users, user))
    user_ids = pa.concat_arrays([ids for ids, _ in blocks])
    histories = pa.concat_arrays([lists for _, lists in blocks])
    for name, table in splits:
        grouped = table.group_by("user_id", use_threads=False).aggregate([("item_id", "list"), ("label", "list")])
        rows = one_array(pc.index_in(grouped["user_id"], value_set=user_ids))
        if rows.null_count:
            unknown = grouped["user_id"].filter(pc.is_null(rows))[0].as_py()
            raise DataError(f"{users.name} has no user {unknown!r}, who is in {name}.parquet; download both again")
        columns = [
            grouped["user_id"],
            histories.take(rows),
            grouped["item_id_list"],
            grouped["label_list"],
            pa.nulls(len(rows), pa.int64()),
        ]
        shown = pa.table(columns, schema=IMPRESSIONS)
        yield shown.append_column("split", pa.repeat(pa.scalar(name), len(rows)))


PUBLISHED = (
    PublishedData(
        name="recbench",
        domain="that of the data set: news, books, music, fashion, ...",
        license="that of the data set that the splits are of",
        source="https://www.kaggle.com/datasets/qijiong/recbench",
        files=("items.parquet", "users.parquet", "test.parquet", "finetune.parquet (or interactions.parquet)"),
        text_fields=TEXTS,
        label_rule="the column click, and all of a history",
        adapter=recbench,
    ),
)
