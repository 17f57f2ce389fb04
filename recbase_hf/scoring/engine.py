"""One engine under both verbs: catalog rows in, scores and catalog rows out, in batches that fit a memory budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from recbase_hf.catalog import ItemCatalog
from recbase_hf.scoring.candidates import score_leaves
from recbase_hf.scoring.choice import ItemChoice
from recbase_hf.scoring.item_filter import ItemFilter
from recbase_hf.scoring.memory import BatchSizes, batch_sizes
from recbase_hf.scoring.method import ScoreMethod
from recbase_hf.scoring.prior import EmptyHistoryPrior
from recbase_hf.scoring.ranking import rank_items
from recbase_hf.scoring.search import Search, first_beams
from recbase_hf.scoring.tree_attention import EncodedHistories
from recbase_hf.scoring.trie_tensors import TrieTensors
from recbase_hf.scoring.walk import Walker

__all__ = ["Engine"]


class Engine:
    """Scores and searches one catalog with one language model.

    Args:
        model: a `Qwen2ForCausalLM` in evaluation mode.
        catalog: whose items are scored.
        method: `catalog` or `joint`.
        alpha: the share of the score under an empty history that is taken off.
        memory_budget: bytes; see `batch_sizes`.
    """

    def __init__(
        self, model: Any, catalog: ItemCatalog, *, method: ScoreMethod, alpha: float, memory_budget: int
    ) -> None:
        self.model, self.catalog, self.alpha, self.memory_budget = model, catalog, alpha, memory_budget
        self.walker = Walker(model, TrieTensors.of(catalog.trie, model.device), method)

    def batch_sizes(self, histories: Sequence[np.ndarray], beams: int = 1) -> BatchSizes:
        """What goes together, given the longest of the histories (catalog rows)."""
        layout = self.walker.layout
        tokens = 1 + layout.num_levels * max(map(len, histories), default=0)
        return batch_sizes(self.model, layout, budget=self.memory_budget, history_tokens=tokens, beams=beams)

    def encode(self, histories: Sequence[np.ndarray]) -> EncodedHistories:
        """Run the model over histories, (n,) catalog rows a user."""
        return self.walker.encode([self.walker.layout.history_ids(self.catalog.codes[rows]) for rows in histories])

    @torch.inference_mode()
    def score(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities, code by code: for each user (candidates, levels), rows summing to the scores."""
        sizes = self.batch_sizes(histories)
        nothing = np.empty((0, self.walker.layout.num_levels), dtype=self.walker.numpy_dtype)
        scores = [nothing] * len(histories)
        wanted = [user for user, rows in enumerate(candidates) if len(rows)]
        for users in _batches(histories, wanted, sizes.users):
            encoded = self.encode([histories[user] for user in users])
            parts = self.score_encoded(encoded, [candidates[user] for user in users], sizes)
            for user, part in zip(users, parts, strict=True):
                scores[user] = part
        return scores

    @torch.inference_mode()
    def score_encoded(
        self, encoded: EncodedHistories, candidates: Sequence[np.ndarray], sizes: BatchSizes
    ) -> list[np.ndarray]:
        """`score` under histories that are encoded already."""
        leaves = [self.catalog.trie.leaves[rows].astype(np.int64) for rows in candidates]
        scores = score_leaves(self.walker, encoded, leaves, max_nodes=sizes.nodes)
        if self.alpha:
            prior = self._prior()
            for part, of_user in zip(scores, leaves, strict=True):
                part -= self.alpha * prior.of_leaves(self.walker, of_user, max_nodes=sizes.nodes)
        return scores

    @torch.inference_mode()
    def recommend(
        self, histories: Sequence[np.ndarray], k: int, choice: ItemChoice, *, num_beams: int | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each user the k best catalog rows and their scores; by `num_beams` beams, or exactly if that is None.

        Raises:
            ValueError: fewer than k items remain for a user.
        """
        choice.require(k, len(self.catalog))
        sizes = self.batch_sizes(histories, num_beams or 1)
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(histories)
        users_together = min(sizes.users, max(1, sizes.nodes // (num_beams or first_beams(k))))
        for users in _batches(histories, range(len(histories)), users_together):
            of_users = [histories[user] for user in users]
            results = self.recommend_encoded(
                self.encode(of_users), of_users, k, choice.of(users), sizes, num_beams=num_beams
            )
            for user, result in zip(users, results, strict=True):
                found[user] = result
        return found

    @torch.inference_mode()
    def recommend_encoded(
        self,
        encoded: EncodedHistories,
        histories: Sequence[np.ndarray],
        k: int,
        choice: ItemChoice,
        sizes: BatchSizes,
        *,
        num_beams: int | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`recommend` under histories that are encoded already; as catalog rows they break ties."""
        items = ItemFilter(self.walker.trie, *choice)
        prior = self._prior().offsets(self.walker, self.alpha, max_nodes=sizes.nodes) if self.alpha else None
        search = Search(self.walker, encoded, items, alpha=self.alpha, prior=prior, max_nodes=sizes.nodes)
        leaves = search.exact(k) if num_beams is None else search.beam(num_beams)
        return [rank_items(self.catalog, part, items, user, histories[user], k) for user, part in enumerate(leaves)]

    def _prior(self) -> EmptyHistoryPrior:
        """Kept with the catalog as long as the weights stay the same."""
        # The address too, because weights may be exchanged for others; inference tensors have no version.
        weights = tuple((part.data_ptr(), part.is_inference() or part._version) for part in self.model.parameters())
        key = (self.walker.method, weights)
        priors: dict[Any, EmptyHistoryPrior] = self.catalog.priors.setdefault(self.model, {})
        if key not in priors:
            for outdated in [other for other in priors if other[1] != weights]:
                del priors[outdated]
            priors[key] = EmptyHistoryPrior(self.walker)
        return priors[key]


def _batches(histories: Sequence[np.ndarray], users: Sequence[int], size: int) -> Iterator[list[int]]:
    """The users in groups with histories of like length."""
    by_length = sorted(users, key=lambda user: len(histories[user]))
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]
