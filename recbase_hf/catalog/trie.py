"""The semantic IDs of a catalog as a trie in NumPy arrays: no Python object a node, built by sorting.

Depth 0 is the root, depth `l + 1` holds the distinct prefixes of `l + 1` codes, and under the deepest nodes lie the
items, several where semantic IDs collide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["CodeTrie", "build_trie"]


@dataclass(frozen=True)
class CodeTrie:
    """A trie over (items, levels) codes. Nodes of a depth are numbered in lexicographic order of their prefixes.

    Attributes:
        codebook_size: codes a level.
        codes: for each depth 1..levels, the (nodes,) int32 code that leads to the node.
        parents: for each depth 1..levels, the (nodes,) int32 number of the node above, at the depth before.
        first_child: for each depth 0..levels-1, (nodes + 1,) int64; children of node n are `first_child[n]` up to
            `first_child[n + 1]` of the next depth.
        paths: (items, levels) int32, the node of each item at depths 1..levels.
        bucket_sizes: (nodes at the last depth,) int64, items that share the semantic ID.
    """

    codebook_size: int
    codes: tuple[np.ndarray, ...]
    parents: tuple[np.ndarray, ...]
    first_child: tuple[np.ndarray, ...]
    paths: np.ndarray
    bucket_sizes: np.ndarray

    @property
    def num_levels(self) -> int:
        """Codes in a semantic ID."""
        return len(self.codes)

    def legal_codes(self, depth: int, nodes: np.ndarray) -> np.ndarray:
        """(nodes, codebook_size) bool: the codes that continue each node of `depth` in this catalog."""
        starts, ends = self.first_child[depth][nodes], self.first_child[depth][nodes + 1]
        counts = ends - starts
        rows = np.repeat(np.arange(len(nodes)), counts)
        children = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)
        legal = np.zeros((len(nodes), self.codebook_size), dtype=bool)
        legal[rows, self.codes[depth][children]] = True
        return legal


def build_trie(codes: np.ndarray, codebook_size: int) -> CodeTrie:
    """Build the trie of (items, levels) integer codes, each below `codebook_size`.

    >>> trie = build_trie(np.array([[1, 0], [0, 2], [1, 0], [1, 1]]), codebook_size=3)
    >>> [level.tolist() for level in trie.codes], trie.paths.tolist(), trie.bucket_sizes.tolist()
    ([[0, 1], [2, 0, 1]], [[1, 1], [0, 0], [1, 1], [1, 2]], [1, 2, 1])
    """
    codes = np.asarray(codes, dtype=np.int64)
    num_items, num_levels = codes.shape
    order = np.lexsort(codes.T[::-1])
    ordered = codes[order]
    is_new = np.zeros(num_items, dtype=bool)
    is_new[:1] = True
    node_codes, parents, first_child = [], [], []
    paths = np.empty((num_items, num_levels), dtype=np.int32)
    node_above = np.zeros(num_items, dtype=np.int64)
    for level in range(num_levels):
        is_new[1:] |= ordered[1:, level] != ordered[:-1, level]
        node = np.cumsum(is_new) - 1
        starts = np.flatnonzero(is_new)
        node_codes.append(ordered[starts, level].astype(np.int32))
        parents.append(node_above[starts].astype(np.int32))
        num_above = int(node_above[-1]) + 1 if num_items else 0
        first_child.append(np.searchsorted(parents[-1], np.arange(num_above + 1)))
        paths[order, level] = node
        node_above = node
    bucket_sizes = np.bincount(node_above) if num_items else np.zeros(0, dtype=np.int64)
    return CodeTrie(codebook_size, tuple(node_codes), tuple(parents), tuple(first_child), paths, bucket_sizes)
