"""MicroLens: `MicroLens-50k_pairs.csv` and titles; the titles of 100k come without a header and without quotes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from recbase_hf.data.prepare.columns import UnixSeconds
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "microlens"]

ITEMS = pa.schema({"item_id": pa.string(), "title": pa.string()})
PAIRS = {"user": pa.string(), "item": pa.string(), "timestamp": pa.int64()}


def microlens(raw: RawFolder, size: str) -> PreparedTables:
    """One size, `50k` or `100k`; times are in milliseconds."""
    titles = raw.find(f"MicroLens-{size}_titles.csv", f"MicroLens-{size}_title_en.csv")
    return PreparedTables(tables_of_rows(_titles(titles), ITEMS), _pairs(raw.find(f"MicroLens-{size}_pairs.csv")))


def _titles(file: RawFile) -> Iterator[dict[str, str | None]]:
    """Commas that no quotes protect belong to the title."""
    for number, (item, *title) in enumerate(csv.reader(text + "\n" for _, text in file.lines("utf-8-sig")), 1):
        if item.isdigit() and title:
            yield {"item_id": item, "title": ",".join(title).strip() or None}
        elif number > 1:
            raise DataError(f"{file.name}, row {number}: {item[:50]!r} is not the number of a video and a title")


def _pairs(file: RawFile) -> Iterator[pa.Table]:
    seconds = UnixSeconds(f"{file.name}, column 'timestamp'")
    for table in file.csv_tables(PAIRS):
        columns = [table["user"], table["item"], seconds.of(table["timestamp"])]
        yield pa.table(columns, names=["user_id", "item_id", "timestamp"])


PUBLISHED = tuple(
    PublishedData(
        name=f"microlens-{size}",
        domain="short videos",
        license="none is stated; changed copies must not be passed on; see the repository",
        source="https://github.com/westlake-repl/MicroLens",
        files=(f"MicroLens-{size}_pairs.csv", titles),
        text_fields=("title",),
        label_rule="implicit: every comment on a video counts as liked",
        adapter=partial(microlens, size=size),
    )
    for size, titles in (("50k", "MicroLens-50k_titles.csv"), ("100k", "MicroLens-100k_title_en.csv"))
)
