"""Reads the two tables every data set comes as, items and interactions, and checks them before anything uses them."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.table_sources import ID_COLUMNS, Origin, TableSource, first_failing, load_table
from recbase_hf.errors import DataError

if TYPE_CHECKING:
    import datasets

__all__ = ["checked_interactions", "checked_items", "read_interactions", "read_items"]

_NOUNS = {
    "user_id": "user|customer|reviewer|member|visitor|person|session",
    "item_id": "item|product|asin|sku|isbn|article|movie|book|track|song|game",
}
"""What other data sets call users and items, as a pattern."""


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
    table, origin = load_table(source, "items")
    table = checked_items(table, origin)
    if table.num_rows == 0:
        raise DataError(f"{origin.name}: the table has no rows; give at least one item")
    _require_unique(table, "item_id", origin)
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
    table, origin = load_table(source, "interactions")
    return _as_dataset(checked_interactions(table, origin))


def checked_items(table: pa.Table, origin: Origin) -> pa.Table:
    """A block of an item table with its ids as text, checked as `read_items` does, but for ids that come twice."""
    _require_columns(table, ["item_id"], origin)
    return _with_ids(table, "item_id", origin)


def checked_interactions(table: pa.Table, origin: Origin) -> pa.Table:
    """A block of a table of interactions in the form that `read_interactions` gives, checked as there."""
    _require_columns(table, ID_COLUMNS, origin)
    for name in ID_COLUMNS:
        table = _with_ids(table, name, origin)
    for name in ("order", "timestamp", "rating", "label"):
        if name in table.column_names:
            table = _with_numbers(table, name, origin)
    return table


def _as_dataset(table: pa.Table) -> datasets.Dataset:
    import datasets

    # Metadata of pandas or datasets would describe the columns as they were before the ids became text.
    return datasets.Dataset(table.replace_schema_metadata(None))


def _require_columns(table: pa.Table, names: Sequence[str], origin: Origin) -> None:
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
    likely = _likely_column(name, there)
    return f"; rename {likely!r} if that is it" if likely else ""


def _likely_column(name: str, there: Sequence[str]) -> str | None:
    """The column that holds the ids `name`, by what it is called; None where no column is called like ids."""
    (others,) = (nouns for id_column, nouns in _NOUNS.items() if id_column != name)
    there = [column for column in there if not re.search(others, column, re.IGNORECASE)]
    noun = rf"(?i:.*({_NOUNS[name]}))"
    patterns = (
        noun + r"s?[\W_]?(?i:id)",  # product_id
        "(?i:id)",
        noun,  # parent_asin
        r".*([\W_](?i:id)|[a-z]I[dD])",  # shop_id, shopId, but not paid
    )
    likely = [column for pattern in patterns for column in there if re.fullmatch(pattern, column)]
    return next(iter(likely or difflib.get_close_matches(name, there, n=1, cutoff=0.8)), None)


def _with_ids(table: pa.Table, name: str, origin: Origin) -> pa.Table:
    """Turn a column into large_string ids, none missing or empty."""
    column = _without_dictionary(table[name])
    if not (_is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        _raise_wrong_type(column, name, origin, f"text or whole numbers, not {column.type}")
    column = pc.cast(column, pa.large_string())
    empty = pc.fill_null(pc.equal(column, ""), True)
    if pc.any(empty).as_py():
        raise DataError(f"{origin.cell(_first_true(empty), name)}: the id is missing; fill it in or leave the row out")
    return table.set_column(table.column_names.index(name), name, column)


def _with_numbers(table: pa.Table, name: str, origin: Origin) -> pa.Table:
    column = _without_dictionary(table[name])
    if name == "timestamp":
        column = _seconds(column)
    if not (_is_text(column.type) or _is_numeric(column.type)):
        _raise_wrong_type(column, name, origin, f"numbers (times as seconds since 1970), not {column.type}")
    try:
        numbers = _numbers(column)
    except pa.ArrowInvalid as error:
        row = first_failing(len(column), lambda count: _numbers(column.slice(0, count)))
        raise DataError(
            f"{origin.cell(row, name)}: {column[row - 1].as_py()!r} is not a number; "
            "write plain numbers, and leave the cell empty where there is none"
        ) from error
    if name == "rating":
        numbers = pc.cast(numbers, pa.float64(), safe=False)
    if name == "label":
        _require_labels(numbers, origin)
        numbers = pc.cast(numbers, pa.int8())
    return table.set_column(table.column_names.index(name), name, numbers)


def _seconds(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates and times, also as ISO 8601 text, as seconds since 1970; those without a zone are read as UTC."""
    if _is_text(times.type):
        try:
            _numbers(times)
            return times
        except pa.ArrowInvalid:
            texts = pc.cast(times, pa.string())
            texts = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), pa.scalar(None, pa.string()), texts)
            try:
                times = pc.cast(texts, pa.timestamp("us"))
            except pa.ArrowInvalid:
                return times  # the reader of numbers says which cell it is
    if pa.types.is_timestamp(times.type) or pa.types.is_date(times.type):
        microseconds = pc.cast(pc.cast(times, pa.timestamp("us"), safe=False), pa.int64())
        return pc.divide(pc.cast(microseconds, pa.float64()), 1e6)
    return times


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


def _require_labels(labels: pa.ChunkedArray, origin: Origin) -> None:
    wrong = pc.fill_null(pc.and_(pc.not_equal(labels, 0), pc.not_equal(labels, 1)), False)
    if pc.any(wrong).as_py():
        row = _first_true(wrong)
        raise DataError(
            f"{origin.cell(row, 'label')}: {labels[row - 1].as_py()!r} is neither 0 nor 1; "
            "make labels 0 (no) or 1 (yes), and put graded feedback in the column 'rating'"
        )


def _require_unique(table: pa.Table, name: str, origin: Origin) -> None:
    codes = pc.dictionary_encode(table[name].combine_chunks()).indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    if len(first) < len(codes):
        row = int(np.setdiff1d(np.arange(len(codes)), first)[0])
        raise DataError(
            f"{origin.cell(row + 1, name)}: {table[name][row].as_py()!r} stands in row {first[codes[row]] + 1} "
            "already; remove one row or give it another id"
        )


def _raise_wrong_type(column: pa.ChunkedArray, name: str, origin: Origin, wanted: str) -> NoReturn:
    row = max(_first_true(pc.is_valid(column)), 1)
    value = column[row - 1].as_py() if len(column) else None
    raise DataError(f"{origin.cell(row, name)}: {value!r}, but the column must hold {wanted}; convert the column")


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
