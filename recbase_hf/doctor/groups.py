"""Items in groups: by the codes that they share, by equal rows of numbers, and the largest of such groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recbase_hf.catalog.trie import build_trie
from recbase_hf.errors import DataError

__all__ = ["RowGroup", "checked_codes", "largest", "numbered_rows", "prefix_numbers", "row_group"]

BATCH = 8192
"""Rows that are hashed or compared at a time."""


@dataclass(frozen=True)
class RowGroup:
    """Items that have something in common.

    Attributes:
        rows: their rows, ascending.
        num_texts: distinct texts among them, None where that was not asked.
        example_rows: the first row of each distinct text; all rows where that was not asked.
    """

    rows: np.ndarray
    num_texts: int | None
    example_rows: np.ndarray

    @property
    def is_one_stretch(self) -> bool:
        """Whether the rows follow one another without a gap, as where an embedding run broke off."""
        return bool(len(self.rows) > 1 and self.rows[-1] - self.rows[0] == len(self.rows) - 1)


def checked_codes(codes: np.ndarray) -> np.ndarray:
    """The codes, (items, levels) integer.

    Raises:
        DataError: they have another shape or type, there is no item, or a code is negative.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or 0 in codes.shape or codes.dtype.kind not in "iu":
        raise DataError(
            f"the codes are {codes.dtype} of shape {codes.shape}; give integers (items, levels), at least one item"
        )
    if codes.min() < 0:
        row, level = np.argwhere(codes < 0)[0]
        raise DataError(f"row {row + 1}, level {level + 1}: code {codes[row, level]} is negative; codes count from 0")
    return codes


def prefix_numbers(codes: np.ndarray) -> np.ndarray:
    """Number (items, levels) int64 of each item's first code, first two codes, ...; equal prefixes have equal numbers.

    The prefixes of a length are numbered from 0, in lexicographic order.

    >>> prefix_numbers(np.array([[4, 0], [4, 2], [7, 0]])).tolist()
    [[0, 0], [0, 1], [1, 2]]
    """
    codes = checked_codes(codes)
    return build_trie(codes, int(codes.max()) + 1).paths(np.arange(len(codes))).astype(np.int64)


def numbered_rows(matrix: np.ndarray) -> np.ndarray:
    """Number (items,) int64 of each row of an (items, width) matrix of numbers; equal rows have equal numbers.

    The rows are told apart by hashes; only those with the hash of an earlier row are compared, and none are copied or
    sorted as a whole.

    >>> first, second, third = numbered_rows(np.array([[0.0, 1.0], [0.5, 0.5], [-0.0, 1.0]]))
    >>> bool(first == third), bool(first == second)
    (True, False)
    """
    hashes = np.concatenate([_hashes(matrix[rows]) for rows in _batches(np.arange(len(matrix)))])
    _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[number] != np.arange(len(matrix)))
    differs = [rows[(matrix[rows] != matrix[first[number[rows]]]).any(axis=1)] for rows in _batches(repeated)]
    different = np.concatenate([repeated[:0], *differs])
    if len(different):  # different rows of one hash, which hardly ever happens
        _, exact = np.unique(matrix[different], axis=0, return_inverse=True)
        number[different] = len(first) + exact.ravel()
    return number


def _hashes(rows: np.ndarray) -> np.ndarray:
    """(rows,) uint64: sums modulo 2**64 of the rows' bytes, four at a time, with random factors.

    Integers, because the last bit of a floating sum depends on where in the matrix a row stands.
    """
    rows = np.ascontiguousarray(rows + 0)  # -0.0 becomes 0.0: the same number in other bytes
    words = rows.view(f"u{min(rows.dtype.itemsize, 4)}").astype(np.uint64)
    factors = np.random.default_rng(0).integers(2**64, size=words.shape[1], dtype=np.uint64)
    return words @ (factors | np.uint64(1))


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def largest(sizes: np.ndarray, count: int) -> np.ndarray:
    """The `count` groups with a size above 1, largest first; the lower number first among equals."""
    order = np.argsort(-sizes, kind="stable")[:count]
    return order[sizes[order] > 1]


def row_group(rows: np.ndarray, text: np.ndarray | None) -> RowGroup:
    """The group of these rows; `text` numbers the text of every item, where distinct ones are to be told."""
    if text is None:
        return RowGroup(rows, None, rows)
    _, first = np.unique(text[rows], return_index=True)
    return RowGroup(rows, len(first), rows[np.sort(first)])
