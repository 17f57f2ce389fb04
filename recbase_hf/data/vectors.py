"""Reads sentence vectors that were computed earlier and lie beside the tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recbase_hf.data.tables import read_items
from recbase_hf.errors import DataError
from recbase_hf.text.encoder import normalize_rows

__all__ = ["find_ids", "find_vectors", "open_vectors", "read_rows", "read_vectors"]


ENDING = "_f16.npy"


def find_vectors(folder: str | os.PathLike[str], name: str) -> Path:
    """The file of vectors of that name in a folder; raises `FileNotFoundError` if there is none."""
    path = Path(folder) / f"{name}{ENDING}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; looked for vectors computed earlier")
    return path


def find_ids(vectors_path: Path) -> Path:
    """The table whose column `item_id` names the rows of a file of vectors."""
    return vectors_path.with_name(vectors_path.name.removesuffix(ENDING) + "_ids.parquet")


def open_vectors(path: str | os.PathLike[str]) -> np.ndarray:
    """A file of vectors as it is, (n, d) floating, memory-mapped: for vectors that no memory holds.

    Raises `DataError` if it is not a matrix of floating numbers.
    """
    return _read_matrix(Path(path), in_memory=False)


def read_vectors(
    folder: str | os.PathLike[str], item_ids: Sequence[str], name: str = "minilm"
) -> tuple[np.ndarray, np.ndarray]:
    """Read `<name>_f16.npy`, (n, d) floating, and `<name>_ids.parquet`, whose column `item_id` names its rows.

    Returns `rows`, the positions in `item_ids` that have a vector, (n,) int64 ascending, and `vectors`, (n, d) float32
    of length 1.

    Raises `FileNotFoundError` if a file is missing, and `DataError` if there is no vector, the counts differ, a vector
    is not finite, or an id is missing, repeated or not in `item_ids`.
    """
    vectors_path = find_vectors(folder, name)
    vectors = _read_matrix(vectors_path)
    rows = read_rows(vectors_path, item_ids, len(vectors))
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise DataError(
            f"{vectors_path}, row {first + 1}: the vector of {item_ids[rows[first]]!r} holds NaN or infinity; "
            "make it again"
        )
    order = np.argsort(rows)
    return rows[order], normalize_rows(vectors[order])


def read_rows(vectors_path: Path, item_ids: Sequence[str], num_vectors: int) -> np.ndarray:
    """Positions in `item_ids` of the items that the vectors in a file are of, (n,) int64, by `<name>_ids.parquet`.

    Raises `FileNotFoundError` or `DataError` as `read_vectors` does.
    """
    ids_path = find_ids(vectors_path)
    ids = read_items(ids_path)["item_id"][:]
    if len(ids) != num_vectors:
        raise DataError(f"{vectors_path} has {num_vectors} vectors but {ids_path} has {len(ids)} ids; make both again")
    row_of_item = {item: row for row, item in enumerate(item_ids)}
    rows = np.array([row_of_item.get(item, -1) for item in ids], dtype=np.int64)
    if rows.min() < 0:
        first = int(np.argmax(rows < 0))
        raise DataError(
            f"{ids_path}, row {first + 1}, column 'item_id': {ids[first]!r} is not in the item table; "
            "add the item, or make the vectors again for this table"
        )
    return rows


def _read_matrix(path: Path, *, in_memory: bool = True) -> np.ndarray:
    try:
        matrix = np.load(path, allow_pickle=False, mmap_mode=None if in_memory else "r")
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); it may be truncated: make it again") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise DataError(f"{path} is {matrix.dtype} of shape {matrix.shape}; give floating numbers, one row an item")
    return matrix
