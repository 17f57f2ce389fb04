"""Reads the two tables every data set comes as, items and interactions, and checks them before anything uses them."""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recbase_hf.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pandas as pd

__all__ = ["TableSource", "hash_of_tables", "read_interactions", "read_items", "read_vectors"]

TableSource: TypeAlias = "str | os.PathLike[str] | datasets.Dataset | pd.DataFrame | pa.Table | list[dict[str, Any]]"

ID_COLUMNS = ("user_id", "item_id")
ENDINGS = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


def read_items(source: TableSource) -> datasets.Dataset:
    """Read and check an item table.

    `source` is a file (.parquet, .csv, .tsv, .jsonl, .ndjson; the text kinds also with .gz), a folder that holds
    `items.*`, a `datasets.Dataset`, a pandas DataFrame, an Arrow table or a list of dictionaries. The result has the
    column `item_id` (text, unique, none missing; whole numbers become text) and every other column as it was; cells
    of CSV files stay text, and only an empty cell is missing.

    Raises `DataError` (file, row counted from 1 without the header, column, fix), `FileNotFoundError` or `TypeError`.

    >>> read_items([{"item_id": 7, "title": "Chess"}, {"item_id": "007", "title": "Poker"}])["item_id"][:]
    ['7', '007']
    """
    table, origin = _load(source, "items")
    _require_columns(table, ["item_id"], origin)
    if table.num_rows == 0:
        raise DataError(f"{origin.name}: the table has no rows; give at least one item")
    table = _with_ids(table, "item_id", origin)
    _require_unique(table["item_id"], "item_id", origin)
    return _as_dataset(table)


def read_interactions(source: TableSource) -> datasets.Dataset:
    """Read and check a table of interactions, from the same kinds of `source` as `read_items` (`interactions.*`).

    The result has `user_id` and `item_id` (text, none missing) and, where the source has them, `order` and `timestamp`
    (int64, or float64 if there are fractions), `label` (int8: 0, 1 or missing) and `rating` (float64), with NaN
    read as missing. Other columns are kept as they were.

    Raises `DataError` (file, row counted from 1 without the header, column, fix), `FileNotFoundError` or `TypeError`.

    >>> read_interactions([{"user_id": "ann", "item_id": 7, "label": True}])[0]
    {'user_id': 'ann', 'item_id': '7', 'label': 1}
    """
    table, origin = _load(source, "interactions")
    _require_columns(table, ID_COLUMNS, origin)
    for name in ID_COLUMNS:
        table = _with_ids(table, name, origin)
    for name in ("order", "timestamp", "rating", "label"):
        if name in table.column_names:
            table = _with_numbers(table, name, origin)
    return _as_dataset(table)


