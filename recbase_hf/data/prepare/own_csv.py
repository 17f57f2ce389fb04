"""Anybody's own log: columns of a delimited file mapped to the two-table form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.cells import CellKind, CellReader
from recbase_hf.data.prepare.csv_faults import CsvForm
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["EVENT_COLUMNS", "CsvColumns", "header_of", "mapped", "own_data"]

EVENT_COLUMNS: dict[str, CellKind] = {
    "user_id": "id",
    "item_id": "id",
    "timestamp": "time",
    "order": "place",
    "rating": "rating",
    "label": "label",
}
"""Of the two-table form, and what their cells are."""

EARLIEST = 1e8
"""Seconds since 1970: no log of a shop is older."""


@dataclass(frozen=True)
class CsvColumns:
    """Which columns of a log, and maybe of an item table, hold what.

    Attributes:
        log: delimited file with a header, an event a row; maybe gzipped.
        user_id: its column of the user.
        item_id: its column of the item.
        timestamp: of the time, in seconds or milliseconds since 1970 or as ISO 8601, one of these in all rows; None if
            there is none.
        order: of the place in the user's history.
        rating: of the grade.
        label: of liked (1) or not (0).
        items: delimited file with an item a row; None takes `texts` from the log.
        items_id: its column of the item; default the log's.
        texts: columns that make an item's text; empty takes all others of the item file.
        delimiter: of the cells.
        items_delimiter: of those of the file of the items; default the same.
        liked_from: grade from which on an event counts as liked; None where all do, or where `label` says it.
        encoding: of the files.
    """

    log: Path
    user_id: str
    item_id: str
    timestamp: str | None = None
    order: str | None = None
    rating: str | None = None
    label: str | None = None
    items: Path | None = None
    items_id: str | None = None
    texts: Sequence[str] = ()
    delimiter: str = ","
    items_delimiter: str | None = None
    liked_from: float | None = None
    encoding: str = "utf-8"

    def event_columns(self) -> dict[str, str]:
        """From the names of the two-table form to those of the log."""
        return {name: column for name in EVENT_COLUMNS if (column := getattr(self, name)) is not None}

    def label_rule(self) -> str:
        """What counts as liked, in words."""
        if self.label is not None:
            return f"column {self.label!r} is 1"
        return "all events" if self.liked_from is None else f"column {self.rating!r} is at least {self.liked_from:g}"


def own_data(columns: CsvColumns, name: str) -> PublishedData:
    """The data set of this name that `prepare` writes.

    Raises:
        DataError: there is nothing to make an item's text of.
    """
    if columns.items is None and not columns.texts:
        raise DataError("name the columns of the log that make an item's text, or the file of the items")
    return PublishedData(
        name=name,
        domain="own",
        license="own",
        source="own",
        files=tuple(path.name for path in (columns.log, columns.items) if path is not None),
        text_fields=tuple(columns.texts),
        label_rule=columns.label_rule(),
        adapter=partial(_tables, columns),
        settings=repr(columns),
    )


def _tables(columns: CsvColumns, raw: RawFolder) -> PreparedTables:
    log = raw.file(columns.log)
    items = _items(log if columns.items is None else raw.file(columns.items), columns)
    return PreparedTables(items, _interactions(log, columns))


def _interactions(file: RawFile, columns: CsvColumns) -> Iterator[pa.Table]:
    names = columns.event_columns()
    readers = {name: CellReader(f"{file.name}, column {names[name]!r}", EVENT_COLUMNS[name]) for name in names}
    for table in mapped(file, names, delimiter=columns.delimiter, encoding=columns.encoding):
        read = {name: reader.read(table[name]) for name, reader in readers.items()}
        if "timestamp" in read:
            _require_times(read["timestamp"], readers["timestamp"])
        if columns.liked_from is not None:
            read["label"] = pc.cast(pc.greater_equal(read["rating"], columns.liked_from), pa.int8())
        yield pa.table(read)


def _require_times(seconds: pa.Array, reader: CellReader) -> None:
    """Raise where a number cannot be meant as seconds since 1970, such as 20240131 for a day, or 930 for an hour."""
    row = pc.index(pc.less(seconds, EARLIEST), True).as_py()
    if row >= 0:
        raise DataError(
            f"{reader.place_of(row)}: {seconds[row].as_py():g} as seconds since 1970 is before 1973; name the column "
            "of the time with --timestamp, or give whole numbers that are no time as the place in the history, --order"
        )


def _items(file: RawFile, columns: CsvColumns) -> Iterator[pa.Table]:
    item_id = columns.items_id or columns.item_id if columns.items else columns.item_id
    form = {"delimiter": columns.delimiter, "encoding": columns.encoding}
    if columns.items is not None and columns.items_delimiter is not None:
        form["delimiter"] = columns.items_delimiter
    texts = columns.texts or [name for name in header_of(file, **form) if name != item_id]
    ids = CellReader(f"{file.name}, column {item_id!r}", "id")
    for table in mapped(file, {"item_id": item_id, **{name: name for name in texts if name != item_id}}, **form):
        yield table.set_column(0, "item_id", ids.read(table["item_id"]))


def mapped(file: RawFile, names: Mapping[str, str], *, delimiter: str, encoding: str) -> Iterator[pa.Table]:
    """Columns under other names, their cells as text, block by block.

    Raises:
        DataError: there is no such column, or the file cannot be read; says where.
    """
    there = header_of(file, delimiter=delimiter, encoding=encoding)
    for name in names.values():
        if name not in there:
            hint = "; is the delimiter right?" if len(there) == 1 else ""
            raise DataError(f"{file.name}: no column {name!r}; the columns are {there}{hint}")
    kinds = dict.fromkeys(names.values(), pa.string())
    for table in file.csv_tables(kinds, delimiter=delimiter, encoding=encoding):
        yield pa.table({name: table[column] for name, column in names.items()})


def header_of(file: RawFile, *, delimiter: str, encoding: str) -> list[str]:
    """The names of the columns."""
    form = CsvForm(delimiter, None, quotes=True, encoding=encoding)
    _, header = next(form.rows(file), (0, [""]))
    return header
