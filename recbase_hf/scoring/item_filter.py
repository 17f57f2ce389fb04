"""Which items each user may be recommended, as a question that a walk down the trie can ask at every node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recbase_hf.catalog.trie import CodeTrie
from recbase_hf.scoring.choice import NamedItems
from recbase_hf.scoring.trie_tensors import TrieTensors, expand_ranges
from recbase_hf.scoring.walk import Frontier

__all__ = ["ItemFilter"]


class ItemFilter:
    """The allowed items of a batch of users.

    A node may be entered as long as one allowed item is below it. Per user only the named items are looked at, so the
    cost does not grow with the catalog.

    Args:
        trie: of the catalog, on the model's device.
        choices: which items each user may be recommended.
    """

    def __init__(self, trie: TrieTensors, choices: Sequence[NamedItems]) -> None:
        self._trie = trie
        self._is_list = np.array([choice.are_allowed for choice in choices], dtype=bool)
        self._named = [choice.rows for choice in choices]
        counts = np.array([len(rows) for rows in self._named], dtype=np.int64)
        users = np.repeat(np.arange(len(counts)), counts)
        rows = np.concatenate([*self._named, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        self._marked = [
            torch.from_numpy(self._marked_nodes(depth, users, nodes)).to(trie.device)
            for depth, nodes in enumerate(trie.trie.paths(rows).T.astype(np.int64), start=1)
        ]
        self._is_list_tensor = torch.from_numpy(self._is_list).to(trie.device)

    def _marked_nodes(self, depth: int, users: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Sorted user * nodes + node: nodes with an allowed item (of users with a list), or without one (of others)."""
        trie: CodeTrie = self._trie.trie
        marked, counts = np.unique(users * np.int64(trie.num_nodes(depth)) + nodes, return_counts=True)
        marked_users, marked_nodes = np.divmod(marked, trie.num_nodes(depth))
        starts, ends = trie.leaf_ranges(depth, marked_nodes)
        all_named = counts == trie.first_item[ends] - trie.first_item[starts]
        return marked[self._is_list[marked_users] | all_named]

    def allowed_codes(self, frontier: Frontier) -> Tensor | None:
        """(n, codebook size) bool, False where no item below is allowed to the node's user; None if all items are."""
        depth, trie, marked = frontier.depth, self._trie, self._marked[frontier.depth]
        if not len(marked) and not self._is_list.any():
            return None
        offset = frontier.users * trie.trie.num_nodes(depth + 1)
        first, end = (trie.first_child[depth][frontier.nodes + step].long() + offset for step in (0, 1))
        rows, positions = expand_ranges(torch.searchsorted(marked, first), torch.searchsorted(marked, end))
        is_marked = torch.zeros(len(frontier), trie.codebook_size, dtype=torch.bool, device=trie.device)
        is_marked.view(-1).index_fill_(0, trie.on_codes(depth, rows, marked[positions] - offset[rows]), True)
        return is_marked == self._is_list_tensor[frontier.users][:, None]

    def items(self, user: int, leaf: int) -> np.ndarray:
        """The catalog rows at a leaf that a user may be recommended, ascending."""
        trie = self._trie.trie
        rows = trie.items[trie.first_item[leaf] : trie.first_item[leaf + 1]]
        named = self._named[user]
        place = np.searchsorted(named, rows)
        is_named = place < len(named)
        is_named[is_named] = named[place[is_named]] == rows[is_named]
        return rows[is_named == self._is_list[user]]