def read_vectors(
    folder: str | os.PathLike[str], item_ids: Sequence[str], name: str = "minilm"
) -> tuple[np.ndarray, np.ndarray]:
    """Read sentence vectors computed earlier: `<name>_f16.npy` (n, d) and `<name>_ids.parquet` (column `item_id`).

    Returns `rows`, the positions in `item_ids` that have a vector, (n,) int64 ascending, and `vectors`, (n, d) float32.

    Raises `FileNotFoundError` if a file is missing, and `DataError` if the counts differ, a vector is not finite, or an
    id is repeated or not in `item_ids`.
    """
    vectors_path, ids_path = Path(folder) / f"{name}_f16.npy", Path(folder) / f"{name}_ids.parquet"
    vectors = _read_matrix(vectors_path)
    table, origin = _load(ids_path, "ids")
    _require_columns(table, ["item_id"], origin)
    ids = _with_ids(table, "item_id", origin)["item_id"]
    _require_unique(ids, "item_id", origin)
    if len(ids) != len(vectors):
        raise DataError(f"{vectors_path} has {len(vectors)} vectors but {ids_path} has {len(ids)} ids; make both again")
    positions = pc.index_in(ids, value_set=pa.array(list(item_ids), pa.large_string()))
    if positions.null_count:
        row = _first_true(pc.is_null(positions))
        raise DataError(
            f"{origin.at(row, 'item_id')}: {ids[row - 1].as_py()!r} is not in the item table; "
            "add the item, or make the vectors again for this table"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(
            f"{vectors_path}, row {row + 1}: the vector of {ids[row].as_py()!r} holds NaN or infinity; make it again"
        )
    rows = positions.to_numpy().astype(np.int64)
    order = np.argsort(rows)
    return rows[order], vectors[order].astype(np.float32)


def hash_of_tables(items: TableSource, interactions: TableSource) -> str:
    """Sixteen hexadecimal digits that stand for the item ids and the interactions (user, item, order), in row order.

    The same content gives the same digits whatever file format it was read from.
    """
    item_table, event_table = _arrow(read_items(items)), _arrow(read_interactions(interactions))
    digest = hashlib.sha256()
    for column in (item_table["item_id"], event_table["user_id"], event_table["item_id"]):
        digest.update(pc.binary_length(column).to_numpy().astype("<i8").tobytes())
        digest.update("".join(column.to_pylist()).encode())
    if "order" in event_table.column_names:
        order = event_table["order"]
        digest.update(f"order {order.type}".encode())
        digest.update(pc.is_null(order).to_numpy().tobytes())
        digest.update(pc.fill_null(order, 0).to_numpy().astype("<i8" if order.type == pa.int64() else "<f8").tobytes())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------- where a table came from


@dataclass(frozen=True)
class _Origin:
    """What error messages call a table, and the file behind it if there is one."""

    name: str
    path: Path | None = None

    def at(self, row: int, column: str) -> str:
        return f"{self.name}, row {row}{self._line(row)}, column {column!r}"

    def _line(self, row: int) -> str:
        if self.path is None or _ending(self.path) == ".parquet":
            return ""
        # A broken file has its own message; here the line is only a courtesy.
        with suppress(OSError, EOFError, zlib.error, csv.Error, UnicodeError, StopIteration):
            return f" (line {next(line for number, line in _lines_of_rows(self.path) if number == row)})"
        return ""


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


# ---------------------------------------------------------------------------------------------------- sources to Arrow


def _load(source: TableSource, stem: str) -> tuple[pa.Table, _Origin]:
    import datasets
    import pandas as pd

    if isinstance(source, str | os.PathLike):
        path = _find_file(Path(source), stem)
        origin = _Origin(str(path), path)
        return _read_file(path, origin), origin
    origin = _Origin(f"{stem} table")
    if isinstance(source, datasets.Dataset):
        return _arrow(source), origin
    if isinstance(source, pa.Table):
        return source, origin
    if isinstance(source, pd.DataFrame):
        columns = [(str(name), cells.tolist() if cells.dtype == object else cells) for name, cells in source.items()]
        return _table_of_columns(columns, origin), origin
    if isinstance(source, list):
        return _table_of_columns(_columns_of_rows(source), origin), origin
    raise TypeError(
        f"{origin.name}: cannot read a {type(source).__name__}; give a file, a folder, one split of a dataset as "
        "datasets.Dataset, a DataFrame, an Arrow table or a list of dictionaries"
    )


def _arrow(dataset: datasets.Dataset) -> pa.Table:
    # Not `dataset.data`, which ignores a selection or a shuffle.
    return dataset.with_format("arrow")[:]


def _as_dataset(table: pa.Table) -> datasets.Dataset:
    import datasets

    # Metadata of pandas or datasets would describe the columns as they were before the ids became text.
    return datasets.Dataset(table.replace_schema_metadata(None))


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


def _read_file(path: Path, origin: _Origin) -> pa.Table:
    try:
        if _ending(path) == ".parquet":
            with pq.ParquetFile(path) as file:
                return file.read()
        return _read_json_lines(path, origin) if _is_json(path) else _read_csv(path, origin)
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


def _read_csv(path: Path, origin: _Origin) -> pa.Table:
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
            f"{origin.name}, row {row}{origin._line(row)}: {ragged[0].actual_columns} cells where the header has "
            f"{ragged[0].expected_columns}; put cells that hold a separator or a line break between double quotes"
        ) from error


def _read_json_lines(path: Path, origin: _Origin) -> pa.Table:
    """Read one JSON object a line (Python's reader, because Arrow's turns text that looks like a date into a date)."""

    def rows() -> Iterator[dict[str, Any]]:
        with _open_text(path) as file:
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield _json_object(text, f"{path}, line {line}")

    return _table_of_columns(_columns_of_rows(rows()), origin)


