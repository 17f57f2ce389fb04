"""Item texts become a file of vectors, in parts, that other commands take in place of encoding."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf.data import blocks
from recbase_hf.data.domain import ItemVectors
from recbase_hf.data.vectors import read_vectors
from recbase_hf.errors import DataError
from recbase_hf.shards import vector_file
from recbase_hf.shards.vector_file import write_vectors
from recbase_hf.text.template import ItemTemplate
from tiny_world import HashEncoder, make_items

SOURCE = ItemVectors(encoder=HashEncoder.name, template=ItemTemplate(fields=("title",)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "ROWS_A_BLOCK", 20)
    monkeypatch.setattr(vector_file, "TEXTS_A_PART", 6)
    pq.write_table(pa.Table.from_pylist(make_items(50)), tmp_path / "items.parquet", row_group_size=10)
    return tmp_path


class FailingEncoder(HashEncoder):
    """Interrupted after some calls."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def encode(self, texts):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().encode(texts)


def test_the_vectors_are_those_of_the_texts_in_the_order_of_the_table(folder):
    path = write_vectors(folder, "hash", HashEncoder(), SOURCE)
    ids = [item["item_id"] for item in make_items(50)]
    rows, vectors = read_vectors(folder, ids, "hash")
    assert rows.tolist() == list(range(50))
    texts = [SOURCE.template.render(item) for item in make_items(50)]
    np.testing.assert_allclose(vectors, HashEncoder().encode(texts), atol=2e-3)
    assert np.load(path, mmap_mode="r").dtype == np.float16
    names = ["hash_f16.npy", "hash_ids.parquet", "hash_made.json", "items.parquet"]
    assert sorted(file.name for file in folder.iterdir()) == names


@pytest.mark.parametrize("calls", [0, 3, 8])
def test_after_an_interruption_only_the_rest_is_encoded(folder, tmp_path_factory, calls):
    with pytest.raises(KeyboardInterrupt):
        write_vectors(folder, "hash", FailingEncoder(calls), SOURCE)
    assert not (folder / "hash_f16.npy").exists()
    parts = 4 + 4 + 2  # of blocks of 20, 20 and 10 items
    write_vectors(folder, "hash", FailingEncoder(parts - calls), SOURCE)
    straight = tmp_path_factory.mktemp("straight")
    pq.write_table(pa.Table.from_pylist(make_items(50)), straight / "items.parquet", row_group_size=10)
    write_vectors(straight, "hash", HashEncoder(), SOURCE)
    for name in ("hash_f16.npy", "hash_ids.parquet"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()


def test_what_is_there_is_left_alone(folder):
    path = write_vectors(folder, "hash", HashEncoder(), SOURCE)
    before = path.read_bytes()
    write_vectors(folder, "hash", FailingEncoder(0), SOURCE)
    assert path.read_bytes() == before


def test_other_texts_do_not_go_on_with_what_was_begun(folder):
    with pytest.raises(KeyboardInterrupt):
        write_vectors(folder, "hash", FailingEncoder(2), SOURCE)
    pq.write_table(pa.Table.from_pylist(make_items(49)), folder / "items.parquet")
    with pytest.raises(DataError, match=r"were made otherwise \(items\); delete these vectors"):
        write_vectors(folder, "hash", HashEncoder(), SOURCE)


def test_vectors_of_other_texts_are_not_taken_for_these(folder):
    write_vectors(folder, "hash", HashEncoder(), SOURCE)
    pq.write_table(pa.Table.from_pylist(make_items(60)), folder / "items.parquet")
    with pytest.raises(DataError, match=r"were made otherwise \(items\); delete these vectors"):
        write_vectors(folder, "hash", HashEncoder(), SOURCE)


def test_an_item_without_a_text_is_named(folder):
    items = make_items(50)
    items[33]["title"] = " "
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet", row_group_size=10)
    with pytest.raises(DataError, match=r"items.parquet, from row 33: 1 of 6 items have no text.*'item-33'"):
        write_vectors(folder, "hash", HashEncoder(), SOURCE)
    assert not (folder / "hash_f16.npy").exists()
