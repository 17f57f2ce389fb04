"""The best semantic IDs of a catalog for each history: by beams, or exactly.

The exact search is a branch and bound: log-probabilities are never positive, so that nothing below a node scores higher
than the node. A narrow beam first finds k items; then every node is followed whose bound reaches the k-th of them. If
the model cannot tell the items apart, that is the whole catalog, and otherwise a small part of it; the result is the
same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbase_hf.scoring.item_filter import ItemFilter
from recbase_hf.scoring.prior import PriorOffsets
from recbase_hf.scoring.tree_attention import EncodedHistories
from recbase_hf.scoring.walk import Frontier, Walker

__all__ = ["FoundLeaves", "Search", "first_beams"]


def first_beams(k: int) -> int:
    """How many beams the exact search begins with: too few give a low bound, more cost more than they spare."""
    return max(2 * k, 64)


_MARGIN = 1e-5
"""Relative, and more for weights in half precision; the same score differs in its last digits between batches."""


@dataclass(frozen=True)
class FoundLeaves:
    """Of one user: semantic IDs that hold an allowed item, best first."""

    leaves: np.ndarray  # (n,) int64
    scores: np.ndarray  # (n,)


class Search:
    """Finds leaves of the trie under encoded histories.

    Args:
        items: which items each user may be recommended.
        alpha: the share of the prior that is taken off, 0 to 1.
        prior: `EmptyHistoryPrior.for_search` with this alpha; None if it is 0.
        max_nodes: nodes that go through the model at a time; at least users times beams.
    """

    def __init__(
        self,
        walker: Walker,
        histories: EncodedHistories,
        items: ItemFilter,
        *,
        alpha: float,
        prior: PriorOffsets | None,
        max_nodes: int,
    ) -> None:
        self.walker, self.trie, self.histories, self.items = walker, walker.trie, histories, items
        self.alpha, self.prior, self.max_nodes = alpha, prior, max_nodes

    @property
    def num_levels(self) -> int:
        """Codes in a semantic ID."""
        return self.trie.num_levels

    # ---- by beams ----------------------------------------------------------------------------------------------

    def beam(self, num_beams: int) -> list[FoundLeaves]:
        """Follow the `num_beams` best prefixes of each user from level to level; as many leaves come back.

        Fewer come back only where fewer hold an allowed item.
        """
        num_users, width = len(self.histories), self.trie.codebook_size
        frontier = self.walker.start(self.histories)
        totals = torch.zeros(num_users, dtype=self.walker.dtype, device=self.walker.device)
        beams = torch.zeros_like(frontier.users)  # which beam of its user each row of the frontier is
        arrived = totals.new_full((num_users, num_beams), float("-inf"))
        leaves = torch.zeros(num_users, num_beams, dtype=torch.long, device=totals.device)
        for depth in range(self.num_levels):
            open_beams = int(beams.max()) + 1 if len(beams) else 0
            pool = totals.new_full((num_users, open_beams, width), float("-inf"))
            row_of_beam = beams.new_zeros(num_users, open_beams)
            if len(beams):
                pool[frontier.users, beams] = totals[:, None] + self._code_scores(frontier)
                row_of_beam[frontier.users, beams] = torch.arange(len(beams), device=beams.device)
            # Beams that arrived at their leaf early compete on.
            best, choice = torch.cat([pool.flatten(1), arrived], dim=1).topk(num_beams, dim=1)
            is_legal, is_open = best > float("-inf"), choice < open_beams * width
            stays = is_legal & ~is_open
            arrived = best.masked_fill(~stays, float("-inf"))
            leaves = leaves.gather(1, (choice - open_beams * width).clamp_min(0))

            users, columns = (is_legal & is_open).nonzero(as_tuple=True)
            choice = choice[users, columns]
            parents, codes = row_of_beam[users, choice // width], choice % width
            nodes = self.trie.child_of(depth, frontier.nodes[parents], codes)
            totals = best[users, columns]
            is_done, leaf = self.walker.leads_to_one_leaf(depth + 1, nodes)
            done_users, done_columns = users[is_done], columns[is_done]
            arrived[done_users, done_columns] = totals[is_done] + self._rest(depth + 1, leaf[is_done])
            leaves[done_users, done_columns] = leaf[is_done]
            if bool(is_done.all()):
                frontier, totals, beams = _nothing(frontier), totals[:0], beams[:0]
            else:
                totals, users = totals[~is_done], users[~is_done]
                frontier = self.walker.descend(self.histories, frontier, parents[~is_done], nodes[~is_done])
                _, counts = torch.unique_consecutive(users, return_counts=True)
                first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
                beams = torch.arange(len(users), device=users.device) - first
        arrived, order = arrived.sort(dim=1, descending=True, stable=True)
        scores, leaves_of_users = arrived.cpu().numpy(), leaves.gather(1, order).cpu().numpy()
        counts = np.isfinite(scores).sum(axis=1)
        return [FoundLeaves(*parts) for parts in _cut(leaves_of_users, scores, counts)]

    # ---- exactly -----------------------------------------------------------------------------------------------

    def exact(self, k: int) -> list[FoundLeaves]:
        """All leaves that score at least as high as the k-th best allowed item of each user."""
        floor = self._floor(k)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        totals = torch.zeros_like(floor)
        highest_rest = None if self.prior is None else self.prior.highest_rest
        self._visit(self.walker.start(self.histories), totals, floor, highest_rest, found)
        users, leaves, scores = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
        best_first = np.lexsort((leaves, -scores, users))
        bounds = np.searchsorted(users[best_first], np.arange(1, len(floor)))
        return [FoundLeaves(leaves[part], scores[part]) for part in np.split(best_first, bounds)]

    def _visit(
        self,
        frontier: Frontier,
        totals: Tensor,
        floor: Tensor,
        highest_rest: Sequence[Tensor] | None,
        found: list[tuple[Tensor, Tensor, Tensor]],
    ) -> None:
        """Collect what is below a frontier, with its scores so far, and reaches the floor of its user."""
        depth = frontier.depth + 1
        rows, nodes = self.trie.children(frontier.depth, frontier.nodes)
        places = self.trie.on_codes(frontier.depth, rows, nodes)
        totals = totals[rows] + self.walker.log_probabilities(*frontier.open_end).view(-1)[places]
        if self.prior is not None:
            totals += self.prior.offsets[frontier.depth][nodes]
        if depth == self.num_levels:
            totals += self.walker.leaf_terms(nodes)
        bounds = totals if highest_rest is None else totals + highest_rest[frontier.depth][nodes]
        reaches = bounds >= floor[frontier.users[rows]]
        allowed = self.items.allowed_codes(frontier)
        if allowed is not None:
            reaches &= allowed.view(-1)[places]
        rows, nodes, totals = rows[reaches], nodes[reaches], totals[reaches]
        users = frontier.users[rows]
        is_done, leaf = self.walker.leads_to_one_leaf(depth, nodes)
        found.append((users[is_done], leaf[is_done], totals[is_done] + self._rest(depth, leaf[is_done])))
        rows, nodes, totals = rows[~is_done], nodes[~is_done], totals[~is_done]
        del places, bounds, reaches, allowed  # not to be kept while what is below is visited
        for start in range(0, len(rows), self.max_nodes):
            part = slice(start, start + self.max_nodes)
            below = self.walker.descend(self.histories, frontier, rows[part], nodes[part])
            self._visit(below, totals[part], floor, highest_rest, found)

    def _floor(self, k: int) -> Tensor:
        """(users,) a score that k items of each user reach; the lowest number where that is most of the catalog."""
        scores = [torch.finfo(self.walker.dtype).min] * len(self.histories)
        beams = first_beams(k)
        if beams * len(self.histories) <= self.max_nodes and 4 * k <= len(self.trie.codes[-1]):
            scores = [self._score_of_item(user, found, k) for user, found in enumerate(self.beam(beams))]
            margin = max(_MARGIN, 8 * torch.finfo(self.histories.last_hidden.dtype).eps)
            scores = [score - margin * (1 + abs(score)) for score in scores]
        return torch.tensor(scores, dtype=self.walker.dtype, device=self.walker.device)

    def _score_of_item(self, user: int, found: FoundLeaves, k: int) -> float:
        """The score of the user's k-th best item among the leaves."""
        count = 0
        for leaf, score in zip(found.leaves, found.scores, strict=True):
            count += len(self.items.items(user, int(leaf)))
            if count >= k:
                return float(score)
        raise AssertionError("a beam as wide as k finds k items where there are k")

    # ---- what both need ----------------------------------------------------------------------------------------

    def _code_scores(self, frontier: Frontier) -> Tensor:
        """(n, codebook size): what each next code adds to the score; -inf where no allowed item is below."""
        scores = self.walker.log_probabilities(*frontier.open_end)
        if self.walker.method == "joint":
            legal = self.trie.legal_codes(frontier.depth, frontier.nodes)
            scores = scores.masked_fill(~legal, float("-inf"))
        if self.prior is not None:
            scores = scores + self._on_codes(frontier, self.prior.offsets[frontier.depth])
        if self.walker.method == "catalog" and frontier.depth + 1 == self.num_levels:
            scores = scores - self._on_codes(frontier, self.trie.log_bucket_sizes)
        allowed = self.items.allowed_codes(frontier)
        return scores if allowed is None else scores.masked_fill(~allowed, float("-inf"))

    def _on_codes(self, frontier: Frontier, of_nodes: Tensor) -> Tensor:
        """(n, codebook size): a number of each node of the next depth, at the code that leads to it; else 0."""
        rows, children = self.trie.children(frontier.depth, frontier.nodes)
        spread = torch.zeros(len(frontier), self.trie.codebook_size, dtype=self.walker.dtype, device=self.walker.device)
        places = self.trie.on_codes(frontier.depth, rows, children)
        spread.view(-1)[places] = of_nodes[children].to(spread.dtype)
        return spread

    def _rest(self, depth: int, leaves: Tensor) -> Tensor:
        """What the codes after `depth` add on the way to leaves that no other is beside."""
        if depth == self.num_levels:
            return torch.zeros(len(leaves), dtype=self.walker.dtype, device=leaves.device)
        return (1 - self.alpha) * self.walker.leaf_terms(leaves)


def _cut(leaves: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for of_user, score, count in zip(leaves, scores, counts, strict=True):
        yield of_user[:count], score[:count]


def _nothing(frontier: Frontier) -> Frontier:
    return Frontier(frontier.depth + 1, frontier.users[:0], frontier.nodes[:0], frontier.hidden[:0])
