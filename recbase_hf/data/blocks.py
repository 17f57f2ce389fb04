"""Reads tables that no memory holds: block by block, each checked like a whole table, and a hash over all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbase_hf.data.id_index import hash_texts, mix
from recbase_hf.data.table_sources import Origin, TableSource, find_table, load_table
from recbase_hf.data.tables import checked_interactions, checked_items
from recbase_hf.errors import DataError

__all__ = [
    "ROWS_A_BLOCK",
    "TableBlocks",
    "TimeColumn",
    "hash_of_items",
    "hash_of_tables",
    "interaction_blocks",
    "item_blocks",
    "time_column",
]

TimeColumn: TypeAlias = Literal["order", "timestamp", "table", "unknown"]

ROWS_A_BLOCK = 1 << 21
"""Rows that are in memory together, at least one row group of a Parquet file."""


@dataclass(frozen=True)
class TableBlocks:
    """A table in blocks of rows.

    Attributes:
        name: what error messages call it.
        ranges: the rows of each block.
        column_names: of the table.
        read: from the number of a block, and maybe the columns that are wanted, to the block.
    """

    name: str
    ranges: list[range]
    column_names: list[str]
    read: Callable[..., pa.Table]

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.ranges)

    def __iter__(self) -> Iterator[pa.Table]:
        return (self.read(block) for block in range(len(self)))

    @property
    def num_rows(self) -> int:
        """Of all blocks."""
        return self.ranges[-1].stop if self.ranges else 0


def item_blocks(source: TableSource) -> TableBlocks:
    """The blocks of an item table, from what `read_items` reads; ids that come twice are not noticed.

    Only a Parquet file is read in bounded memory; other sources are in memory as a whole.

    >>> [len(block) for block in item_blocks([{"item_id": "a"}, {"item_id": "b"}])]
    [2]
    """
    return _blocks(source, "items", checked_items)


def interaction_blocks(source: TableSource) -> TableBlocks:
    """The blocks of a table of interactions, from what `read_interactions` reads."""
    return _blocks(source, "interactions", checked_interactions)


def _blocks(source: TableSource, stem: str, check: Callable[[pa.Table, Origin], pa.Table]) -> TableBlocks:
    path = find_table(source, stem)
    if path is None or path.suffix.lower() != ".parquet":
        table, origin = load_table(source, stem)
        table = check(table, origin)
        ranges = _ranges([len(table)] if len(table) else [])

        def read(block: int, columns: list[str] | None = None) -> pa.Table:
            rows = ranges[block]
            part = table.slice(rows.start, len(rows))
            return part if columns is None else part.select(columns)

        return TableBlocks(origin.name, ranges, table.column_names, read)

    try:
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            there = file.schema_arrow.names
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no whole Parquet file ({error}); it may be truncated: make it again") from error
    check(pa.table({name: pa.array([], pa.string()) for name in there}), Origin(str(path), path))  # of the columns
    groups = _grouped(sizes)
    ranges = _ranges([sum(sizes[group] for group in members) for members in groups])

    def read_groups(block: int, columns: list[str] | None = None) -> pa.Table:
        try:
            with pq.ParquetFile(path) as file:
                table = file.read_row_groups(groups[block], columns=columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(
                f"{path}, rows {ranges[block].start + 1} to {ranges[block].stop}: damaged ({str(error)[:100]}); make "
                "it again"
            ) from error
        return check(table.replace_schema_metadata(None), Origin(str(path), path, ranges[block].start))

    return TableBlocks(str(path), ranges, there, read_groups)


def _grouped(sizes: list[int]) -> list[list[int]]:
    """Row groups together, so that a block has about `ROWS_A_BLOCK` rows."""
    blocks: list[list[int]] = []
    room = 0
    for group, size in enumerate(sizes):
        if size > room or not blocks:
            blocks.append([])
            room = ROWS_A_BLOCK
        blocks[-1].append(group)
        room -= size
    return blocks


def _ranges(sizes: list[int]) -> list[range]:
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def time_column(interactions: TableBlocks) -> TimeColumn:
    """What tells the order of events: the first of `order` and `timestamp` that is not all missing.

    `table` stands for the order of the rows, where there is no such column; `unknown`, where all of it is missing.
    """
    names = [name for name in ("order", "timestamp") if name in interactions.column_names]
    filled = dict.fromkeys(names, False)
    for block in range(len(interactions)):
        if names and not filled[names[0]]:
            table = interactions.read(block, ["user_id", "item_id", *names])
            for name in names:
                filled[name] |= table[name].null_count < table.num_rows
    return next((name for name in names if filled[name]), "unknown" if names else "table")


# ---- what stands for the content -------------------------------------------------------------------------------------


def hash_of_tables(items: TableSource, interactions: TableSource | None = None) -> str:
    """Sixteen hexadecimal digits that stand for all that the two tables, or the items alone, hold, in row order.

    The same content gives the same digits whatever file format it was read from. Columns of nothing but missing values
    count as absent.
    """
    digest = hashlib.sha256()
    tables = [item_blocks(items), *([] if interactions is None else [interaction_blocks(interactions)])]
    for table in tables:
        columns: dict[str, _ColumnDigest] = {}
        for block in table:
            for name in block.column_names:
                columns.setdefault(name, _ColumnDigest()).update(block[name])
        for name in sorted(columns):
            if columns[name].any_value:
                digest.update(f"column {name} ".encode() + columns[name].digest())
    return digest.hexdigest()[:16]


def hash_of_items(items: TableSource) -> str:
    """Sixteen hexadecimal digits that stand for the items that a table is of, by their ids alone.

    So it is told again in another order, with other columns, or beside other interactions.

    >>> items = [{"item_id": "a"}, {"item_id": "b"}]
    >>> hash_of_items(items) == hash_of_items(items[::-1])
    True
    """
    count, total, mixed = 0, np.uint64(0), np.uint64(0)
    for block in item_blocks(items):
        numbers = hash_texts(block["item_id"])
        count += len(numbers)
        with np.errstate(over="ignore"):
            total += mix(numbers).sum(dtype=np.uint64)
        mixed ^= np.bitwise_xor.reduce(numbers)
    return hashlib.sha256(f"{count} {total} {mixed}".encode()).hexdigest()[:16]


class _ColumnDigest:
    """Of the values of a column, the same for every width of number or text that holds them, and for any blocks."""

    def __init__(self) -> None:
        self._parts = [hashlib.sha256() for _ in range(3)]
        self.any_value = False

    def update(self, column: pa.ChunkedArray) -> None:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        self.any_value |= column.null_count < len(column)
        for values in column.chunks:
            texts = pc.fill_null(_as_text(values), "")
            present, lengths, content = self._parts
            present.update(pc.is_valid(values).to_numpy(zero_copy_only=False).tobytes())
            lengths.update(pc.binary_length(texts).to_numpy().astype("<i8").tobytes())
            if len(texts):
                _, offsets, data = texts.buffers()
                ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
                if data is not None:
                    content.update(memoryview(data)[int(ends[0]) : int(ends[-1])])

    def digest(self) -> bytes:
        return b"".join(part.digest() for part in self._parts)


def _as_text(values: pa.Array) -> pa.Array:
    """Values as large_string; a whole number is written alike whether it is an integer or not."""
    kind = values.type
    if pa.types.is_floating(kind):
        with suppress(pa.ArrowInvalid):  # all of them are whole, as where the column is read from a text file
            return pc.cast(pc.cast(values, pa.int64()), pa.large_string())
        whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**53))
        integers = pc.cast(pc.if_else(whole, values, pa.scalar(0.0, kind)), pa.int64(), safe=False)
        return pc.if_else(whole, pc.cast(integers, pa.large_string()), pc.cast(values, pa.large_string()))
    try:
        return pc.cast(values, pa.large_string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        texts: list[Any] = [
            None if value is None else json.dumps(value, ensure_ascii=False, default=str)
            for value in values.to_pylist()
        ]
        return pa.array(texts, pa.large_string())
