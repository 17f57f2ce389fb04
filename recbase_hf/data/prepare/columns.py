"""What logs need of Arrow columns: texts to lists, lists to rows, and times to seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.errors import DataError

__all__ = ["Exploded", "UnixSeconds", "explode", "joined", "one_array", "seconds", "words"]

_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_LARGEST = np.array([1e11, 1e14, 1e17])
"""The year 5138 in the first three; larger numbers count the next."""


class Exploded(NamedTuple):
    """The elements of all lists of a column, one after the other.

    `values`: the elements. `rows`: (elements,) int64, the row that each came from. `places`: (elements,) int64, its
    place in the list. `lengths`: (elements,) int64, how long that list is.
    """

    values: pa.Array
    rows: np.ndarray
    places: np.ndarray
    lengths: np.ndarray


def explode(lists: pa.Array | pa.ChunkedArray) -> Exploded:
    """The elements of lists, and where they were; a missing list has none.

    >>> exploded = explode(pa.array([["x", "y"], None, ["z"]]))
    >>> exploded.values.to_pylist(), exploded.rows.tolist(), exploded.places.tolist(), exploded.lengths.tolist()
    (['x', 'y', 'z'], [0, 0, 2], [0, 1, 0], [2, 2, 1])
    """
    lists = one_array(lists)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths)
    starts = np.cumsum(lengths) - lengths
    return Exploded(pc.list_flatten(lists), rows, np.arange(len(rows)) - starts[rows], lengths[rows])


def words(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts cut at spaces; a missing one is an empty list.

    >>> words(pa.array([" N1  N2", None])).to_pylist()
    [['N1', 'N2'], []]
    """
    trimmed = pc.ascii_trim_whitespace(one_array(texts))
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    return pc.coalesce(pc.ascii_split_whitespace(trimmed), pa.scalar([], pa.list_(pa.string())))


def joined(first: pa.Array | pa.ChunkedArray, second: pa.Array | pa.ChunkedArray, separator: str) -> pa.Array:
    """Two columns of texts as one; where one is missing, the other alone."""
    return one_array(pc.binary_join_element_wise(first, second, separator, null_handling="skip"))


def seconds(times: pa.Array | pa.ChunkedArray, form: str, place: str) -> pa.Array:
    """Written times, taken as UTC, to seconds since 1970.

    Args:
        form: as `strptime` has it.
        place: the file and column, for the error.

    Raises:
        DataError: a time is written otherwise; says which.

    >>> seconds(pa.array(["11/15/2019 8:55:22 AM", None]), "%m/%d/%Y %I:%M:%S %p", "time").to_pylist()
    [1573808122, None]
    """
    times = one_array(times)
    parsed = pc.strptime(times, format=form, unit="s", error_is_null=True)
    wrong = times.filter(pc.and_(pc.is_null(parsed), pc.is_valid(times)))
    if len(wrong):
        raise DataError(f"{place}: {wrong[0].as_py()!r} is not a time such as {form}; is it another version?")
    return pc.cast(parsed, pa.int64())


class UnixSeconds:
    """Numbers of one file, seconds or milliseconds since 1970, as seconds; publishers of one family use both.

    Args:
        place: the file and column, for the error.

    >>> times = UnixSeconds("pairs.csv, column 'timestamp'")
    >>> times.of(pa.array([1_500_000_000_999, None])).to_pylist()
    [1500000000, None]
    >>> times.of(pa.array([1_500_000_001_000, 1_500_000_001]))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    recbase_hf.errors.DataError: pairs.csv, column 'timestamp', row 4: 1500000001 counts seconds, ...
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._rows = 0
        self._first: tuple[int, str, int] | None = None

    def of(self, numbers: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The next rows of the file, of the type that they have.

        Raises:
            DataError: they do not all count the same; says where.
        """
        numbers = one_array(numbers)
        values = numbers.to_numpy(zero_copy_only=False)
        there = np.flatnonzero(pc.is_valid(numbers).to_numpy(zero_copy_only=False))
        units = np.searchsorted(_LARGEST, values[there])
        if len(there) and self._first is None:
            self._first = (self._rows + int(there[0]) + 1, str(numbers[int(there[0])]), int(units[0]))
        if self._first is None:
            self._rows += len(numbers)
            return numbers
        first_row, first, unit = self._first
        other = np.flatnonzero(units != unit)
        if len(other):
            row = int(there[other[0]])
            raise DataError(
                f"{self._place}, row {self._rows + row + 1}: {numbers[row]} counts {_UNITS[units[other[0]]]}, but "
                f"{first} in row {first_row} {_UNITS[unit]} since 1970; are there two sources in one file? Write one"
            )
        self._rows += len(numbers)
        return pc.divide(numbers, 1000**unit) if unit else numbers


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column without chunks."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
