"""The trie holds exactly the semantic IDs of the catalog, as plain Python sets say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recbase_hf import DataError
from recbase_hf.catalog.trie import build_trie
from recbase_hf.scoring.trie_tensors import TrieTensors, expand_ranges

SIZE = 4
LARGE = 2**31
"""Two codes fill a word that is sorted by."""


def codes_of(sizes, levels, elements, dtype=np.int64):
    return st.tuples(sizes, levels).flatmap(lambda shape: arrays(dtype, shape, elements=elements))


catalogs = st.one_of(
    codes_of(st.integers(1, 30), st.integers(1, 4), st.integers(0, SIZE - 1)),
    codes_of(st.integers(10, 40), st.integers(1, 3), st.integers(0, 1), dtype=np.uint8),  # collide heavily
    codes_of(st.integers(1, 20), st.integers(32, 70), st.integers(0, 1)),  # do not fit one word
)
ONE_ITEM = np.array([[3, 0, 2]])
ONE_CHILD_LEVELS = np.array([[1, 0, 2, 3], [1, 0, 2, 0], [1, 0, 2, 3]])


def prefixes(codes, depth):
    """The distinct prefixes of `depth` codes, in lexicographic order."""
    return sorted({tuple(row[:depth]) for row in codes.tolist()})


def of_every_catalog(test):
    test = example(codes=ONE_ITEM)(example(codes=ONE_CHILD_LEVELS)(test))
    return settings(max_examples=100, deadline=None)(given(codes=catalogs)(test))


@of_every_catalog
def test_nodes_are_the_distinct_prefixes_in_order(codes):
    trie = build_trie(codes, SIZE)
    assert (trie.num_items, trie.num_levels) == codes.shape
    assert trie.num_nodes(0) == 1
    spelled = [()]
    for depth in range(trie.num_levels):
        spelled = [
            (*spelled[parent], code)
            for parent, code in zip(trie.parents[depth].tolist(), trie.codes[depth].tolist(), strict=True)
        ]
        assert spelled == prefixes(codes, depth + 1)
        assert trie.num_nodes(depth + 1) == len(spelled)


@of_every_catalog
def test_paths_lead_each_item_to_its_own_prefixes(codes):
    trie = build_trie(codes, SIZE)
    rows = np.arange(len(codes))[::-1]
    paths = trie.paths(rows)
    assert (paths.shape, paths.dtype) == (codes.shape, np.int32)
    assert paths[:, -1].tolist() == trie.leaves[rows].tolist()
    for depth in range(trie.num_levels):
        nodes = prefixes(codes, depth + 1)
        assert [nodes[node] for node in paths[:, depth]] == [tuple(row[: depth + 1]) for row in codes[rows].tolist()]


@of_every_catalog
def test_the_items_of_a_leaf_are_those_of_its_semantic_id_in_their_order(codes):
    trie = build_trie(codes, SIZE)
    assert trie.first_item[0] == 0
    for leaf, semantic_id in enumerate(prefixes(codes, codes.shape[1])):
        rows = [row for row, item in enumerate(codes.tolist()) if tuple(item) == semantic_id]
        assert trie.items[trie.first_item[leaf] : trie.first_item[leaf + 1]].tolist() == rows


@of_every_catalog
def test_bucket_sizes_count_the_items_of_a_semantic_id(codes):
    trie = build_trie(codes, SIZE)
    counts = Counter(tuple(row) for row in codes.tolist())
    assert trie.bucket_sizes.tolist() == [counts[node] for node in prefixes(codes, codes.shape[1])]
    assert trie.bucket_sizes.sum() == len(codes)


@of_every_catalog
def test_leaf_ranges_hold_the_semantic_ids_that_begin_with_a_prefix(codes):
    trie = build_trie(codes, SIZE)
    leaves = prefixes(codes, trie.num_levels)
    for depth in range(trie.num_levels + 1):
        nodes = prefixes(codes, depth)
        starts, ends = trie.leaf_ranges(depth, np.arange(len(nodes)))
        assert starts.dtype == ends.dtype == np.int64
        for node, start, end in zip(nodes, starts, ends, strict=True):
            assert leaves[start:end] == [leaf for leaf in leaves if leaf[:depth] == node]


@settings(max_examples=100, deadline=None)
@given(codes=catalogs, data=st.data())
def test_legal_codes_are_those_that_continue_a_prefix(codes, data):
    trie = build_trie(codes, SIZE)
    for depth in range(min(trie.num_levels, 4)):
        above = prefixes(codes, depth)
        nodes = data.draw(st.lists(st.integers(0, len(above) - 1), max_size=6))
        legal = TrieTensors(trie, torch.device("cpu")).legal_codes(depth, torch.tensor(nodes, dtype=torch.long))
        assert legal.shape == (len(nodes), SIZE)
        below = set(prefixes(codes, depth + 1))
        assert legal.tolist() == [[(*above[node], code) in below for code in range(SIZE)] for node in nodes]


@of_every_catalog
def test_children_are_contiguous(codes):
    trie = build_trie(codes, SIZE)
    for depth in range(trie.num_levels):
        first = trie.first_child[depth]
        assert first[0] == 0
        assert first[-1] == trie.num_nodes(depth + 1)
        assert (np.diff(first) > 0).all()  # no prefix without an item behind it
        expected = np.repeat(np.arange(len(first) - 1), np.diff(first))
        assert trie.parents[depth].tolist() == expected.tolist()


@of_every_catalog
def test_all_arrays_are_rows_of_int32(codes):
    trie = build_trie(codes, SIZE)
    for array in (*trie.codes, *trie.parents, *trie.first_child, trie.first_item, trie.items, trie.leaves):
        assert (array.dtype, array.ndim) == (np.int32, 1)


@settings(max_examples=50, deadline=None)
@given(codes=codes_of(st.integers(1, 12), st.integers(1, 5), st.sampled_from([0, 1, 2**30, LARGE - 1])))
def test_large_codes_are_sorted_by_several_words(codes):
    trie = build_trie(codes, LARGE)
    assert trie.items.tolist() == sorted(range(len(codes)), key=lambda row: codes[row].tolist())
    assert trie.codes[-1][trie.leaves].tolist() == codes[:, -1].tolist()


@pytest.mark.parametrize("count", [1, 7])
def test_one_item_and_identical_items_are_a_single_path(count):
    trie = build_trie(np.tile(ONE_ITEM, (count, 1)), SIZE)
    assert [level.tolist() for level in trie.codes] == [[3], [0], [2]]
    assert trie.bucket_sizes.tolist() == [count]
    assert trie.paths(np.arange(count)).tolist() == [[0, 0, 0]] * count
    assert trie.items.tolist() == list(range(count))


def test_a_trie_of_no_items_is_a_root():
    trie = build_trie(np.zeros((0, 2), dtype=np.int64), SIZE)
    assert [trie.num_nodes(depth) for depth in range(3)] == [1, 0, 0]
    assert trie.paths(np.array([], dtype=np.int64)).shape == (0, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_codes_of_any_integer_type_and_layout_give_the_same_trie(dtype):
    codes = np.random.default_rng(0).integers(0, 200, (50, 3))
    trie, other = build_trie(codes, 200), build_trie(np.asfortranarray(codes, dtype=dtype), 200)
    assert other.items.tolist() == trie.items.tolist()
    assert [level.tolist() for level in other.codes] == [level.tolist() for level in trie.codes]


def test_a_trie_of_read_only_arrays_answers_the_same():
    trie = build_trie(ONE_CHILD_LEVELS, SIZE)
    frozen = [tuple(map(locked, part)) for part in (trie.codes, trie.parents, trie.first_child)]
    whole = {name: locked(getattr(trie, name)) for name in ("first_item", "items", "leaves")}
    other = replace(trie, **dict(zip(("codes", "parents", "first_child"), frozen, strict=True)), **whole)
    rows = np.array([2, 1])
    assert other.paths(rows).tolist() == trie.paths(rows).tolist()
    assert other.bucket_sizes.tolist() == trie.bucket_sizes.tolist() == [1, 2]


def locked(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@settings(max_examples=50, deadline=None)
@given(ranges=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=8))
def test_ranges_are_expanded_one_after_the_other(ranges):
    starts, counts = torch.tensor(ranges, dtype=torch.long).reshape(-1, 2).T
    rows, positions = expand_ranges(starts, starts + counts)
    expected = [(row, start + i) for row, (start, count) in enumerate(ranges) for i in range(count)]
    assert list(zip(rows.tolist(), positions.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("codes", "size", "complaint"),
    [
        ([[0, 1], [2, 4]], 4, "item 1, level 1: code 4 is not between 0 and 3"),
        ([[0, -1]], 4, "item 0, level 1: code -1"),
        ([[0.5, 1.0]], 4, "float64 of shape"),
        ([0, 1], 4, r"of shape \(2,\)"),
        ([[0]], 2**31 + 1, "a codebook of 2,147,483,649 is too large"),
        (np.broadcast_to(np.int8(0), (2**31, 1)), 4, "2,147,483,648 items are more than"),
    ],
)
def test_codes_that_make_no_trie_are_named(codes, size, complaint):
    with pytest.raises(DataError, match=complaint):
        build_trie(np.asarray(codes), size)
