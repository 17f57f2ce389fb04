"""Log-probabilities of given candidates: each distinct prefix of a user's candidates is computed once.

The wanted prefixes of all users are laid out level by level, each level in the order of user and node; then the
prefixes below any run of nodes are a run of the next level, and the walk goes down run by run, so that no more nodes
are in memory than it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbase_hf.catalog.trie import CodeTrie
from recbase_hf.scoring.tree_attention import EncodedHistories
from recbase_hf.scoring.walk import Frontier, Walker

__all__ = ["score_leaves"]


def score_leaves(
    walker: Walker, histories: EncodedHistories, leaves: Sequence[np.ndarray], *, max_nodes: int
) -> list[np.ndarray]:
    """Log-probabilities of semantic IDs, code by code.

    Args:
        histories: of the users.
        leaves: for each user the numbers of the leaves.
        max_nodes: nodes that go through the model at a time.

    Returns:
        For each user (leaves, levels) of the walker's precision; the sum of a row is the score. With `catalog`, the
        last level includes minus the logarithm of the number of items that share the semantic ID.
    """
    sizes = [len(part) for part in leaves]
    users = np.repeat(np.arange(len(leaves)), sizes)
    pairs = users * np.int64(len(walker.trie.trie.bucket_sizes)) + np.concatenate([*leaves, np.zeros(0, np.int64)])
    distinct, which = np.unique(pairs, return_inverse=True)
    levels = _wanted(walker, distinct, len(leaves))
    _Run(walker, histories, levels, max_nodes).visit(walker.start(histories), 0)

    scores = np.empty((len(which), walker.trie.num_levels), dtype=walker.numpy_dtype)
    for depth in reversed(range(walker.trie.num_levels)):
        scores[:, depth] = levels[depth].log_probabilities.cpu().numpy()[which]
        which = levels[depth].parents[which]
    return np.split(scores, np.cumsum(sizes)[:-1])


@dataclass(frozen=True)
class _Level:
    """The wanted nodes of one depth, of all users, in the order of user and node."""

    nodes: Tensor  # (n,) int64
    parents: np.ndarray  # (n,) int64, rows of the level above; on the first level the user
    log_probabilities: Tensor  # (n,) of the code that leads to each node
    edges: Tensor  # rows of the nodes whose log-probability must be computed: those below a node that is passed
    passed: Tensor  # (edges,) bool: the node goes through the model, because what is below it is open
    first_edge: np.ndarray  # (nodes passed above + 1,) int64: where the edges below each begin
    edge_parents: Tensor  # (edges,) int64, which of the nodes passed above each is below


def _wanted(walker: Walker, pairs: np.ndarray, num_users: int) -> list[_Level]:
    """The levels above sorted, distinct pairs of user and leaf, each coded as user * leaves + leaf."""
    trie: CodeTrie = walker.trie.trie
    users, nodes = np.divmod(pairs, len(trie.bucket_sizes))
    drafts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for depth in range(trie.num_levels, 0, -1):
        above = trie.parents[depth - 1][nodes].astype(np.int64)
        is_new = np.ones(len(nodes), dtype=bool)
        is_new[1:] = (users[1:] != users[:-1]) | (above[1:] != above[:-1])
        drafts.append((users, nodes, np.cumsum(is_new) - 1))
        users, nodes = users[is_new], above[is_new]

    levels: list[_Level] = []
    passed_above = np.ones(len(nodes), dtype=bool)  # the roots, of the users that have a candidate
    for depth, (level_users, level_nodes, parents) in enumerate(reversed(drafts), start=1):
        node_tensor = torch.from_numpy(level_nodes).to(walker.device)
        is_single, _ = walker.leads_to_one_leaf(depth, node_tensor)
        edges = np.flatnonzero(passed_above[parents])
        rank_above = np.cumsum(passed_above) - 1
        edge_parents = rank_above[parents[edges]]
        passed = ~is_single.cpu().numpy()
        if depth == 1:  # the frontier has a root for every user, also for those without candidates
            edge_parents, count = level_users[edges], num_users
        else:
            count = int(passed_above.sum())
        log_probabilities = torch.zeros(len(level_nodes), dtype=walker.dtype, device=walker.device)
        if depth == trie.num_levels:
            log_probabilities += walker.leaf_terms(node_tensor)
        levels.append(
            _Level(
                nodes=node_tensor,
                parents=parents,
                log_probabilities=log_probabilities,
                edges=torch.from_numpy(edges).to(walker.device),
                passed=torch.from_numpy(passed[edges]).to(walker.device),
                first_edge=np.searchsorted(edge_parents, np.arange(count + 1)),
                edge_parents=torch.from_numpy(edge_parents).to(walker.device),
            )
        )
        passed_above = passed
    return levels


class _Run:
    def __init__(self, walker: Walker, histories: EncodedHistories, levels: list[_Level], max_nodes: int) -> None:
        self.walker, self.histories, self.levels, self.max_nodes = walker, histories, levels, max_nodes

    def visit(self, frontier: Frontier, start: int) -> None:
        """Fill in what is below a frontier, which is a run, from `start`, of the nodes passed at its depth."""
        level = self.levels[frontier.depth]
        below = slice(level.first_edge[start], level.first_edge[start + len(frontier)])
        edges, parents = level.edges[below], level.edge_parents[below] - start
        codes = self.walker.trie.codes[frontier.depth][level.nodes[edges]].long()
        level.log_probabilities[edges] += self.walker.log_probabilities(frontier)[parents, codes]

        passed = level.passed[below]
        nodes, parents = level.nodes[edges[passed]], parents[passed]
        start = int(level.passed[: below.start].sum())
        for first in range(0, len(nodes), self.max_nodes):
            part = slice(first, first + self.max_nodes)
            self.visit(self.walker.descend(self.histories, frontier, parents[part], nodes[part]), start + first)
