"""Scores under an empty history: what is likely for everybody, of which calibration takes a share away."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recbase_hf.progress import progress
from recbase_hf.scoring.candidates import score_leaves
from recbase_hf.scoring.walk import Walker

__all__ = ["EmptyHistoryPrior"]

_LEAVES_AT_A_TIME = 1 << 16


class EmptyHistoryPrior:
    """Log-probabilities of a catalog's semantic IDs under an empty history, each computed once.

    Attributes:
        levels: for each depth 1..levels (nodes,): of the code that leads to the node; NaN where not yet computed. With
            `catalog`, the last includes minus the logarithm of the number of items that share the semantic ID.
    """

    def __init__(self, walker: Walker) -> None:
        trie = walker.trie.trie
        self._trie = trie
        self.levels = [
            np.full(trie.num_nodes(depth), np.nan, dtype=walker.numpy_dtype) for depth in range(1, trie.num_levels + 1)
        ]

    def of_leaves(self, walker: Walker, leaves: np.ndarray, *, max_nodes: int) -> np.ndarray:
        """(n, levels) of (n,) leaves."""
        missing = np.unique(leaves[np.isnan(self.levels[-1][leaves])])
        if len(missing):
            self._compute(walker, missing, max_nodes)
        return np.stack([part[nodes] for part, nodes in zip(self.levels, self._nodes_above(leaves), strict=True)], 1)

    def offsets(self, walker: Walker, alpha: float, *, max_nodes: int) -> list[Tensor]:
        """-alpha times the prior of every node of each depth 1..levels; computes what is not known of the catalog."""
        missing = np.flatnonzero(np.isnan(self.levels[-1]))
        if len(missing):
            self._compute(walker, missing, max_nodes)
        return [torch.from_numpy(-alpha * part).to(walker.device) for part in self.levels]

    def _compute(self, walker: Walker, leaves: np.ndarray, max_nodes: int) -> None:
        histories = walker.encode([walker.layout.history_ids([])])
        with progress(description="empty history", total=len(leaves), unit="ID", leave=False) as bar:
            for start in range(0, len(leaves), _LEAVES_AT_A_TIME):
                part = leaves[start : start + _LEAVES_AT_A_TIME]
                (scores,) = score_leaves(walker, histories, [part], max_nodes=max_nodes)
                for level, nodes, column in zip(self.levels, self._nodes_above(part), scores.T, strict=True):
                    level[nodes] = column
                bar.update(len(part))

    def _nodes_above(self, leaves: np.ndarray) -> list[np.ndarray]:
        """The nodes on the path to each leaf, for each depth 1..levels."""
        path = [leaves]
        for parents in reversed(self._trie.parents[1:]):
            path.append(parents[path[-1]])
        return path[::-1]
