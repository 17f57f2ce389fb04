"""POG (Alibaba iFashion): `user_data.txt`, and `item_data.txt` or titles that RecBench translated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode, one_array
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "pog"]

ITEMS = pa.schema({"item_id": pa.string(), "title": pa.string(), "title_en": pa.string()})


def pog(raw: RawFolder) -> PreparedTables:
    """Clicks on items, oldest first; the outfit that was clicked at last is no item and is left out."""
    translated = raw.look_for("pog_translated_titles.csv")
    items = _translated(translated) if translated else tables_of_rows(_items(raw.find("item_data.txt")), ITEMS)
    return PreparedTables(items, _clicks(raw.find("user_data.txt")))


def _items(file: RawFile) -> Iterator[dict[str, str | None]]:
    """Item, category, picture and title, separated by commas; those in the title are its own."""
    for number, line in file.lines():
        fields = line.split(",", 3)
        if len(fields) != 4:
            raise DataError(f"{file.name}, line {number}: not an item, its category, picture and title")
        yield {"item_id": fields[0], "title": fields[3] or None, "title_en": None}


def _translated(file: RawFile) -> Iterator[pa.Table]:
    """Three columns whose place, not name, says what they are: item, Chinese title, English title."""
    header = next(file.lines("utf-8-sig"), (1, ""))[1].split(",")
    if len(header) != len(ITEMS):
        raise DataError(f"{file.name}: {len(header)} columns, not item, Chinese title and English title")
    for table in file.csv_tables(dict.fromkeys(header, pa.string())):
        yield table.rename_columns(ITEMS.names)


def _clicks(file: RawFile) -> Iterator[pa.Table]:
    """User, items and outfit; a user may have several lines."""
    names = ["user_id", "items", "outfit_id"]
    before = 0
    for table in file.csv_tables(dict.fromkeys(names, pa.string()), names=names, quotes=False):
        events = explode(pc.split_pattern(one_array(table["items"]), ";"))
        count = len(events.rows)
        columns = [
            table["user_id"].take(pa.array(events.rows)),
            events.values,
            pa.array(np.arange(before, before + count)),
        ]
        clicks = pa.table(columns, names=["user_id", "item_id", "order"])
        yield clicks.filter(pc.not_equal(clicks["item_id"], ""))
        before += count


PUBLISHED = (
    PublishedData(
        name="pog",
        domain="fashion",
        license="none is stated",
        source="https://github.com/wenyuer/POG",
        files=("user_data.txt", "item_data.txt (or pog_translated_titles.csv)"),
        text_fields=("title_en", "title"),
        label_rule="implicit: every click counts as liked",
        adapter=pog,
    ),
)
