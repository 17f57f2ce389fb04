"""Anybody's own log: columns of a delimited file mapped to the two-table form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile
from recbase_hf.errors import DataError

__all__ = ["CsvColumns", "own_data"]


@dataclass(frozen=True)
class CsvColumns:
    """Which columns of a log, and maybe of an item table, hold what.

    Attributes:
        log: delimited file with a header, an event a row; maybe gzipped.
        user_id: its column of the user.
        item_id: its column of the item.
        timestamp: of the time, in seconds since 1970 or as ISO 8601; None if there is none.
        order: of the place in the user's history.
        rating: of the grade.
        label: of liked (1) or not (0).
        items: delimited file with an item a row; None takes `texts` from the log.
        items_id: its column of the item; default the log's.
        texts: columns that make an item's text; empty takes all others of the item file.
        delimiter: of the cells.
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
    encoding: str = "utf-8"

    def event_columns(self) -> dict[str, str]:
        """From the names of the two-table form to those of the log."""
        names = ("user_id", "item_id", "timestamp", "order", "rating", "label")
        return {name: column for name in names if (column := getattr(self, name)) is not None}


def own_data(columns: CsvColumns) -> PublishedData:
    """The data set that `prepare` writes.

    Raises:
        DataError: there is nothing to make an item's text of.
    """
    if columns.items is None and not columns.texts:
        raise DataError("name the columns of the log that make an item's text, or the file of the items")
    return PublishedData(
        name=columns.log.stem,
        domain="own",
        license="own",
        source="own",
        files=tuple(path.name for path in (columns.log, columns.items) if path is not None),
        text_fields=tuple(columns.texts),
        label_rule="as in the column `label`, if there is one",
        adapter=lambda _: PreparedTables(_items(columns), _interactions(columns)),
    )


def _interactions(columns: CsvColumns) -> Iterator[pa.Table]:
    return _mapped(columns.log, columns.event_columns(), columns)


def _items(columns: CsvColumns) -> Iterator[pa.Table]:
    path = columns.items or columns.log
    item_id = columns.items_id or columns.item_id if columns.items else columns.item_id
    texts = columns.texts or [name for name in _header(path, columns) if name != item_id]
    return _mapped(path, {"item_id": item_id, **{name: name for name in texts if name != item_id}}, columns)


def _mapped(path: Path, names: Mapping[str, str], columns: CsvColumns) -> Iterator[pa.Table]:
    there = _header(path, columns)
    for name in names.values():
        if name not in there:
            hint = "; is the delimiter right?" if len(there) == 1 else ""
            raise DataError(f"{path}: no column {name!r}; the columns are {there}{hint}")
    kinds = dict.fromkeys(names.values(), pa.string())
    options = {"delimiter": columns.delimiter, "encoding": columns.encoding}
    for table in RawFile(path).csv_tables(kinds, **options):  # type: ignore[arg-type]
        yield pa.table({name: table[column] for name, column in names.items()})


def _header(path: Path, columns: CsvColumns) -> list[str]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    _, line = next(RawFile(path).lines(columns.encoding), (0, ""))
    return [name.strip().strip('"') for name in line.lstrip("\ufeff").split(columns.delimiter)]
