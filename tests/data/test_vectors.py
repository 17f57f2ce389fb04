"""Vectors computed earlier come in the order of the items, and every fault of their files is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf.data.vectors import read_vectors
from recbase_hf.errors import DataError


def write_vectors(folder: Path, vectors: Any, vector_ids: list[str]) -> Path:
    np.save(folder / "minilm_f16.npy", np.asarray(vectors, np.float16))
    pq.write_table(pa.table({"item_id": vector_ids}), folder / "minilm_ids.parquet")
    return folder


def test_vectors_come_in_the_order_of_the_items(tmp_path: Path) -> None:
    write_vectors(tmp_path, [[1, 2], [3, 4]], ["c", "a"])
    rows, vectors = read_vectors(tmp_path, ["a", "b", "c"])
    assert rows.tolist() == [0, 2]
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [1 / 5**0.5, 2 / 5**0.5]], rtol=1e-6)
    assert [str(rows.dtype), str(vectors.dtype)] == ["int64", "float32"]


@pytest.mark.parametrize(
    ("vectors", "vector_ids", "message"),
    [
        ([[1.0]], ["a", "b"], "has 1 vectors but .* has 2 ids"),
        ([[1.0], [np.nan]], ["a", "b"], "row 2: the vector of 'b' holds NaN"),
        ([[1.0], [2.0]], ["a", "z"], "row 2, column 'item_id': 'z' is not in the item table"),
        ([[1.0], [2.0]], ["a", "a"], "row 2, column 'item_id': 'a' stands in row 1"),
        ([1.0, 2.0], ["a", "b"], "shape"),
    ],
)
def test_faulty_vectors_are_named(tmp_path: Path, vectors: Any, vector_ids: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(write_vectors(tmp_path, vectors, vector_ids), ["a", "b"])


def test_missing_broken_and_pickled_vectors_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"minilm_f16.npy"):
        read_vectors(tmp_path, ["a"])
    for content in (b"\x93NUMPY", b"not numpy"):
        (tmp_path / "minilm_f16.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"minilm_f16.npy cannot be read"):
            read_vectors(tmp_path, ["a"])
    np.save(tmp_path / "minilm_f16.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"minilm_f16.npy cannot be read"):
        read_vectors(tmp_path, ["a"])
