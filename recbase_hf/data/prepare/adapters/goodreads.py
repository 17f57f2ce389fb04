"""Goodreads of the UCSD Book Graph, with works or with editions as items; what a reader has read counts as liked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.ratings import INTERACTIONS, plain_text, require_ids, rows_with, seconds_of_dates
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows

__all__ = ["PUBLISHED", "goodreads_books", "goodreads_works"]

WORKS = pa.schema(dict.fromkeys(("item_id", "title", "year"), pa.string()))
BOOKS = pa.schema(dict.fromkeys(("item_id", "title", "year", "publisher", "description"), pa.string()))
FIELDS = {
    "user_id": pa.string(),
    "book_id": pa.string(),
    "is_read": pa.bool_(),
    "rating": pa.float64(),
    "date_added": pa.string(),
}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def goodreads_works(raw: RawFolder) -> PreparedTables:
    """A work stands for its best edition (`best_book_id`); events of its other editions have no item."""
    left_out: Counter[str] = Counter()
    works = raw.find("goodreads_book_works.json.gz", "goodreads_book_works.json").json_rows()
    rows = rows_with("best_book_id", (row for _, row in works), left_out)
    titled = rows_with("original_title", rows, left_out, plain_text)
    return PreparedTables(tables_of_rows(map(_work, titled), WORKS), _events(_log(raw)), left_out=left_out)


def goodreads_books(raw: RawFolder) -> PreparedTables:
    """Every edition is an item."""
    left_out: Counter[str] = Counter()
    books = raw.find("goodreads_books.json.gz", "goodreads_books.json").json_rows()
    rows = map(_book, rows_with("book_id", (row for _, row in books), left_out))
    return PreparedTables(tables_of_rows(rows, BOOKS), _events(_log(raw)), left_out=left_out)


def _log(raw: RawFolder) -> RawFile:
    return raw.find("goodreads_interactions_dedup.json.gz", "goodreads_interactions_dedup.json")


def _work(row: dict[str, Any]) -> dict[str, str | None]:
    return {
        "item_id": str(row["best_book_id"]),
        "title": plain_text(row["original_title"]),
        "year": _number(row.get("original_publication_year")),
    }


def _book(row: dict[str, Any]) -> dict[str, str | None]:
    return {
        "item_id": str(row["book_id"]),
        "title": plain_text(row.get("title")),
        "year": _number(row.get("publication_year")),
        "publisher": plain_text(row.get("publisher")),
        "description": plain_text(row.get("description")),
    }


def _number(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _events(file: RawFile) -> Iterator[pa.Table]:
    """A rating of 0 means that there is none; the label says whether the book was read."""
    for first_line, table in file.json_tables(FIELDS):
        users, books, is_read, rating, added = (column.combine_chunks() for column in table.columns)
        require_ids(users, f"{file.name}, field user_id", first_line)
        require_ids(books, f"{file.name}, field book_id", first_line)
        rating = pc.if_else(pc.greater(rating, 0), rating, pa.scalar(None, pa.float64()))
        seconds = seconds_of_dates(_iso(added), f"{file.name}, field date_added", first_line)
        yield pa.table([users, books, rating, seconds, pc.cast(is_read, pa.int8())], schema=INTERACTIONS)


def _iso(dates: pa.Array) -> pa.Array:
    """`Fri Aug 25 13:55:02 -0700 2017` as `2017-08-25T13:55:02-07:00`."""
    iso = pc.replace_substring_regex(
        dates, r"^\w{3} (\w{3}) (\d{2}) (\d\d:\d\d:\d\d) ([+-]\d{2})(\d{2}) (\d{4})$", r"\6-\1-\2T\3\4:\5"
    )
    for number, month in enumerate(_MONTHS, 1):
        iso = pc.replace_substring(iso, f"-{month}-", f"-{number:02}-")
    return iso


def _published(
    name: str, items: str, text_fields: tuple[str, ...], adapter: Callable[[RawFolder], PreparedTables]
) -> PublishedData:
    return PublishedData(
        name=name,
        domain="books",
        license="academic use, no redistribution, no commercial use",
        source="https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html",
        files=(items, "goodreads_interactions_dedup.json.gz"),
        text_fields=text_fields,
        label_rule="marked as read; only put on a shelf is not liked",
        adapter=adapter,
    )


PUBLISHED = (
    _published("goodreads", "goodreads_book_works.json.gz", ("title", "year"), goodreads_works),
    _published(
        "goodreads-books", "goodreads_books.json.gz", ("title", "year", "publisher", "description"), goodreads_books
    ),
)
