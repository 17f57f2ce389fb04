"""EB-NeRD (Ekstra Bladet): `articles.parquet`, and `behaviors.parquet` and `history.parquet` of each split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode, one_array
from recbase_hf.data.prepare.impressions import IMPRESSIONS, split_files
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "ebnerd"]

ARTICLES = {
    "article_id": "item_id",
    "title": "title",
    "subtitle": "subtitle",
    "body": "body",
    "category_str": "category",
}
EVENTS = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64(), "label": pa.int8()})
HISTORY = 100
"""Items of a history that are kept with an impression: the newest."""


def ebnerd(raw: RawFolder) -> PreparedTables:
    """Demo, small or large, of one split or of both; the test split has no clicks and is refused.

    The histories of the splits overlap in time, so that some events are told twice.
    """
    behaviors, histories = split_files(raw, "behaviors.parquet"), split_files(raw, "history.parquet")
    if behaviors.keys() != histories.keys():
        raise DataError(
            f"{raw.path}: behaviors.parquet is there of {sorted(behaviors)}, history.parquet of {sorted(histories)}; "
            "each split needs both"
        )
    splits = [(behaviors[name], histories[name]) for name in sorted(behaviors)]
    return PreparedTables(
        _articles(raw.find("articles.parquet")),
        (table for split in splits for table in _interactions(*split)),
        (table for split in splits for table in _impressions(*split)),
    )


def _articles(file: RawFile) -> Iterator[pa.Table]:
    for table in file.parquet_tables([*ARTICLES, "topics"]):
        texts = pa.table([table[name].cast(pa.string()) for name in ARTICLES], names=list(ARTICLES.values()))
        topics = pc.binary_join(table["topics"].cast(pa.list_(pa.string())), ", ")
        yield texts.append_column("topics", pc.if_else(pc.equal(topics, ""), pa.scalar(None, pa.string()), topics))


def _interactions(behaviors: RawFile, history: RawFile) -> Iterator[pa.Table]:
    for table in history.parquet_tables(["user_id", "article_id_fixed", "impression_time_fixed"]):
        events = explode(table["article_id_fixed"])
        times = pc.list_flatten(one_array(table["impression_time_fixed"]))
        if len(times) != len(events.values):
            raise DataError(f"{history.name}: article_id_fixed and impression_time_fixed differ in length")
        yield _events(table["user_id"].take(pa.array(events.rows)), events.values, _seconds(times))
    for table in behaviors.parquet_tables(["user_id", "impression_time", "article_ids_clicked"]):
        clicks = explode(table["article_ids_clicked"])
        rows = pa.array(clicks.rows)
        yield _events(table["user_id"].take(rows), clicks.values, _seconds(table["impression_time"].take(rows)))


def _events(users: pa.ChunkedArray, items: pa.Array, times: pa.Array) -> pa.Table:
    label = pa.repeat(pa.scalar(1, pa.int8()), len(items))
    columns = [users.cast(pa.string()), items.cast(pa.string()), times, label]
    return pa.table(columns, schema=EVENTS)


def _impressions(behaviors: RawFile, history: RawFile) -> Iterator[pa.Table]:
    users, histories = _last_items(history)
    wanted = ["user_id", "impression_time", "article_ids_inview", "article_ids_clicked"]
    for table in behaviors.parquet_tables(wanted):
        row_of_user = pc.index_in(table["user_id"].cast(pa.string()), value_set=users)
        columns = [
            table["user_id"].cast(pa.string()),
            histories.take(one_array(row_of_user)).cast(pa.list_(pa.string())),
            table["article_ids_inview"].cast(pa.list_(pa.string())),
            _labels(table["article_ids_inview"], table["article_ids_clicked"]),
            _seconds(table["impression_time"]),
        ]
        yield pa.table(columns, schema=IMPRESSIONS)


def _last_items(file: RawFile) -> tuple[pa.Array, pa.Array]:
    """All users, and the newest items of each: all that is in memory of a history."""
    users, histories = [], []
    for table in file.parquet_tables(["user_id", "article_id_fixed"]):
        events = explode(table["article_id_fixed"])
        kept = events.places >= events.lengths - HISTORY
        counts = np.bincount(events.rows[kept], minlength=table.num_rows)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        histories.append(pa.ListArray.from_arrays(offsets, events.values.filter(pa.array(kept))))
        users.append(one_array(table["user_id"].cast(pa.string())))
    return pa.concat_arrays(users), pa.concat_arrays(histories)


def _labels(shown: pa.ChunkedArray, clicked: pa.ChunkedArray) -> pa.Array:
    """Which of the items shown in an impression were clicked in it; (impressions,) lists of int8."""
    candidates, clicks = explode(shown), explode(clicked)
    pairs = [(each.rows << 32) + each.values.to_numpy(zero_copy_only=False) for each in (candidates, clicks)]
    lengths = pc.fill_null(pc.list_value_length(one_array(shown)), 0)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.isin(*pairs)).cast(pa.int8()))


def _seconds(times: pa.Array | pa.ChunkedArray) -> pa.Array:
    return one_array(times).cast(pa.timestamp("s"), safe=False).cast(pa.int64())


PUBLISHED = (
    PublishedData(
        name="ebnerd",
        domain="news",
        license="research use after registration, no redistribution; see the page of the data set",
        source="https://recsys.eb.dk/dataset/",
        files=("articles.parquet", "train/behaviors.parquet", "train/history.parquet"),
        text_fields=("title", "subtitle", "category", "topics"),
        label_rule="clicked in an impression, or in the history; in view without a click is disliked",
        adapter=ebnerd,
    ),
)
