"""The trie holds exactly the semantic IDs of the catalog, as plain Python sets say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recbase_hf.catalog.trie import build_trie

SIZE = 4
catalogs = st.tuples(st.integers(1, 30), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, SIZE - 1))
)


def prefixes(codes, depth):
    """The distinct prefixes of `depth` codes, in lexicographic order."""
    return sorted({tuple(row[:depth]) for row in codes.tolist()})


@given(codes=catalogs)
@settings(max_examples=100, deadline=None)
def test_nodes_are_the_distinct_prefixes_in_order(codes):
    trie = build_trie(codes, SIZE)
    assert trie.num_levels == codes.shape[1]
    spelled = [()]
    for depth in range(trie.num_levels):
        spelled = [
            (*spelled[parent], code)
            for parent, code in zip(trie.parents[depth].tolist(), trie.codes[depth].tolist(), strict=True)
        ]
        assert spelled == prefixes(codes, depth + 1)


@given(codes=catalogs)
@settings(max_examples=100, deadline=None)
def test_paths_lead_each_item_to_its_own_prefixes(codes):
    trie = build_trie(codes, SIZE)
    assert trie.paths.shape == codes.shape
    for depth in range(trie.num_levels):
        nodes = prefixes(codes, depth + 1)
        assert [nodes[node] for node in trie.paths[:, depth]] == [tuple(row[: depth + 1]) for row in codes.tolist()]


@given(codes=catalogs)
@settings(max_examples=100, deadline=None)
def test_bucket_sizes_count_the_items_of_a_semantic_id(codes):
    trie = build_trie(codes, SIZE)
    counts = Counter(tuple(row) for row in codes.tolist())
    assert trie.bucket_sizes.tolist() == [counts[node] for node in prefixes(codes, codes.shape[1])]
    assert trie.bucket_sizes.sum() == len(codes)


@given(codes=catalogs, data=st.data())
@settings(max_examples=100, deadline=None)
def test_legal_codes_are_those_that_continue_a_prefix(codes, data):
    trie = build_trie(codes, SIZE)
    for depth in range(trie.num_levels):
        above = prefixes(codes, depth)
        nodes = data.draw(st.lists(st.integers(0, len(above) - 1), max_size=6))
        legal = trie.legal_codes(depth, np.array(nodes, dtype=np.int64))
        assert legal.shape == (len(nodes), SIZE)
        below = set(prefixes(codes, depth + 1))
        assert legal.tolist() == [[(*above[node], code) in below for code in range(SIZE)] for node in nodes]


@given(codes=catalogs)
@settings(max_examples=50, deadline=None)
def test_children_are_contiguous(codes):
    trie = build_trie(codes, SIZE)
    for depth in range(trie.num_levels):
        first = trie.first_child[depth]
        assert first[0] == 0
        assert first[-1] == len(trie.codes[depth])
        assert (np.diff(first) > 0).all()  # no prefix without an item behind it
        expected = np.repeat(np.arange(len(first) - 1), np.diff(first))
        assert trie.parents[depth].tolist() == expected.tolist()


@pytest.mark.parametrize("count", [1, 7])
def test_one_item_and_identical_items_are_a_single_path(count):
    trie = build_trie(np.tile([3, 0, 2], (count, 1)), SIZE)
    assert [level.tolist() for level in trie.codes] == [[3], [0], [2]]
    assert trie.bucket_sizes.tolist() == [count]
    assert trie.paths.tolist() == [[0, 0, 0]] * count
    assert np.flatnonzero(trie.legal_codes(1, np.array([0]))[0]).tolist() == [0]
