"""A saved catalog brings its trie, mapped from its file; a file that is damaged or of other codes is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recbase_hf import DataError, ItemCatalog
from recbase_hf.catalog.index_files import hash_of_codes
from recbase_hf.catalog.trie import build_trie
from recbase_hf.catalog.trie_file import load_trie, save_trie

SIZE = 8
CODES = np.random.default_rng(0).integers(0, SIZE, (60, 3))
ITEMS = [{"item_id": str(row)} for row in range(len(CODES))]
FIELDS = ("codes", "parents", "first_child", "first_item", "items", "leaves")


@pytest.fixture(scope="module")
def catalog():
    return ItemCatalog.from_codes(ITEMS, CODES, codebook_size=SIZE)


@pytest.fixture
def saved(catalog, tmp_path):
    catalog.save_pretrained(tmp_path / "catalog")
    return tmp_path / "catalog"


def rewrite(folder, *, codebook_size=SIZE, **changes):
    """Write the file of the trie again, as the right one, with other arrays."""
    path = folder / "trie.safetensors"
    facts = {"codebook_size": codebook_size, "codes_hash": hash_of_codes(CODES, SIZE)}
    arrays = {**load_file(path), **changes}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    save_file(arrays, path, metadata={"trie": json.dumps(facts)})


def flat(trie):
    return [np.concatenate([*part]) if isinstance(part, tuple) else part for part in (vars(trie)[f] for f in FIELDS)]


def same(left, right):
    assert (left.codebook_size, left.num_levels) == (right.codebook_size, right.num_levels)
    for one, other in zip(flat(left), flat(right), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_a_loaded_catalog_has_its_trie_from_the_file(catalog, saved):
    loaded = ItemCatalog.from_pretrained(saved)
    assert "trie" in vars(loaded)
    same(loaded.trie, catalog.trie)
    rows = np.arange(len(CODES))
    assert loaded.trie.paths(rows).tolist() == catalog.trie.paths(rows).tolist()
    assert loaded.trie.bucket_sizes.tolist() == catalog.trie.bucket_sizes.tolist()
    assert loaded.collisions() == catalog.collisions()


def test_a_loaded_trie_is_a_read_only_map_of_its_file(saved):
    trie = ItemCatalog.from_pretrained(saved).trie
    for array in (*trie.codes, *trie.parents, *trie.first_child, trie.first_item, trie.items, trie.leaves):
        assert type(array) is np.ndarray
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.flags.aligned


def test_a_catalog_can_replace_the_one_that_it_was_loaded_from(catalog, saved):
    loaded = ItemCatalog.from_pretrained(saved)
    loaded.save_pretrained(saved)
    same(loaded.trie, catalog.trie)
    same(ItemCatalog.from_pretrained(saved).trie, catalog.trie)


def test_a_changed_catalog_builds_its_own_trie(saved):
    loaded = ItemCatalog.from_pretrained(saved)
    same(loaded.remove(["0"]).trie, build_trie(CODES[1:], SIZE))
    same(replace(loaded, codes=CODES[::-1]).trie, build_trie(CODES[::-1], SIZE))


def test_a_catalog_without_the_file_builds_its_trie(catalog, saved):
    (saved / "trie.safetensors").unlink()
    loaded = ItemCatalog.from_pretrained(saved)
    assert "trie" not in vars(loaded)
    same(loaded.trie, catalog.trie)


def test_the_file_of_another_catalog_is_refused(saved, tmp_path):
    for name, codes, size in (("order", CODES[::-1], SIZE), ("size", CODES, SIZE + 1), ("fewer", CODES[1:], SIZE)):
        ItemCatalog.from_codes(ITEMS[: len(codes)], codes, codebook_size=size).save_pretrained(tmp_path / name)
        shutil.copy(tmp_path / name / "trie.safetensors", saved)
        with pytest.raises(DataError, match=rf"{saved}/trie.safetensors belongs to .* another catalog; delete it"):
            ItemCatalog.from_pretrained(saved)


def test_a_truncated_or_empty_file_is_refused(saved):
    path = saved / "trie.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-20], whole[:6], b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{path} is damaged .*; delete it"):
            ItemCatalog.from_pretrained(saved)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"codes.2": None}, "codes.2"),
        ({"first_item": None}, "first_item"),
        ({"leaves": np.zeros(60, dtype=np.int64)}, r"leaves is I64 of shape \[60\]"),
        ({"leaves": np.zeros((30, 2), dtype=np.int32)}, r"leaves is I32 of shape \[30, 2\]"),
        ({"items": np.zeros(59, dtype=np.int32)}, "items has 59 numbers, not 60"),
        ({"parents.1": np.zeros(3, dtype=np.int32)}, "parents.1 has 3 numbers, not 8"),
        ({"first_child.0": np.zeros(2, dtype=np.int32)}, "its ranges end at"),
    ],
)
def test_a_file_whose_arrays_do_not_fit_together_is_refused(saved, changes, complaint):
    rewrite(saved, **changes)
    with pytest.raises(DataError, match=f"trie.safetensors is damaged .*{complaint}"):
        ItemCatalog.from_pretrained(saved)


def test_a_file_of_something_else_is_refused(saved):
    save_file({"weights": np.zeros(3, dtype=np.float32)}, saved / "trie.safetensors")
    with pytest.raises(DataError, match=r"trie.safetensors is damaged .*delete it"):
        ItemCatalog.from_pretrained(saved)


@pytest.mark.parametrize("codes", [[[0]], [[1, 1]], [[0, 1, 0], [0, 1, 0]], [[1] * 70, [0] * 70]])
def test_the_smallest_and_the_deepest_tries_survive_the_disk(tmp_path, codes):
    codes = np.array(codes)
    trie = build_trie(codes, 2)
    save_trie(trie, tmp_path / "trie.safetensors", "hash")
    num_items, num_levels = codes.shape
    path = tmp_path / "trie.safetensors"
    same(load_trie(path, codes_hash="hash", num_items=num_items, num_levels=num_levels), trie)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_trie(tmp_path / "trie.safetensors", codes_hash="", num_items=1, num_levels=1)
