"""Semantic IDs as the RecBase authors publish them: index files, which name items by their row.

One JSON object a file. Its keys are the rows of the item table, from "0". A value holds the codes of the item in one of
two forms: `offset`, `[139, 1321, 2914, 3078]`, where each number is code + 1 + codebook size x level, or `tokens`,
`["<a_138>", "<b_296>", "<c_865>", "<d_5>"]`. Item ids are not in it, so that it means nothing without its item table.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.table_sources import arrow_table, first_failing
from recbase_hf.data.tables import read_items
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file
from recbase_hf.modeling.token_layout import TokenLayout

__all__ = ["IndexForm", "checked_codes", "hash_of_codes", "read_codes", "write_index"]

IndexForm = Literal["offset", "tokens"]
_TOKEN = re.compile(r"<([a-z])_(0|[1-9][0-9]{0,17})>")


def read_codes(
    path: str | Path, item_ids: Sequence[str], *, codebook_size: int = 1024, first_key: int = 0
) -> np.ndarray:
    """Codes (items, levels) int64, from 0, of the items of a table.

    Args:
        path: a `.json` index file in either form (see the module), or a table (Parquet, CSV, ...) with the columns
            `item_id`, `c1`, `c2`, ... that hold the numbers of the form `offset`.
        item_ids: (items,) of the item table, in its rows.
        codebook_size: codes a level.
        first_key: key of the first row in an index file: 0, or 1 for files of an older converter. It is not guessed:
            a file that has lost its first row looks like one that counts from 1.

    Raises:
        ValueError: `first_key` is neither 0 nor 1.
        DataError: an item has no codes, codes belong to no item, or a code is out of range or of another level; the
            message names file and key or row.
        FileNotFoundError: there is no such file.
    """
    if first_key not in (0, 1):
        raise ValueError(f"first_key is {first_key}; it is the key of the first row, 0 or 1")
    path = Path(path)
    if path.suffix.lower() == ".json":
        return _read_index(path, item_ids, codebook_size, first_key)
    return _read_table(path, item_ids, codebook_size)


def write_index(codes: np.ndarray, path: str | Path, *, codebook_size: int = 1024, form: IndexForm = "offset") -> None:
    """Write (items, levels) codes, from 0, as an index file, whole or not at all.

    Raises:
        ValueError: the name does not end in .json, the form is unknown, there are more levels than letters, or as in
            `TokenLayout.codes_to_ids`.
    """
    if Path(path).suffix != ".json":
        raise ValueError(f"{path} is to be an index file, which is JSON; give it a name that ends in .json")
    if form not in get_args(IndexForm):
        raise ValueError(f"form is {form!r}; it must be one of {', '.join(get_args(IndexForm))}")
    codes = checked_codes(codes, len(codes), codebook_size=codebook_size)
    rows: list[list[Any]] = _layout(codes, codebook_size).codes_to_ids(codes).tolist()
    if form == "tokens":
        if codes.shape[1] > len(ascii_lowercase):
            raise ValueError(f"{codes.shape[1]} levels are more than there are letters; write the form offset")
        rows = [[f"<{letter}_{code}>" for letter, code in zip(ascii_lowercase, row, strict=False)] for row in codes]
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps({str(row): values for row, values in enumerate(rows)}), encoding="utf-8")


def checked_codes(codes: Any, num_items: int, *, codebook_size: int) -> np.ndarray:
    """The codes as (items, levels) int64.

    Raises:
        DataError: another number of items, no whole numbers, or a code out of range.
    """
    try:
        codes = np.asarray(codes)
        if codes.ndim != 2 or len(codes) != num_items or not codes.size:
            raise ValueError(
                f"the codes have shape {codes.shape}; give one row for each of {num_items} items, one column a level"
            )
        return _layout(codes, codebook_size).checked(codes)
    except ValueError as error:
        raise DataError(str(error)) from None


def hash_of_codes(codes: np.ndarray, codebook_size: int) -> str:
    """Sixteen hexadecimal digits that stand for (items, levels) codes."""
    digest = hashlib.sha256(f"{codebook_size} {codes.shape}".encode())
    digest.update(np.ascontiguousarray(codes, dtype="<i8").ravel().data)
    return digest.hexdigest()[:16]


def _layout(codes: np.ndarray, codebook_size: int) -> TokenLayout:
    return TokenLayout(codes.shape[1], codebook_size)


# ---- JSON ----------------------------------------------------------------------------------------------------------


def _read_index(path: Path, item_ids: Sequence[str], codebook_size: int, first_key: int) -> np.ndarray:
    content = _load(path)
    keys = _keys_of_rows(path, content, item_ids, first_key)
    values = [content[key] for key in keys]
    is_tokens = _is_tokens(path, keys, values)
    num_levels = len(values[0])
    for key, value in zip(keys, values, strict=True):
        if len(value) != num_levels:
            raise DataError(
                f"{path}, key {key!r}: {len(value)} codes where key {keys[0]!r} has {num_levels}; every item has one "
                "code a level"
            )
    numbers = [_codes_of_tokens(path, *pair) for pair in zip(keys, values, strict=True)] if is_tokens else values
    first = 0 if is_tokens else 1 + codebook_size * np.arange(num_levels)
    return _in_range(
        np.array(numbers, dtype=object) - first,  # a number may be too large for an int64
        codebook_size,
        place=lambda row: f"{path}, key {keys[row]!r}",
        shown=lambda row, level: values[row][level],
    )


def _load(path: Path) -> dict[str, Any]:
    repeated: list[str] = []

    def note_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=note_repeated)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({str(error)[:200]}); make or download it again") from error
    if repeated:
        raise DataError(f"{path}, key {repeated[0]!r}: it comes twice; keep one")
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}; an index file is one object, {{row: codes}}")
    return content


def _keys_of_rows(path: Path, content: dict[str, Any], item_ids: Sequence[str], first_key: int) -> list[str]:
    """The key of each row of the item table."""
    count = len(item_ids)
    keys = [str(row + first_key) for row in range(count)]
    if first_key == 0 and content.keys() == {str(row + 1) for row in range(count)}:
        raise DataError(
            f"{path}: the keys are '1' to '{count}', where the rows of {count} items are '0' to '{count - 1}'. Either "
            "the file counts from 1: then say first_key=1 (--first-key 1). Or it has lost row 0 of "
            f"{count + 1} items: then give the whole file and the item table that it was made for"
        )
    missing = [row for row, key in enumerate(keys) if key not in content]
    unknown = sorted(content.keys() - set(keys))
    if unknown:
        number = "" if unknown[0].isdecimal() else ", and no row number"
        raise DataError(
            f"{path}, key {unknown[0]!r}: there is no such row in the item table, which has {count}{number}; index "
            "files number the rows of the table that they were made for: give that table"
        )
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {count} rows are missing, the first is key {keys[missing[0]]!r} (item_id "
            f"{item_ids[missing[0]]!r}); give the item table that the file was made for"
        )
    return keys


def _is_tokens(path: Path, keys: list[str], values: list[Any]) -> bool:
    kind_of_first = None
    for key, value in zip(keys, values, strict=True):
        kinds = set(map(type, value)) if isinstance(value, list) else set()
        if kinds not in ({int}, {str}):
            raise DataError(
                f"{path}, key {key!r}: {str(value)[:80]} is neither a list of whole numbers nor one of tokens such as "
                "<a_12>"
            )
        kind_of_first = kind_of_first or kinds
        if kinds != kind_of_first:
            raise DataError(
                f"{path}, key {key!r}: the file holds both forms, whole numbers and tokens; write it in one"
            )
    return kind_of_first == {str}


def _codes_of_tokens(path: Path, key: str, tokens: list[str]) -> list[int]:
    codes = []
    for level, token in enumerate(tokens):
        match = _TOKEN.fullmatch(token)
        letter = ascii_lowercase[level] if level < len(ascii_lowercase) else "?"
        if match is None or match[1] != letter:
            raise DataError(f"{path}, key {key!r}: token {token!r} at level {level + 1} must read <{letter}_NUMBER>")
        codes.append(int(match[2]))
    return codes


# ---- tables --------------------------------------------------------------------------------------------------------


def _read_table(path: Path, item_ids: Sequence[str], codebook_size: int) -> np.ndarray:
    table = arrow_table(read_items(path))
    names = [f"c{level + 1}" for level in range(table.num_columns)]
    names = [name for name in names if name in table.column_names]
    if names != [f"c{level + 1}" for level in range(len(names))] or not names:
        raise DataError(f"{path}: the columns are {table.column_names}; codes stand in c1, c2, ... without a gap")
    numbers = np.stack([_whole_numbers(table[name], path, name) for name in names], axis=1)
    there = table["item_id"].to_pylist()
    codes = _in_range(
        numbers - 1 - codebook_size * np.arange(len(names)),
        codebook_size,
        place=lambda row: f"{path}, row {row + 1} (item_id {there[row]!r})",
        shown=lambda row, level: int(numbers[row, level]),
    )
    return codes[_rows_of(path, there, item_ids)]


def _whole_numbers(column: pa.ChunkedArray, path: Path, name: str) -> np.ndarray:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise DataError(f"{path}, row {row + 1}, column {name!r}: the code is missing; fill it in")
    try:
        return pc.cast(column, pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = first_failing(len(column), lambda count: pc.cast(column.slice(0, count), pa.int64()))
        raise DataError(
            f"{path}, row {row}, column {name!r}: {column[row - 1].as_py()!r} is not a whole number"
        ) from None


def _rows_of(path: Path, there: list[str], item_ids: Sequence[str]) -> np.ndarray:
    row_of_id = {item_id: row for row, item_id in enumerate(there)}
    missing = [item_id for item_id in item_ids if item_id not in row_of_id]
    unknown = sorted(row_of_id.keys() - set(item_ids), key=row_of_id.__getitem__)
    if missing:
        raise DataError(f"{path}: {len(missing)} of {len(item_ids)} items are missing, the first is {missing[0]!r}")
    if unknown:
        raise DataError(
            f"{path}, row {row_of_id[unknown[0]] + 1}: item_id {unknown[0]!r} is not in the item table; leave it out"
        )
    return np.array([row_of_id[item_id] for item_id in item_ids], dtype=np.int64)


def _in_range(codes: np.ndarray, codebook_size: int, *, place: Any, shown: Any) -> np.ndarray:
    wrong = np.argwhere(((codes < 0) | (codes >= codebook_size)).astype(bool))
    if len(wrong):
        row, level = wrong[0].tolist()
        raise DataError(
            f"{place(row)}: {shown(row, level)!r} at level {level + 1} is code {codes[row, level]}, not between 0 and "
            f"{codebook_size - 1}; is the codebook size right?"
        )
    return codes.astype(np.int64)
