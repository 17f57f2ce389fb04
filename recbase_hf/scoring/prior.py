"""Scores under an empty history: what is likely for everybody, of which calibration takes a share away."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbase_hf.progress import progress
from recbase_hf.scoring.candidates import score_leaves
from recbase_hf.scoring.walk import Walker

__all__ = ["EmptyHistoryPrior", "PriorOffsets"]

_LEAVES_AT_A_TIME = 1 << 14


class PriorOffsets(NamedTuple):
    """For each depth 1..levels a number of every node, (nodes,)."""

    offsets: list[Tensor]
    """Minus alpha times the prior of the code that leads to the node."""

    highest_rest: list[Tensor]
    """The most that the offsets below the node can add."""


class EmptyHistoryPrior:
    """Log-probabilities of a catalog's semantic IDs under an empty history, each computed once.

    Attributes:
        levels: for each depth 1..levels (nodes,): of the code that leads to the node; NaN where not yet computed. With
            `catalog`, the last includes minus the logarithm of the number of items that share the semantic ID.
    """

    def __init__(self, walker: Walker) -> None:
        trie = walker.trie.trie
        self._trie = trie
        self._for_search: tuple[tuple[float, torch.device], PriorOffsets] | None = None
        self.levels = [
            np.full(trie.num_nodes(depth), np.nan, dtype=walker.numpy_dtype) for depth in range(1, trie.num_levels + 1)
        ]

    def of_leaves(self, walker: Walker, leaves: np.ndarray, *, max_nodes: int) -> np.ndarray:
        """(n, levels) of (n,) leaves."""
        missing = np.unique(leaves[np.isnan(self.levels[-1][leaves])])
        if len(missing):
            self._compute(walker, missing, max_nodes)
        nodes = self._trie.paths_to(leaves).T
        return np.stack([level[part] for level, part in zip(self.levels, nodes, strict=True)], axis=1)

    def for_search(self, walker: Walker, alpha: float, *, max_nodes: int) -> PriorOffsets:
        """What a search with `alpha` needs; computes what is not known of the catalog."""
        if self._for_search is None:
            self.of_leaves(walker, np.arange(len(self.levels[-1])), max_nodes=max_nodes)
        key = (alpha, walker.device)
        if self._for_search is None or self._for_search[0] != key:
            offsets = [-alpha * part for part in self.levels]
            rest = [np.zeros_like(offsets[-1])]
            for depth in range(self._trie.num_levels - 1, 0, -1):
                gains = offsets[depth] + rest[0]
                rest.insert(0, np.maximum.reduceat(gains, self._trie.first_child[depth][:-1]))
            tensors = ([torch.from_numpy(part).to(walker.device) for part in parts] for parts in (offsets, rest))
            self._for_search = key, PriorOffsets(*tensors)
        return self._for_search[1]

    def _compute(self, walker: Walker, leaves: np.ndarray, max_nodes: int) -> None:
        histories = walker.encode([walker.layout.history_ids([])])
        starts = range(0, len(leaves), _LEAVES_AT_A_TIME)
        for start in progress(starts, description="empty history") if len(starts) > 1 else starts:
            part = leaves[start : start + _LEAVES_AT_A_TIME]
            (scores,) = score_leaves(walker, histories, [part], max_nodes=max_nodes)
            for level, nodes, column in zip(self.levels, self._trie.paths_to(part).T, scores.T, strict=True):
                level[nodes] = column
