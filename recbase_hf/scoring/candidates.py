"""Log-probabilities of given candidates: each distinct prefix of a user's candidates is computed once.

The candidates of all users stand in the order of user and semantic ID, so that those that share a prefix are neighbors.
They are cut into runs; the prefixes of a run go through the model in one forward, whatever their length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from recbase_hf.scoring.tree_attention import EncodedHistories
from recbase_hf.scoring.walk import Walker

__all__ = ["score_leaves"]


def score_leaves(
    walker: Walker, histories: EncodedHistories, leaves: Sequence[np.ndarray], *, max_nodes: int
) -> list[np.ndarray]:
    """Log-probabilities of semantic IDs, code by code.

    Args:
        histories: of the users.
        leaves: for each user the numbers of the leaves.
        max_nodes: prefixes that go through the model at a time.

    Returns:
        For each user (leaves, levels) of the walker's precision; the sum of a row is the score. With `catalog`, the
        last level includes minus the logarithm of the number of items that share the semantic ID.
    """
    sizes = [len(part) for part in leaves]
    users = np.repeat(np.arange(len(leaves)), sizes)
    pairs = users * np.int64(walker.num_leaves) + np.concatenate([*leaves, np.zeros(0, np.int64)])
    distinct, which = np.unique(pairs, return_inverse=True)
    users, ids = np.divmod(distinct, walker.num_leaves)
    paths = walker.trie.trie.paths_to(ids).astype(np.int64)
    scores = np.empty((len(distinct), walker.trie.num_levels), dtype=walker.numpy_dtype)
    for run in _runs(users, paths, max_nodes):
        scores[run] = _score_run(walker, histories, users[run], paths[run])
    return np.split(scores[which], np.cumsum(sizes)[:-1])


def _opens(users: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """(n, levels) bool: whether a row is the first of its user under its prefix of 0..levels-1 codes."""
    opens = np.ones(paths.shape, dtype=bool)
    is_new = users[1:] != users[:-1]
    opens[1:] = np.column_stack([is_new, is_new[:, None] | (paths[1:, :-1] != paths[:-1, :-1])])
    return opens


def _runs(users: np.ndarray, paths: np.ndarray, max_nodes: int) -> Iterator[slice]:
    """Neighbors with at most `max_nodes` prefixes, or a single candidate."""
    opened = np.cumsum(_opens(users, paths).sum(axis=1))
    start = 0
    while start < len(opened):
        # The first of a run opens all its prefixes, whatever it shares with the one before.
        limit = opened[start] + max_nodes - paths.shape[1]
        stop = max(start + 1, int(np.searchsorted(opened, limit, side="right")))
        yield slice(start, stop)
        start = stop


def _score_run(walker: Walker, histories: EncodedHistories, users: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """(n, levels) log-probabilities of the paths of (n,) users, ascending."""
    device, levels = walker.device, paths.shape[1]
    nodes = torch.from_numpy(np.column_stack([np.zeros_like(users), paths])).to(device)
    closed = [walker.leads_to_one_leaf(depth, nodes[:, depth])[0] for depth in range(1, levels)]
    is_open = np.column_stack([np.ones_like(users, dtype=bool), *(~part.cpu().numpy() for part in closed)])

    # The prefixes that have to be computed, in the order of the users, and which of them each candidate is under.
    row, depths = np.nonzero(_opens(users, paths) & is_open)
    number = np.full(paths.shape, -1)
    number[row, depths] = np.arange(len(row))
    number = np.maximum.accumulate(number, axis=0)
    hidden = _hidden(walker, histories, users[row], depths, nodes[row, depths], number[row])

    scores = torch.zeros(paths.shape, dtype=walker.dtype, device=device)
    for depth in range(levels):
        of_depth, below = np.flatnonzero(depths == depth), np.flatnonzero(is_open[:, depth])
        if len(below) == 0:
            break
        prefixes = torch.from_numpy(of_depth).to(device)
        log_probabilities = walker.log_probabilities(depth, nodes[row[of_depth], depth], hidden[prefixes])
        parents = torch.from_numpy(np.searchsorted(of_depth, number[below, depth])).to(device)
        codes = walker.trie.codes[depth][nodes[below, depth + 1]].long()
        scores[below, depth] = log_probabilities[parents, codes]
    scores[:, -1] += walker.leaf_terms(nodes[:, -1])
    return scores.cpu().numpy()


def _hidden(
    walker: Walker,
    histories: EncodedHistories,
    users: np.ndarray,
    depths: np.ndarray,
    nodes: Tensor,
    ancestors: np.ndarray,
) -> Tensor:
    """(prefixes, width): what predicts the code behind each prefix; `ancestors` has the prefix of each depth above."""
    users_on_device = torch.from_numpy(users).to(walker.device)
    hidden = histories.last_hidden[users_on_device]
    below = np.flatnonzero(depths > 0)
    if len(below):
        number = np.cumsum(depths > 0) - 1  # among those below a root
        places, ancestors = torch.from_numpy(below).to(walker.device), number[ancestors[below, 1:]]
        hidden[places] = walker.descend_at_once(
            histories,
            users_on_device[places],
            torch.from_numpy(depths[below]).to(walker.device),
            nodes[places],
            torch.from_numpy(ancestors).to(walker.device),
        )
    return hidden
