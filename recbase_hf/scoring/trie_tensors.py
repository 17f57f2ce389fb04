"""A catalog's trie on the model's device, and the few questions that a walk down it asks."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from recbase_hf.catalog.trie import CodeTrie

__all__ = ["TrieTensors", "expand_ranges"]


_TABLE_ENTRIES = 1 << 20
"""Of one level's table, 4 MiB; larger levels are searched."""


def expand_ranges(starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The whole numbers of several ranges one after the other: which range each is of, and the numbers.

    >>> ranges, numbers = expand_ranges(torch.tensor([4, 9]), torch.tensor([6, 10]))
    >>> ranges.tolist(), numbers.tolist()
    ([0, 0, 1], [4, 5, 9])
    """
    counts = ends - starts
    total = int(counts.sum())
    numbers = torch.arange(len(counts), device=counts.device)
    ranges, shifts = (
        torch.repeat_interleave(part, counts, output_size=total)
        for part in (numbers, starts - (counts.cumsum(0) - counts))
    )
    return ranges, torch.arange(total, device=counts.device) + shifts


class TrieTensors:
    """The arrays of a `CodeTrie` as tensors; on the CPU they share its memory.

    Nodes of a depth are numbered in the order of their prefixes, so the children of a node, the leaves below it and the
    items in those are ranges. Of the levels above, where many children are below few nodes, tables are made; STATIC
    (arXiv 2602.22647) does so for the first two.
    """

    @classmethod
    def of(cls, trie: CodeTrie, device: torch.device) -> TrieTensors:
        """The tensors of a trie, made once for each device."""
        # Kept with the trie, and so gone with it: in a table of all tries, each would keep its own key alive.
        made: dict[torch.device, TrieTensors] = vars(trie).setdefault("tensors", {})
        return made.get(device) or made.setdefault(device, cls(trie, device))

    def __init__(self, trie: CodeTrie, device: torch.device) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            with warnings.catch_warnings():
                # Memory maps are read-only, and torch warns of that; nothing here writes.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                return torch.from_numpy(array).to(device)

        self.trie = trie
        self.device = device
        self.codebook_size = trie.codebook_size
        self.num_levels = trie.num_levels
        self.codes = [tensor(part) for part in trie.codes]
        self.first_child = [tensor(part) for part in trie.first_child]
        self._tables: dict[int, Tensor] = {}
        precise = torch.float32 if device.type == "mps" else torch.float64  # which has no float64
        self.log_bucket_sizes = torch.from_numpy(np.log(trie.bucket_sizes)).to(device, precise)

    def children(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """All children of (n,) nodes of a depth: which of the nodes each is below, and its number; both (children,)."""
        return expand_ranges(*self._child_range(depth, nodes))

    def legal_codes(self, depth: int, nodes: Tensor) -> Tensor:
        """(n, codebook size) bool: the codes that continue each of (n,) nodes."""
        if self._has_table(depth):
            return self._table(depth)[nodes] < len(self.codes[depth])
        legal = torch.zeros(len(nodes), self.codebook_size, dtype=torch.bool, device=self.device)
        legal.view(-1).index_fill_(0, self.on_codes(depth, *self.children(depth, nodes)), True)
        return legal

    def on_codes(self, depth: int, rows: Tensor, children: Tensor) -> Tensor:
        """Where children of the nodes in (n,) `rows` stand in a flat (rows, codebook size) table."""
        return rows * self.codebook_size + self.codes[depth].index_select(0, children)

    def child_of(self, depth: int, nodes: Tensor, codes: Tensor) -> Tensor:
        """The child of each of (n,) nodes under (n,) legal codes; of another code, any number up to one beyond all."""
        if self._has_table(depth):
            return self._table(depth)[nodes, codes].long()
        low, high = self._child_range(depth, nodes)
        for _ in range(self.codebook_size.bit_length()):  # a binary search among the node's children
            middle = (low + high) // 2
            is_below = (self.codes[depth][middle.clamp_max(len(self.codes[depth]) - 1)] < codes) & (middle < high)
            low, high = torch.where(is_below, middle + 1, low), torch.where(is_below, high, middle)
        return low

    def leads_to_one_leaf(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """For each of (n,) nodes whether a single semantic ID is below it, and the first that is (its leaf)."""
        first, end = nodes, nodes + 1
        for below in range(depth, self.num_levels):
            first, end = self.first_child[below][first].long(), self.first_child[below][end].long()
        return end - first == 1, first

    def _has_table(self, depth: int) -> bool:
        return self.trie.num_nodes(depth) * self.codebook_size <= _TABLE_ENTRIES

    def _table(self, depth: int) -> Tensor:
        """(nodes, codebook size) int32: the child under each code, one beyond all where there is none."""
        if depth not in self._tables:
            parents, codes = self.trie.parents[depth], self.trie.codes[depth]
            table = np.full((self.trie.num_nodes(depth), self.codebook_size), len(codes), dtype=np.int32)
            table[parents, codes] = np.arange(len(codes), dtype=np.int32)
            self._tables[depth] = torch.from_numpy(table).to(self.device)
        return self._tables[depth]

    def _child_range(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        return self.first_child[depth][nodes].long(), self.first_child[depth][nodes + 1].long()
