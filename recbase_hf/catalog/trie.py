"""The semantic IDs of a catalog as a trie in NumPy arrays: no Python object a node, built by sorting.

Depth 0 is the root, depth `l + 1` holds the distinct prefixes of `l + 1` codes, and the deepest nodes are the leaves:
under each lie the items that share its semantic ID. Whatever lies under a node is a range of numbers, because nodes are
numbered, and items laid out, in the lexicographic order of their codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recbase_hf.errors import DataError

__all__ = ["CodeTrie", "build_trie"]

LARGEST = np.iinfo(np.int32).max
"""Items at most, and the largest code: all numbers in a trie are int32."""

WORD_BITS = 62
"""Of an int64 that holds codes to sort by."""


@dataclass(frozen=True, eq=False)
class CodeTrie:
    """A trie over (items, levels) codes; its arrays are only read, so that they may be read-only memory maps.

    Attributes:
        codebook_size: codes a level.
        codes: for each depth 1..levels, the (nodes,) int32 code that leads to the node.
        parents: for each depth 1..levels, the (nodes,) int32 number of the node above, at the depth before.
        first_child: for each depth 0..levels-1, (nodes + 1,) int32; children of node n are `first_child[n]` up to
            `first_child[n + 1]` of the next depth.
        first_item: (leaves + 1,) int32; items of leaf n are `items[first_item[n] : first_item[n + 1]]`.
        items: (items,) int32, the catalog rows in the order of the leaves, ascending within a leaf.
        leaves: (items,) int32, the leaf of each catalog row.
    """

    codebook_size: int
    codes: tuple[np.ndarray, ...]
    parents: tuple[np.ndarray, ...]
    first_child: tuple[np.ndarray, ...]
    first_item: np.ndarray
    items: np.ndarray
    leaves: np.ndarray

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "tensors"}  # of devices

    @property
    def num_levels(self) -> int:
        """Codes in a semantic ID; also the depth of the leaves."""
        return len(self.codes)

    @property
    def num_items(self) -> int:
        """Items in the catalog."""
        return len(self.items)

    def num_nodes(self, depth: int) -> int:
        """Nodes at a depth 0..levels: 1 at depth 0, distinct semantic IDs at the last one."""
        return len(self.codes[depth - 1]) if depth else 1

    @cached_property
    def bucket_sizes(self) -> np.ndarray:
        """(leaves,) int32, items that share the semantic ID."""
        return np.diff(self.first_item)

    def paths(self, rows: np.ndarray) -> np.ndarray:
        """(n, levels) int32: the nodes at depths 1..levels on the way to each of (n,) catalog rows.

        >>> build_trie(np.array([[1, 0], [0, 2], [1, 1]]), codebook_size=3).paths(np.array([2, 1])).tolist()
        [[1, 2], [0, 0]]
        """
        return self.paths_to(self.leaves[rows])

    def paths_to(self, leaves: np.ndarray) -> np.ndarray:
        """(n, levels) int32: the nodes at depths 1..levels on the way to each of (n,) leaves."""
        paths = np.empty((len(leaves), self.num_levels), dtype=np.int32)
        node = leaves
        for level in reversed(range(self.num_levels)):
            paths[:, level] = node
            node = self.parents[level][node]
        return paths

    def leaf_ranges(self, depth: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The leaves under each of (n,) nodes of a depth 0..levels: from the first up to the second, (n,) int64 each.

        >>> build_trie(np.array([[1, 0], [0, 2], [1, 1]]), codebook_size=3).leaf_ranges(1, np.array([0, 1]))
        (array([0, 1]), array([1, 3]))
        """
        starts = np.asarray(nodes, dtype=np.int64)
        ends = starts + 1
        for first_child in self.first_child[depth:]:
            starts, ends = first_child[starts], first_child[ends]
        return starts.astype(np.int64), ends.astype(np.int64)


def build_trie(codes: np.ndarray, codebook_size: int) -> CodeTrie:
    """Build the trie of (items, levels) codes of any integer type, each below `codebook_size`.

    Raises:
        DataError: the codes have another shape or type, one is out of range, or there are more items or larger codes
            than an int32 counts.

    >>> trie = build_trie(np.array([[1, 0], [0, 2], [1, 0], [1, 1]]), codebook_size=3)
    >>> [level.tolist() for level in trie.codes], trie.leaves.tolist(), trie.bucket_sizes.tolist()
    ([[0, 1], [2, 0, 1]], [1, 0, 1, 2], [1, 2, 1])
    """
    codes = np.asarray(codes)
    _require_buildable(codes, codebook_size)
    num_items, _ = codes.shape
    items = _rows_in_order(codes, codebook_size)
    node_codes, parents, first_child = [], [], []
    first_item = np.array([0, num_items], dtype=np.int32)  # of each node of the depth before; here of the root
    opens_node = np.zeros(num_items, dtype=bool)
    opens_node[:1] = True
    for level in codes.T:
        ordered = level[items]
        opens_node[1:] |= ordered[1:] != ordered[:-1]
        nodes_before = np.zeros(num_items + 1, dtype=np.int32)
        np.cumsum(opens_node, dtype=np.int32, out=nodes_before[1:])
        first_child.append(nodes_before[first_item])
        parents.append(np.repeat(np.arange(len(first_item) - 1, dtype=np.int32), np.diff(first_child[-1])))
        starts = np.flatnonzero(opens_node).astype(np.int32)
        node_codes.append(ordered[starts].astype(np.int32))
        first_item = np.append(starts, np.int32(num_items))
    leaves = np.empty(num_items, dtype=np.int32)
    leaves[items] = nodes_before[1:] - 1
    return CodeTrie(codebook_size, tuple(node_codes), tuple(parents), tuple(first_child), first_item, items, leaves)


def _require_buildable(codes: np.ndarray, codebook_size: int) -> None:
    if codes.ndim != 2 or not codes.shape[1] or codes.dtype.kind not in "iu":
        raise DataError(f"the codes are {codes.dtype} of shape {codes.shape}; give integers (items, levels)")
    if len(codes) > LARGEST:
        raise DataError(f"{len(codes):,} items are more than the {LARGEST:,} that a catalog holds; split it")
    if codebook_size - 1 > LARGEST:
        raise DataError(f"a codebook of {codebook_size:,} is too large; codes are at most {LARGEST:,}")
    if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
        item, level = np.argwhere((codes < 0) | (codes >= codebook_size))[0]
        raise DataError(
            f"item {item}, level {level}: code {codes[item, level]} is not between 0 and {codebook_size - 1}; is the "
            "codebook size right?"
        )


def _rows_in_order(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """(items,) int32: the rows by their codes; those of equal codes ascend, because the sort is stable."""
    num_items, num_levels = codes.shape
    bits = max(1, (codebook_size - 1).bit_length())
    levels_per_word = WORD_BITS // bits
    words = []
    for first in range(0, num_levels, levels_per_word):
        word = np.zeros(num_items, dtype=np.int64)
        for level in codes.T[first : first + levels_per_word]:
            word <<= bits
            word |= level.astype(np.int64, copy=False)
        words.append(word)
    return np.lexsort(words[::-1]).astype(np.int32)
