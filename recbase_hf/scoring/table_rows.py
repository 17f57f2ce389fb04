"""Reads a table of any size a few rows at a time, from any row on, and knows where each of its rows came from."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbase_hf.data.table_sources import Origin, TableSource, first_failing, json_object, load_table
from recbase_hf.errors import DataError

if TYPE_CHECKING:
    import datasets

__all__ = ["LongTable", "LongTableSource", "as_schema", "open_table"]

LongTableSource: TypeAlias = "TableSource | datasets.IterableDataset"

PARQUET = (".parquet",)
JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
SURVEYED_ROWS = 4096


@dataclass(frozen=True)
class LongTable:
    """A table that is never in memory as a whole, unless it was there before.

    Attributes:
        name: what error messages call it.
        schema: its columns, the same for all rows.
        identity: JSON content that changes when the table does.
        pieces: for each file, in order, its number of rows and its origin.
        read: the rows from a row on, in tables of at most so many rows.
    """

    name: str
    schema: pa.Schema
    identity: Any
    pieces: Sequence[tuple[int, Origin]]
    read: Callable[[int, int], Iterator[pa.Table]]

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return sum(rows for rows, _ in self.pieces)

    def parts(self, start: int, size: int) -> Iterator[pa.Table]:
        """The rows from `start` on in tables of `size` rows, the last of fewer."""
        held: list[pa.Table] = []
        count = 0
        for table in self.read(start, size):
            held.append(as_schema(table, self.schema))
            count += table.num_rows
            while count >= size:
                joined = pa.concat_tables(held)
                yield joined.slice(0, size)
                held, count = [joined.slice(size)], count - size
        if count:
            yield pa.concat_tables(held)

    def cell(self, row: int, column: str) -> str:
        """The place of a cell, for messages; `row` counts from 0 over all files, the message from 1 in its file."""
        for rows, origin in self.pieces:
            if row < rows:
                return origin.cell(row + 1, column)
            row -= rows
        raise IndexError(f"{self.name} has {self.num_rows} rows")


def open_table(source: LongTableSource) -> LongTable:
    """Find out all about a table but its rows.

    Args:
        source: a Parquet or JSON-lines file, a folder of files of one of these kinds (read in the order of their
            names), a `datasets.Dataset` or `IterableDataset`, a DataFrame, an Arrow table or a list of dictionaries.
            All but the last three are streamed; JSON-lines and iterable datasets are read once to learn their columns
            and how many rows they have.

    Raises:
        DataError: a file is broken or of another kind, or the types of a column do not go together.
        FileNotFoundError: there is no such file.
        TypeError: `source` is none of these.
    """
    import datasets

    if isinstance(source, str | os.PathLike):
        path = Path(source)
        files = _files_of(path)
        return (_open_parquet if _is_parquet(files[0]) else _open_json_lines)(path, files)
    if isinstance(source, datasets.Dataset):
        return _open_dataset(source)
    if isinstance(source, datasets.IterableDataset):
        return _open_stream(source)
    return _open_in_memory(source)


def as_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with just these columns in just these types; a column that it lacks is all missing."""
    columns = []
    for field in schema:
        if field.name in table.column_names:
            column = table[field.name]
            columns.append(column if column.type == field.type else column.cast(field.type))
        else:
            columns.append(pa.nulls(table.num_rows, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


# ---- files -----------------------------------------------------------------------------------------------------------


def _files_of(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; looked for a Parquet or JSON-lines file, or a folder of them")
    if not path.is_dir():
        if not _is_readable(path):
            raise DataError(
                f"{path} has an ending that cannot be read; lists need {', '.join(PARQUET + JSON_LINES)} "
                "(a cell of a CSV file holds none)"
            )
        return [path]
    # Names that start so are by custom not part of the data: _SUCCESS, .part-00000.crc
    files = [file for file in sorted(path.iterdir()) if _is_readable(file) and not file.name.startswith((".", "_"))]
    if not files:
        raise FileNotFoundError(f"{path} holds no file with the ending {', '.join(PARQUET + JSON_LINES)}")
    other = next((file for file in files if _is_parquet(file) != _is_parquet(files[0])), None)
    if other is not None:
        raise DataError(f"{path} holds both {files[0].name} and {other.name}; name a folder with files of one kind")
    return files


def _is_readable(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET + JSON_LINES)


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET)


def _identity_of(files: Sequence[Path]) -> list[list[Any]]:
    """Name, size and time of each file: cheap, and changed by whoever writes the file again."""
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _open_files(
    path: Path,
    files: Sequence[Path],
    surveys: Sequence[tuple[pa.Schema, int]],
    read_file: Callable[[Path, int, int], Iterator[pa.Table]],
) -> LongTable:
    pieces = [(rows, Origin(str(file), file)) for file, (_, rows) in zip(files, surveys, strict=True)]

    def read(start: int, size: int) -> Iterator[pa.Table]:
        for file, (rows, _) in zip(files, pieces, strict=True):
            if start < rows:
                with _named_when_broken(file):
                    yield from read_file(file, start, size)
            start = max(0, start - rows)

    schema = _unified([schema for schema, _ in surveys], str(path))
    return LongTable(str(path), schema, _identity_of(files), pieces, read)


@contextmanager
def _named_when_broken(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error)[:200]}); it may be truncated or of another format: "
            "make or download it again"
        ) from error


