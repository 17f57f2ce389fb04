"""Reads a file, a folder or a table in memory into an Arrow table, and knows where each of its rows came from."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recbase_hf.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pandas as pd

__all__ = [
    "ID_COLUMNS",
    "Origin",
    "TableSource",
    "arrow_table",
    "find_table",
    "first_failing",
    "json_object",
    "load_table",
]

TableSource: TypeAlias = "str | os.PathLike[str] | datasets.Dataset | pd.DataFrame | pa.Table | list[dict[str, Any]]"

ID_COLUMNS = ("user_id", "item_id")
ENDINGS = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


@dataclass(frozen=True)
class Origin:
    """What error messages call a table, and the file behind it if there is one."""

    name: str
    path: Path | None = None
    rows_before: int = 0
    """Rows of the file that come before the table, where it is a block of it."""

    def row(self, row: int) -> str:
        """The place of a row, counted from 1 without the header; in a text file with the line it starts on."""
        row += self.rows_before
        return f"{self.name}, row {row}{self._line(row)}"

    def cell(self, row: int, column: str) -> str:
        """The place of a cell."""
        return f"{self.row(row)}, column {column!r}"

    def _line(self, row: int) -> str:
        if self.path is None or _ending(self.path) == ".parquet":
            return ""
        # A broken file has its own message; here the line is only a courtesy.
        with suppress(OSError, EOFError, zlib.error, csv.Error, UnicodeError):
            return next((f" (line {line})" for number, line in _lines_of_rows(self.path) if number == row), "")
        return ""


def load_table(source: TableSource, stem: str) -> tuple[pa.Table, Origin]:
    """Read any kind of source, its contents unchecked.

    Args:
        source: a file, a folder that holds `<stem>.*`, or a table in memory.
        stem: what the table is called, "items" or "interactions".

    Returns:
        The table, and the origin that error messages about it need. Cells of CSV files are text, only an empty one is
        missing; whole numbers in the id columns of JSON lines, lists and object columns are text too.

    Raises:
        DataError: the file is broken, of another format, or there are two; or a column mixes types.
        FileNotFoundError: there is no such file.
        TypeError: `source` is none of these.
    """
    path = find_table(source, stem)
    if path is not None:
        origin = Origin(str(path), path)
        return _read_file(path, origin), origin
    origin = Origin(f"{stem} table")
    return _table_in_memory(source, origin), origin


def find_table(source: TableSource, stem: str) -> Path | None:
    """The file behind a source, None for a table in memory; raises as `load_table` does where there is none."""
    return _find_file(Path(source), stem) if isinstance(source, str | os.PathLike) else None


def arrow_table(dataset: datasets.Dataset) -> pa.Table:
    """The rows of a dataset as they stand, after any selection or shuffle (which `dataset.data` ignores)."""
    return dataset.with_format("arrow")[:]


def first_failing(count: int, attempt: Callable[[int], object]) -> int:
    """The smallest number of leading rows for which `attempt` raises, which is the first bad row counted from 1."""
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            attempt(middle)
            good = middle
        except (pa.ArrowException, OverflowError, UnicodeError):
            bad = middle
    return bad


def _find_file(path: Path, stem: str) -> Path:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.lower() in {stem + ending for ending in ENDINGS})
        if len(found) > 1:
            raise DataError(f"{path} holds both {found[0].name} and {found[1].name}; name the one to read")
        if not found:
            raise FileNotFoundError(f"{path} holds no {stem} table; looked for {stem} with {', '.join(ENDINGS)}")
        return found[0]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; looked for a file, or a folder that holds {stem}.*")
    if not _ending(path):
        raise DataError(f"{path} has an ending that cannot be read; save it as one of {', '.join(ENDINGS)}")
    return path


def _ending(path: Path) -> str:
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")


def _is_json(path: Path) -> bool:
    return "json" in _ending(path)


def _delimiter(path: Path) -> str:
    return "\t" if "tsv" in _ending(path) else ","


def _open(path: Path, mode: str, **options: Any) -> IO[Any]:
    opener: Callable[..., IO[Any]] = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, mode, **options)


def _open_text(path: Path) -> IO[str]:
    return _open(path, "rt", encoding="utf-8-sig", newline="")


def _read_file(path: Path, origin: Origin) -> pa.Table:
    try:
        if _ending(path) == ".parquet":
            with pq.ParquetFile(path) as file:
                return file.read()
        if _is_json(path):
            return _table_of_columns(_columns_of_rows(_json_rows(path)), origin)
        return _read_csv(path, origin)
    except DataError:
        raise
    except (pa.ArrowException, OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        line = _first_line_not_utf8(path)
        if line:
            raise DataError(f"{path}, line {line}: not UTF-8; save it as UTF-8") from error
        raise DataError(
            f"{path} cannot be read ({str(error)[:200]}); it may be truncated or of another format: "
            "make or download it again"
        ) from error


def _first_line_not_utf8(path: Path) -> int | None:
    if _ending(path) == ".parquet":
        return None
    with suppress(OSError, EOFError, zlib.error), _open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None


def _read_csv(path: Path, origin: Origin) -> pa.Table:
    """Read every cell as text: type inference would turn "007" into 7 and an item called "NA" into a missing one."""
    with _open_text(path) as file:
        header = next((record for record in csv.reader(file, delimiter=_delimiter(path)) if record), [])
    ragged = []

    def note_ragged(row: pa_csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    try:
        return pa_csv.read_csv(
            path,
            # One thread, because only then does a ragged row know its number; a row must fit in one block.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=1 << 24),
            parse_options=pa_csv.ParseOptions(
                delimiter=_delimiter(path), newlines_in_values=True, invalid_row_handler=note_ragged
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in header},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if not ragged:
            raise
        row = ragged[0].number - 1
        raise DataError(
            f"{origin.row(row)}: {ragged[0].actual_columns} cells where the header has "
            f"{ragged[0].expected_columns}; put cells that hold a separator or a line break between double quotes"
        ) from error


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """One JSON object a line (Python's reader, because Arrow's turns text that looks like a date into a date)."""
    with _open_text(path) as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                yield json_object(text, f"{path}, line {line}")


def json_object(text: str, place: str) -> dict[str, Any]:
    """One line of a JSON-lines file; `place` is what an error calls it.

    Raises:
        DataError: not one JSON object.
    """
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON ({error.msg}); write one JSON object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: holds a {type(row).__name__}, not an object; write one JSON object a line")
    return row


def _lines_of_rows(path: Path) -> Iterator[tuple[int, int]]:
    """Row number (0 is the header of a CSV file) and the line on which the row starts."""
    with _open_text(path) as file:
        if _is_json(path):
            yield from enumerate((line for line, text in enumerate(file, 1) if text.strip()), 1)
            return
        reader = csv.reader(file, delimiter=_delimiter(path))
        row, line = 0, 1
        for record in reader:
            if record:
                yield row, line
                row += 1
            line = reader.line_num + 1


def _table_in_memory(source: TableSource, origin: Origin) -> pa.Table:
    import datasets
    import pandas as pd

    if isinstance(source, datasets.Dataset):
        return arrow_table(source)
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pd.DataFrame):
        columns = [(str(name), cells.tolist() if cells.dtype == object else cells) for name, cells in source.items()]
        return _table_of_columns(columns, origin)
    if isinstance(source, list):
        return _table_of_columns(_columns_of_rows(source), origin)
    raise TypeError(
        f"{origin.name}: cannot read a {type(source).__name__}; give a file, a folder, one split of a dataset as "
        "datasets.Dataset, a DataFrame, an Arrow table or a list of dictionaries"
    )


def _columns_of_rows(rows: Iterable[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    columns: dict[str, list[Any]] = {}
    count = 0
    for count, row in enumerate(rows, 1):
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (count - 1 - len(column)))
            column.append(value)
    return [(name, column + [None] * (count - len(column))) for name, column in columns.items()]


def _table_of_columns(columns: Sequence[tuple[str, Any]], origin: Origin) -> pa.Table:
    arrays = [_array(values, name, origin) for name, values in columns]
    return pa.Table.from_arrays(arrays, [name for name, _ in columns])


def _array(values: Any, name: str, origin: Origin) -> Any:
    if name in ID_COLUMNS and isinstance(values, list):  # only here may one column mix 7 and "007"
        values = [str(value) if _is_whole_number(value) else value for value in values]
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        row = first_failing(len(values), lambda count: pa.array(values[:count], from_pandas=True))
        raise DataError(
            f"{origin.cell(row, name)}: {values[row - 1]!r} does not go with the values above it ({str(error)[:100]}); "
            "make the column all text or all numbers"
        ) from error


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
