"""Cells of a delimited file as ids, numbers, labels and times, block by block; errors name the row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import UnixSeconds, one_array
from recbase_hf.data.table_sources import first_failing
from recbase_hf.errors import DataError

__all__ = ["CellKind", "CellReader"]

CellKind = Literal["id", "time", "place", "rating", "label"]

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


class CellReader:
    """Reads one column of a file.

    Args:
        place: the file and column, for errors.
        kind: `id` is text (string) and never empty. Of the others empty cells are missing: `time` is seconds since 1970
            (float64) from numbers, seconds or milliseconds, or from ISO 8601, UTC without a zone, one of these in all
            of the file; `place` is a whole number (int64), `rating` any number (float64), `label` 0 or 1 (int8).

    >>> reader = CellReader("log.csv, column 'when'", "time")
    >>> reader.read(pa.array(["2024-01-02", "", "2024-01-02T00:00:01+01:00"])).to_pylist()
    [1704153600.0, None, 1704150001.0]
    """

    def __init__(self, place: str, kind: CellKind) -> None:
        self._place = place
        self._rows = self._last = 0
        self._first_time: tuple[int, bool] | None = None
        self._seconds = UnixSeconds(place)
        readers: dict[CellKind, Callable[[pa.Array], pa.Array]] = {
            "id": self._ids,
            "time": self._times,
            "place": self._places,
            "rating": self._numbers,
            "label": self._labels,
        }
        self._read = readers[kind]

    def read(self, cells: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The next rows.

        Raises:
            DataError: a cell cannot be read; says which.
        """
        values = self._read(one_array(cells))
        self._rows += len(values)
        self._last = len(values)
        return values

    def place_of(self, row: int) -> str:
        """File, column and row of a cell that was read last, counted from 0."""
        return f"{self._place}, row {self._rows - self._last + row + 1}"

    def _ids(self, cells: pa.Array) -> pa.Array:
        row = pc.index(pc.is_valid(_trimmed(cells)), False).as_py()
        if row >= 0:
            raise DataError(f"{self._at(row)}: the id is missing; fill it in or leave the row out")
        return cells

    def _numbers(self, cells: pa.Array) -> pa.Array:
        texts = _trimmed(cells)
        self._require(pc.match_substring_regex(texts, _NUMBER), cells, "is no number; write one, or empty the cell")
        return pc.cast(texts, pa.float64())

    def _places(self, cells: pa.Array) -> pa.Array:
        with suppress(pa.ArrowInvalid):
            return pc.cast(_trimmed(cells), pa.int64())
        numbers = self._numbers(cells)  # 1.0, or 1e3
        self._require(pc.equal(numbers, pc.floor(numbers)), cells, "is no whole number; write one, or empty the cell")
        return pc.cast(numbers, pa.int64())

    def _labels(self, cells: pa.Array) -> pa.Array:
        numbers = self._numbers(cells)
        is_label = pc.or_(pc.equal(numbers, 0), pc.equal(numbers, 1))
        self._require(is_label, cells, "is neither 0 nor 1; graded feedback belongs into the rating")
        return pc.cast(numbers, pa.int8())

    def _times(self, cells: pa.Array) -> pa.Array:
        texts = _trimmed(cells)
        is_number = pc.match_substring_regex(texts, _NUMBER)
        first = pc.index(pc.is_valid(texts), True).as_py()
        if self._first_time is None and first >= 0:
            self._first_time = (self._rows + first + 1, is_number[first].as_py())
        if self._first_time is None:
            return self._seconds.of(pc.cast(texts, pa.float64()))
        row, numbers = self._first_time
        self._require(
            pc.equal(is_number, numbers),
            cells,
            f"is {'no number' if numbers else 'a number'}, unlike the time in row {row}; write all times alike, as "
            "seconds or milliseconds since 1970 or as ISO 8601",
        )
        return self._seconds.of(pc.cast(texts, pa.float64())) if numbers else self._dates(texts)

    def _dates(self, texts: pa.Array) -> pa.Array:
        is_day = pc.match_substring_regex(texts, r"^\d{4}-\d\d-\d\d$")
        dates = pc.if_else(is_day, pc.binary_join_element_wise(texts, "T00:00:00", ""), texts)
        has_zone = pc.match_substring_regex(dates, r":\d\d.*(Z|[+-]\d\d(:?\d\d)?)$")
        dates = pc.if_else(has_zone, dates, pc.binary_join_element_wise(dates, "Z", ""))
        dates = pc.replace_substring_regex(dates, r"(\.\d{6})\d+", r"\1")
        kind = pa.timestamp("us", "UTC")
        try:
            microseconds = pc.cast(pc.cast(dates, kind), pa.int64())
        except pa.ArrowInvalid as error:
            row = first_failing(len(dates), lambda count: pc.cast(dates.slice(0, count), kind))
            raise DataError(
                f"{self._at(row - 1)}: {texts[row - 1].as_py()!r} is no time; write numbers since 1970, or ISO 8601, "
                "such as 2024-01-31 or 2024-01-31T12:00:00Z"
            ) from error
        return pc.divide(pc.cast(microseconds, pa.float64()), 1e6)

    def _require(self, holds: pa.Array, cells: pa.Array, otherwise: str) -> None:
        """Of cells that are not missing."""
        row = pc.index(holds, False).as_py()
        if row >= 0:
            raise DataError(f"{self._at(row)}: {cells[row].as_py()!r} {otherwise}")

    def _at(self, row: int) -> str:
        return f"{self._place}, row {self._rows + row + 1}"


def _trimmed(cells: pa.Array) -> pa.Array:
    """Without white space around them; what is empty then is missing."""
    texts = pc.utf8_trim_whitespace(pc.cast(cells, pa.string()))
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
