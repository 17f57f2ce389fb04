"""NineRec: `*_item.csv` with Chinese and English titles, and `*_pair.csv` with times or `*_behaviour.tsv` in order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import UnixSeconds, explode, words
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "ninerec"]

ORDERED = ("QB", "TN")
"""Those without times, published as sequences."""
TIMED = ("KU", "DY", "Bili_Food", "Bili_Dance", "Bili_Movie", "Bili_Cartoon", "Bili_Music", "Bili_500K", "Bili_2M")


def ninerec(raw: RawFolder, part: str) -> PreparedTables:
    """One of the nine data sets, or one of the two source data sets; none of the files has a header."""
    items = raw.find(f"{part}_item.csv")
    if part in ORDERED:
        return PreparedTables(_items(items), _sequences(raw.find(f"{part}_behaviour.tsv")))
    return PreparedTables(_items(items), _pairs(raw.find(f"{part}_pair.csv"), items))


def _items(file: RawFile) -> Iterator[pa.Table]:
    names = ["item_id", "title", "title_en"]
    return file.csv_tables(dict.fromkeys(names, pa.string()), names=names)


def _sequences(file: RawFile) -> Iterator[pa.Table]:
    """A user, a tab, and items from old to new."""
    names = ["user_id", "items"]
    for table in file.csv_tables(dict.fromkeys(names, pa.string()), delimiter="\t", names=names, quotes=False):
        events = explode(words(table["items"]))
        columns = [table["user_id"].take(pa.array(events.rows)), events.values, pa.array(events.places)]
        yield pa.table(columns, names=["user_id", "item_id", "order"])


def _pairs(file: RawFile, items: RawFile) -> Iterator[pa.Table]:
    """The publishers' page names the user first, their programs read the item first: the item table decides."""
    columns = {"first": pa.string(), "second": pa.string(), "timestamp": pa.int64()}
    item_column = None
    seconds = UnixSeconds(f"{file.name}, column 3")
    for table in file.csv_tables(columns, names=list(columns)):
        if item_column is None:
            item_column = _item_column(table, file, items)
        user_column = "second" if item_column == "first" else "first"
        yield pa.table(
            [table[user_column], table[item_column], seconds.of(table["timestamp"])],
            names=["user_id", "item_id", "timestamp"],
        )


def _item_column(table: pa.Table, file: RawFile, items: RawFile) -> str:
    """That of which more values are items; where users have such numbers too, the first, as those programs have it."""
    ids = pa.chunked_array([chunk for table in _items(items) for chunk in table["item_id"].chunks])
    known = {name: pc.sum(pc.is_in(table[name], value_set=ids)).as_py() or 0 for name in ("first", "second")}
    if not any(known.values()):
        raise DataError(f"{file.name} has no item of {items.name}; are they of the same data set?")
    return max(known, key=lambda name: known[name])


PUBLISHED = tuple(
    PublishedData(
        name=f"ninerec-{part.lower().replace('_', '-')}",
        domain="news and videos" if part in ORDERED else "short videos",
        license="none is stated; changed copies must not be passed on; see the repository",
        source="https://github.com/westlake-repl/NineRec",
        files=(f"{part}_item.csv", f"{part}_behaviour.tsv" if part in ORDERED else f"{part}_pair.csv"),
        text_fields=("title_en", "title"),
        label_rule="implicit: every interaction counts as liked",
        adapter=partial(ninerec, part=part),
    )
    for part in ORDERED + TIMED
)