def _json_object(text: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON ({error.msg}); write one JSON object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: holds a {type(row).__name__}, not an object; write one JSON object a line")
    return row


def _columns_of_rows(rows: Iterable[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    columns: dict[str, list[Any]] = {}
    count = 0
    for count, row in enumerate(rows, 1):
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (count - 1 - len(column)))
            column.append(value)
    return [(name, column + [None] * (count - len(column))) for name, column in columns.items()]


def _table_of_columns(columns: Sequence[tuple[str, Any]], origin: _Origin) -> pa.Table:
    arrays = [_array(values, name, origin) for name, values in columns]
    return pa.Table.from_arrays(arrays, [name for name, _ in columns])


def _array(values: Any, name: str, origin: _Origin) -> Any:
    if name in ID_COLUMNS and isinstance(values, list):  # only here may one column mix 7 and "007"
        values = [str(value) if _is_whole_number(value) else value for value in values]
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        row = _first_failing(len(values), lambda count: pa.array(values[:count], from_pandas=True))
        raise DataError(
            f"{origin.at(row, name)}: {values[row - 1]!r} does not go with the values above it ({str(error)[:100]}); "
            "make the column all text or all numbers"
        ) from error


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _read_matrix(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; looked for vectors computed earlier")
    try:
        matrix = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); it may be truncated: make it again") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise DataError(f"{path} is {matrix.dtype} of shape {matrix.shape}; give floating numbers, one row an item")
    return matrix


# --------------------------------------------------------------------------------------------------------------- checks


def _require_columns(table: pa.Table, names: Sequence[str], origin: _Origin) -> None:
    there = table.column_names
    repeated = [name for name, count in Counter(there).items() if count > 1]
    if repeated:
        raise DataError(f"{origin.name}: two columns are called {repeated[0]!r}; rename one")
    for name in names:
        if name not in there:
            raise DataError(f"{origin.name}: no column {name!r}; the columns are {there}{_hint(name, there)}")


def _hint(name: str, there: Sequence[str]) -> str:
    if len(there) == 1 and name in there[0]:
        return "; the cells seem to be separated otherwise: .csv wants commas, .tsv wants tabs"
    close = difflib.get_close_matches(name, there, n=1)
    return f"; rename {close[0]!r} if that is it" if close else ""


def _with_ids(table: pa.Table, name: str, origin: _Origin) -> pa.Table:
    """Turn a column into large_string ids, none missing or empty."""
    column = _without_dictionary(table[name])
    if not (_is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        _raise_wrong_type(column, name, origin, f"text or whole numbers, not {column.type}")
    column = pc.cast(column, pa.large_string())
    empty = pc.fill_null(pc.equal(column, ""), True)
    if pc.any(empty).as_py():
        raise DataError(f"{origin.at(_first_true(empty), name)}: the id is missing; fill it in or leave the row out")
    return table.set_column(table.column_names.index(name), name, column)


def _with_numbers(table: pa.Table, name: str, origin: _Origin) -> pa.Table:
    column = _without_dictionary(table[name])
    if not (_is_text(column.type) or _is_numeric(column.type)):
        _raise_wrong_type(column, name, origin, f"numbers (times as seconds since 1970), not {column.type}")
    try:
        numbers = _numbers(column)
    except pa.ArrowInvalid as error:
        row = _first_failing(len(column), lambda count: _numbers(column.slice(0, count)))
        raise DataError(
            f"{origin.at(row, name)}: {column[row - 1].as_py()!r} is not a number; "
            "write plain numbers, and leave the cell empty where there is none"
        ) from error
    if name == "rating":
        numbers = pc.cast(numbers, pa.float64(), safe=False)
    if name == "label":
        _require_labels(numbers, origin)
        numbers = pc.cast(numbers, pa.int8())
    return table.set_column(table.column_names.index(name), name, numbers)


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Int64 where every number is whole, else float64; empty text and NaN are missing. Raises `pa.ArrowInvalid`."""
    if _is_text(column.type):
        column = pc.utf8_trim_whitespace(pc.cast(column, pa.large_string()))
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    with suppress(pa.ArrowInvalid):
        return pc.cast(column, pa.int64())
    numbers = pc.cast(column, pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    with suppress(pa.ArrowInvalid):
        return pc.cast(numbers, pa.int64())
    return numbers


def _require_labels(labels: pa.ChunkedArray, origin: _Origin) -> None:
    wrong = pc.fill_null(pc.and_(pc.not_equal(labels, 0), pc.not_equal(labels, 1)), False)
    if pc.any(wrong).as_py():
        row = _first_true(wrong)
        raise DataError(
            f"{origin.at(row, 'label')}: {labels[row - 1].as_py()!r} is neither 0 nor 1; "
            "make labels 0 (no) or 1 (yes), and put graded feedback in the column 'rating'"
        )


def _require_unique(ids: pa.ChunkedArray, name: str, origin: _Origin) -> None:
    codes = pc.dictionary_encode(ids.combine_chunks()).indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    if len(first) < len(codes):
        row = int(np.setdiff1d(np.arange(len(codes)), first)[0])
        raise DataError(
            f"{origin.at(row + 1, name)}: {ids[row].as_py()!r} stands in row {first[codes[row]] + 1} already; "
            "remove one row or give it another id"
        )


def _raise_wrong_type(column: pa.ChunkedArray, name: str, origin: _Origin, wanted: str) -> NoReturn:
    row = max(_first_true(pc.is_valid(column)), 1)
    value = column[row - 1].as_py() if len(column) else None
    raise DataError(f"{origin.at(row, name)}: {value!r}, but the column must hold {wanted}; convert the column")


def _is_numeric(kind: pa.DataType) -> bool:
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return number or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _without_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _first_true(mask: pa.ChunkedArray) -> int:
    """The first true row, counted from 1; 0 if there is none."""
    return pc.index(mask, True).as_py() + 1


def _first_failing(count: int, attempt: Callable[[int], object]) -> int:
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
