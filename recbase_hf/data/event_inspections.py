"""What is looked for in interactions: unknown items, times that cannot be, repeated rows, users of one event."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.id_index import IdIndex, hash_texts, mix
from recbase_hf.data.inspections import Block, Finding, Inspection, Tally, true_rows

__all__ = ["KnownItems", "Labels", "Order", "Repeats", "Times", "Users"]

_LISTED = 20
"""Unknown items that are named."""

_UNITS = (("seconds", 1e11), ("milliseconds", 1e14), ("microseconds", 1e17), ("nanoseconds", np.inf))
"""What a time counts is told by its size: below 1e11 seconds, until the year 5138; else milliseconds, and so on."""

_FAR_FUTURE = 4_102_444_800
"""The year 2100, in seconds since 1970."""


class KnownItems(Inspection):
    """Items that the item table lacks, and those that nobody has."""

    needs = ("item_id",)

    def __init__(self, table: str, items: IdIndex) -> None:
        super().__init__(table)
        self._items = items
        self._used = np.zeros(len(items), bool)
        self._unknown = Tally(table, "item_id")
        self._listed: dict[str, None] = {}
        self._hashes: list[np.ndarray] = []

    def look(self, block: Block) -> None:
        ids = block.table["item_id"]
        rows = self._items.find(ids)
        unknown = rows < 0
        self._used[rows[~unknown]] = True
        self._unknown.add(unknown, ids, block.before)
        lost = ids.filter(pa.array(unknown))
        if len(lost):
            self._hashes.append(np.unique(hash_texts(lost)))
            if len(self._listed) < _LISTED:
                self._listed |= dict.fromkeys(pc.unique(lost).to_pylist())

    def findings(self) -> Iterator[Finding]:
        if self._unknown.count:
            distinct = len(np.unique(np.concatenate(self._hashes)))
            listed = ", ".join(map(repr, list(self._listed)[:_LISTED])) + (", ..." if distinct > _LISTED else "")
            yield Finding(
                "error",
                f"{self._unknown.place}: item {self._unknown.value!r} is not in the item table, nor are those of "
                f"{self._unknown.count - 1:,} other rows ({distinct:,} items: {listed}); add the items, or leave these "
                "rows out",
            )
        unused = len(self._used) - int(self._used.sum())
        if unused:
            yield Finding(
                "note", f"{unused:,} of {len(self._used):,} items have no interaction; they can be recommended"
            )


class Times(Inspection):
    """Times before 1970, of several units, far in the future, not finite, or with fractions."""

    needs = ("timestamp",)

    def __init__(self, table: str) -> None:
        super().__init__(table)
        kinds = ("negative", "NaN", "infinite", "fraction", "future")
        self._tallies = {kind: Tally(table, "timestamp") for kind in kinds}
        self._units = {unit: Tally(table, "timestamp") for unit, _ in _UNITS}

    def look(self, block: Block) -> None:
        times = block.table["timestamp"]
        numbers = times.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # missing ones are NaN
        self._tally("NaN", _nan(block.raw["timestamp"], times), block)
        self._tally("negative", numbers < 0, block)
        self._tally("infinite", np.isinf(numbers), block)
        if pa.types.is_floating(times.type):
            self._tally("fraction", np.isfinite(numbers) & (numbers != np.floor(numbers)), block)
        smallest, scale = 0.0, 1.0
        for unit, largest in _UNITS:
            of_unit = (numbers >= smallest) & (numbers < largest)
            self._units[unit].add(of_unit, block.raw["timestamp"], block.before)
            self._tally("future", of_unit & (numbers / scale > _FAR_FUTURE), block)
            smallest, scale = largest, scale * 1000

    def _tally(self, kind: str, concerned: np.ndarray, block: Block) -> None:
        self._tallies[kind].add(concerned, block.raw["timestamp"], block.before)

    def findings(self) -> Iterator[Finding]:
        negative, nan, infinite, fraction, future = self._tallies.values()
        if negative.count:
            yield Finding(
                "error",
                f"{negative.place}: {negative.value} is before 1970{negative.others}; write seconds since 1970, or "
                "leave it empty",
            )
        if infinite.count:
            yield Finding("error", f"{infinite.place}: {infinite.value} is no time{infinite.others}; leave it empty")
        units = [unit for unit, tally in self._units.items() if tally.count]
        if len(units) > 1:
            coarse, fine = (self._units[unit] for unit in units[:2])
            yield Finding(
                "error",
                f"{fine.place}: {fine.value} looks like {units[1]} ({fine.count:,} rows do), but {coarse.value} in row "
                f"{coarse.row} like {units[0]} ({coarse.count:,} rows); use one unit, or histories come out of order",
            )
        elif units and units != ["seconds"]:
            yield Finding("note", f"the timestamps look like {units[0]}; only their order is used, so that is fine")
        if future.count and len(units) == 1:
            yield Finding(
                "warning",
                f"{future.place}: {future.value} is after the year 2100{future.others}; correct it, or leave it empty: "
                "it comes last in its user's history",
            )
        if nan.count:
            yield Finding(
                "warning", f"{nan.place}: NaN counts as missing{nan.others}; write the time, or leave the cell empty"
            )
        if fraction.count:
            yield Finding(
                "note",
                f"{fraction.place}: {fraction.value} has a fraction{fraction.others}; only the order of times is used, "
                "so that is fine",
            )


class Order(Inspection):
    """Events without a place in time."""

    def __init__(self, table: str, columns: list[str]) -> None:
        super().__init__(table)
        self._missing = {name: Tally(table, name) for name in ("order", "timestamp") if name in columns}

    def look(self, block: Block) -> None:
        for name, missing in self._missing.items():
            if name in block.table.column_names:
                column = block.table[name]
                missing.add(true_rows(pc.is_null(column)), column, block.before)

    def findings(self) -> Iterator[Finding]:
        if not self._missing:
            yield Finding("note", "there is neither `timestamp` nor `order`; the order of the rows counts as history")
            return
        used = next((name for name, missing in self._missing.items() if missing.count < self.rows), None)
        name = used or list(self._missing)[-1]
        missing = self._missing[name]
        if missing.count:
            yield Finding(
                "warning",
                f"{missing.place}: {missing.count:,} of {self.rows:,} interactions have no {name}; fill it in, or give "
                "other commands --unordered-events drop",
            )


class Repeats(Inspection):
    """Rows that say the same. Keeps eight bytes of each: two rows that differ could be taken for the same, which among
    35 million happens once in 30,000 tables."""

    def __init__(self, table: str, columns: list[str]) -> None:
        super().__init__(table)
        self.needs = tuple(name for name in ("user_id", "item_id", "timestamp", "order") if name in columns)
        self._hashes: list[np.ndarray] = []

    def look(self, block: Block) -> None:
        hashes = np.zeros(block.table.num_rows, np.uint64)
        for name in self.needs:
            hashes = mix(hashes ^ _hashes(block.table[name]))
        self._hashes.append(hashes)

    def findings(self) -> Iterator[Finding]:
        hashes = _joined(self._hashes)
        ascending = np.sort(hashes)
        repeated = ascending[1:][ascending[1:] == ascending[:-1]]
        if len(repeated):
            first, second, *_ = np.flatnonzero(hashes == repeated[0]).tolist()
            yield Finding(
                "warning",
                f"{self.table}: {len(repeated):,} of {self.rows:,} interactions repeat another one in "
                f"{', '.join(self.needs)}, such as row {second + 1} row {first + 1}; drop them if they are no events "
                "of their own",
            )


class Users(Inspection):
    """Users of a single interaction. Keeps eight bytes of a row."""

    needs = ("user_id",)

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self._hashes: list[np.ndarray] = []

    def look(self, block: Block) -> None:
        self._hashes.append(hash_texts(block.table["user_id"]))

    def findings(self) -> Iterator[Finding]:
        hashes = _joined(self._hashes)
        _, counts = np.unique(hashes, return_counts=True)
        single = int(np.count_nonzero(counts == 1))
        if single:
            yield Finding(
                "note", f"{single:,} of {len(counts):,} users have a single interaction and are never evaluated"
            )


class Labels(Inspection):
    """Whether anything was liked."""

    needs = ("label",)

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self._any_liked = False

    def look(self, block: Block) -> None:
        self._any_liked |= bool(true_rows(pc.fill_null(pc.equal(block.table["label"], 1), True)).any())

    def findings(self) -> Iterator[Finding]:
        if not self._any_liked:
            yield Finding("error", "no interaction has the label 1; 1 is liked, 0 is not, empty counts as liked")


def _nan(raw: pa.ChunkedArray, read: pa.ChunkedArray) -> np.ndarray:
    """Cells that hold something which is read as missing; that is NaN, as a number or in letters."""
    there = pc.is_valid(raw)
    if pa.types.is_string(raw.type) or pa.types.is_large_string(raw.type):
        there = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(raw), ""), False)
    return true_rows(pc.and_(there, pc.is_null(read)))


def _hashes(column: pa.ChunkedArray) -> np.ndarray:
    """(rows,) uint64: the same for whole numbers of either type, for one block may have fractions and another none."""
    if pa.types.is_large_string(column.type):
        return hash_texts(column)
    if pa.types.is_integer(column.type):
        numbers = pc.fill_null(column, 0).to_numpy().view(np.uint64)
    else:
        numbers = pc.fill_null(column, 0).to_numpy()
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**53)
        numbers = np.where(whole, np.where(whole, numbers, 0).astype(np.int64).view(np.uint64), numbers.view(np.uint64))
    return mix(numbers ^ mix(true_rows(pc.is_null(column)).astype(np.uint64)))


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate([np.empty(0, np.uint64), *blocks])
    blocks.clear()
    return joined