def _unified(schemas: Sequence[pa.Schema], name: str) -> pa.Schema:
    # Metadata of pandas or datasets would describe the columns as they were.
    bare = [schema.remove_metadata() for schema in schemas]
    try:
        return pa.unify_schemas(bare, promote_options="permissive") if bare else pa.schema([])
    except pa.ArrowException as error:
        raise DataError(
            f"{name}: the types of a column do not go together ({error}); make the column all text or all numbers"
        ) from error


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def _open_parquet(path: Path, files: Sequence[Path]) -> LongTable:
    surveys = []
    for file in files:
        with _named_when_broken(file), pq.ParquetFile(file) as parquet:
            surveys.append((parquet.schema_arrow, parquet.metadata.num_rows))
    return _open_files(path, files, surveys, _read_parquet)


def _read_parquet(path: Path, start: int, size: int) -> Iterator[pa.Table]:
    # Buffered, because a reader without a buffer holds whole columns of a row group, which may be the whole file.
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        first = int(np.searchsorted(ends, start, side="right"))
        skipped = start - (int(ends[first - 1]) if first else 0)
        for batch in file.iter_batches(size, row_groups=range(first, file.num_row_groups)):
            yield pa.Table.from_batches([batch.slice(min(skipped, len(batch)))])
            skipped = max(0, skipped - len(batch))


# ---- JSON lines ------------------------------------------------------------------------------------------------------


def _open_json_lines(path: Path, files: Sequence[Path]) -> LongTable:
    surveys = []
    for file in files:
        with _named_when_broken(file):
            surveys.append(_survey(_read_json_lines(file, 0, SURVEYED_ROWS), str(file)))
    return _open_files(path, files, surveys, _read_json_lines)


def _read_json_lines(path: Path, start: int, size: int) -> Iterator[pa.Table]:
    opener: Callable[..., IO[str]] = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as file:
        lines = islice(((number, text) for number, text in enumerate(file, 1) if text.strip()), start, None)
        while rows := [json_object(text, f"{path}, line {number}") for number, text in islice(lines, size)]:
            yield _table_of_rows(rows, Origin(str(path), path), start)
            start += len(rows)


def _table_of_rows(rows: Sequence[dict[str, Any]], origin: Origin, start: int) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _array([row.get(name) for row in rows], name, origin, start) for name in names})


def _array(values: list[Any], name: str, origin: Origin, start: int) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        row = first_failing(len(values), lambda count: pa.array(values[:count]))
        raise DataError(
            f"{origin.cell(start + row, name)}: {values[row - 1]!r} does not go with the values above it "
            f"({str(error)[:100]}); make the column all text or all numbers"
        ) from error


def _survey(tables: Iterable[pa.Table], name: str) -> tuple[pa.Schema, int]:
    """Schema and number of rows of tables that are not at hand at once."""
    schemas, rows = dict[pa.Schema, None](), 0
    for table in tables:
        schemas[table.schema] = None
        rows += table.num_rows
    return _unified(list(schemas), name), rows


# ---- datasets and tables in memory -----------------------------------------------------------------------------------


def _open_dataset(dataset: datasets.Dataset) -> LongTable:
    arrow = dataset.with_format("arrow")

    def read(start: int, size: int) -> Iterator[pa.Table]:
        for first in range(start, len(dataset), size):
            yield arrow[first : first + size]

    schema = dataset.features.arrow_schema.remove_metadata()
    return LongTable("dataset", schema, dataset._fingerprint, [(len(dataset), Origin("dataset"))], read)


def _open_stream(dataset: datasets.IterableDataset) -> LongTable:
    arrow, digest = dataset.with_format("arrow"), _Digest()

    def read(start: int, size: int) -> Iterator[pa.Table]:
        yield from arrow.skip(start).iter(batch_size=size)

    schema, rows = _survey(map(digest.update, read(0, SURVEYED_ROWS)), "iterable dataset")
    return LongTable("iterable dataset", schema, digest.hexdigest(), [(rows, Origin("iterable dataset"))], read)


def _open_in_memory(source: Any) -> LongTable:
    if isinstance(source, list):
        origin = Origin("candidate table")
        table = _table_of_rows(source, origin, 0)
    else:
        table, origin = load_table(source, "candidate")
    digest = _Digest()
    digest.update(table)

    def read(start: int, size: int) -> Iterator[pa.Table]:
        for first in range(start, table.num_rows, size):
            yield table.slice(first, size)

    schema = table.schema.remove_metadata()
    return LongTable(origin.name, schema, digest.hexdigest(), [(table.num_rows, origin)], read)


class _Digest(io.RawIOBase):
    """A file that only hashes what is written."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def update(self, table: pa.Table) -> pa.Table:
        """Hash the rows of a table, which is given back."""
        with pa.ipc.new_stream(self, table.schema) as writer:
            writer.write_table(table)
        return table

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._sha256.update(data)
        return len(data)
