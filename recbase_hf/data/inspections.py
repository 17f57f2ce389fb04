"""What is looked for in anybody's tables: inspections, which see a table block by block and keep little of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.id_index import IdIndex
from recbase_hf.data.prepare.columns import explode

__all__ = ["Block", "Finding", "Impressions", "Inspection", "ItemIds", "ItemTexts", "Tally", "true_rows"]


@dataclass(frozen=True)
class Finding:
    """One thing about the tables.

    Attributes:
        level: `error` stops training and evaluation, `warning` loses something, `note` is worth knowing.
        message: what, where, and the fix.
    """

    level: Literal["error", "warning", "note"]
    message: str


class Block(NamedTuple):
    """Some rows of a table.

    `raw`: as they stand in the file. `table`: the columns that could be read, in the form of `read_items` and
    `read_interactions`. `before`: how many rows come before them.
    """

    raw: pa.Table
    table: pa.Table
    before: int


class Inspection(ABC):
    """Looks for one kind of thing.

    Attributes:
        table: what messages call the table.
        needs: columns without which there is nothing to look at.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, table: str) -> None:
        self.table = table
        self.rows = 0

    def see(self, block: Block) -> None:
        """The next rows."""
        self.rows += block.raw.num_rows
        self.look(block)

    @abstractmethod
    def look(self, block: Block) -> None:
        """What `see` does with the rows beside counting them."""

    @abstractmethod
    def findings(self) -> Iterator[Finding]:
        """After all rows."""


class Tally:
    """How many cells are concerned, and the first of them."""

    def __init__(self, table: str, column: str) -> None:
        self.table, self.column = table, column
        self.count, self.row, self.value = 0, 0, None

    def add(self, concerned: np.ndarray, values: Any, before: int, rows: np.ndarray | None = None) -> None:
        """Cells of a block, or elements of its lists: (cells,) bool, what stands in them, and maybe in which rows."""
        cells = np.flatnonzero(concerned)
        if len(cells) and not self.count:
            first = int(cells[0])
            self.row, self.value = before + int(first if rows is None else rows[first]) + 1, values[first].as_py()
        self.count += len(cells)

    @property
    def place(self) -> str:
        """Of the first."""
        return f"{self.table}, row {self.row}, column {self.column!r}"

    @property
    def others(self) -> str:
        """How many more there are, for a message."""
        return f" (so are {self.count - 1:,} other rows)" if self.count > 1 else ""


# Items


class ItemIds(Inspection):
    """Ids that come twice. Keeps all ids."""

    needs = ("item_id",)

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self._blocks: list[pa.Array] = []

    def look(self, block: Block) -> None:
        self._blocks += block.table["item_id"].chunks

    @cached_property
    def index(self) -> IdIndex:
        """Of all ids."""
        ids = pa.chunked_array(self._blocks, pa.large_string())
        self._blocks = []
        return IdIndex(ids)

    def findings(self) -> Iterator[Finding]:
        first = self.index.find(self.index.ids)
        repeated = np.flatnonzero(first != np.arange(len(first)))
        if len(repeated):
            row = int(repeated[0])
            yield Finding(
                "error",
                f"{self.table}, row {row + 1}, column 'item_id': {self.index.ids[row].as_py()!r} stands in row "
                f"{first[row] + 1} already ({len(repeated):,} rows repeat an id); remove one row or give it another id",
            )


class ItemTexts(Inspection):
    """Items without any text."""

    def __init__(self, table: str, columns: list[str]) -> None:
        super().__init__(table)
        self._columns = columns
        self._empty = Tally(table, ", ".join(columns))

    def look(self, block: Block) -> None:
        has_text = np.zeros(block.raw.num_rows, bool)
        for name in self._columns:
            has_text |= _has_text(block.raw[name])
        self._empty.add(~has_text, block.raw["item_id"], block.before)

    def findings(self) -> Iterator[Finding]:
        if not self._columns:
            yield Finding("warning", f"{self.table}: no column of texts; items are told apart by their texts, add some")
        elif self._empty.count:
            yield Finding(
                "error",
                f"{self._empty.place}: item {self._empty.value!r} has no text, like {self._empty.count - 1:,} others "
                f"of {self.rows:,}; give it one, or leave it out: a model takes all items without a text for the same",
            )


def _has_text(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        each = explode(column)
        return np.bincount(each.rows[_has_text(each.values)], minlength=len(column)) > 0
    return true_rows(pc.not_equal(pc.utf8_trim_whitespace(column), ""))


# Impressions


class Impressions(Inspection):
    """Unknown items, labels that do not go with the candidates, and impressions without anything liked."""

    def __init__(self, table: str, items: IdIndex | None) -> None:
        super().__init__(table)
        self._items = items
        self._unknown = {name: Tally(table, name) for name in ("history", "candidates")}
        self._wrong, self._lengths, self._none_liked = (Tally(table, "labels") for _ in range(3))

    def look(self, block: Block) -> None:
        lists = {name: explode(block.raw[name]) for name in ("history", "candidates", "labels")}
        if self._items is not None:
            for name, tally in self._unknown.items():
                unknown = self._items.find(lists[name].values) < 0
                tally.add(unknown, lists[name].values, block.before, lists[name].rows)
        labels, each = block.raw["labels"], lists["labels"]
        numbers = pc.cast(each.values, pa.float64()).to_numpy(zero_copy_only=False)
        self._wrong.add((numbers != 0) & (numbers != 1), each.values, block.before, each.rows)
        lengths, shown, liked = (
            np.bincount(rows, minlength=len(labels))
            for rows in (each.rows, lists["candidates"].rows, each.rows[numbers == 1])
        )
        self._lengths.add(lengths != shown, labels, block.before)
        self._none_liked.add(liked == 0, labels, block.before)

    def findings(self) -> Iterator[Finding]:
        for name, tally in self._unknown.items():
            if tally.count:
                yield Finding(
                    "error",
                    f"{tally.place}: item {tally.value!r} is not in the item table, nor are {tally.count - 1:,} others "
                    f"of {name}; add the items, or leave them out",
                )
        if self._lengths.count:
            yield Finding(
                "error",
                f"{self._lengths.place}: not one label for each candidate{self._lengths.others}; write 1 for each that "
                "was chosen and 0 for the others",
            )
        if self._wrong.count:
            yield Finding(
                "error",
                f"{self._wrong.place}: {self._wrong.value!r} is neither 0 nor 1, as {self._wrong.count - 1:,} others; "
                "write 1 for what was chosen and 0 for the rest",
            )
        if self._none_liked.count:
            everywhere = self._none_liked.count == self.rows
            yield Finding(
                "error" if everywhere else "warning",
                f"{self._none_liked.place}: no candidate has the label 1{self._none_liked.others}; such impressions "
                f"cannot be evaluated{'' if everywhere else ', leave them out'}",
            )


def true_rows(mask: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A mask, (rows,) bool; where it is missing, it does not hold."""
    return pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
