"""One engine under both verbs: catalog rows in, scores and catalog rows out, in batches that fit a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

from recbase_hf.catalog import ItemCatalog
from recbase_hf.scoring.candidates import score_leaves
from recbase_hf.scoring.choice import ItemChoice, NamedItems
from recbase_hf.scoring.item_filter import ItemFilter
from recbase_hf.scoring.memory import BatchSizes, batch_sizes
from recbase_hf.scoring.method import ScoreMethod
from recbase_hf.scoring.prior import EmptyHistoryPrior
from recbase_hf.scoring.ranking import rank_items
from recbase_hf.scoring.search import Search, first_beams
from recbase_hf.scoring.tree_attention import EncodedHistories
from recbase_hf.scoring.trie_tensors import TrieTensors
from recbase_hf.scoring.walk import Walker, evaluating

__all__ = ["Engine", "adapters_of"]

_FOUND_BYTES = 24
"""Of a semantic ID that the exact search has found."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _evaluation(method: _Method) -> _Method:
    """Run a method with the model in evaluation mode and without gradients."""

    @wraps(method)
    def run(self: Engine, *arguments: Any, **options: Any) -> Any:
        with evaluating(self.model):
            return method(self, *arguments, **options)

    return cast(_Method, run)


def state_of(model: Any) -> tuple[Any, ...]:
    """Something that differs once the weights are others or another adapter is active.

    Writing to the `.data` of a weight goes unnoticed; clear `catalog.priors` after that.
    """
    # The address too, because weights may be exchanged for others; inference tensors have no version.
    weights = tuple((part.data_ptr(), part.is_inference() or part._version) for part in model.parameters())
    return weights, adapters_of(model)


def adapters_of(model: Any) -> tuple[Any, ...]:
    """Which adapters are active, as PEFT's layers say."""
    names = ("active_adapters", "merged_adapters", "disable_adapters")
    layers = (layer for layer in model.modules() if hasattr(layer, "active_adapters") and hasattr(layer, "base_layer"))
    return tuple(tuple(str(getattr(layer, name, None)) for name in names) for layer in layers)


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

    @_evaluation
    def encode(self, histories: Sequence[np.ndarray]) -> EncodedHistories:
        """Run the model over histories, (n,) catalog rows a user."""
        return self.walker.encode([self.walker.layout.history_ids(self.catalog.codes[rows]) for rows in histories])

    @_evaluation
    def extend(self, encoded: EncodedHistories, rows: np.ndarray) -> EncodedHistories:
        """One user's encoded history with further items behind it."""
        return self.walker.extend(encoded, self.walker.layout.codes_to_ids(self.catalog.codes[rows]).ravel())

    @_evaluation
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

    @_evaluation
    def score_encoded(
        self, encoded: EncodedHistories, candidates: Sequence[np.ndarray], sizes: BatchSizes
    ) -> list[np.ndarray]:
        """`score` under histories that are encoded already."""
        leaves = [self.catalog.trie.leaves[rows].astype(np.int64) for rows in candidates]
        scores = score_leaves(self.walker, encoded, leaves, max_nodes=sizes.nodes)
        if self.alpha:
            prior = self._prior().of_leaves(self.walker, np.concatenate(leaves), max_nodes=sizes.nodes)
            bounds = np.cumsum([len(part) for part in leaves])[:-1]
            scores = [part - self.alpha * own for part, own in zip(scores, np.split(prior, bounds), strict=True)]
        return scores

    @_evaluation
    def recommend(
        self, histories: Sequence[np.ndarray], k: int, choice: ItemChoice, *, num_beams: int | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each user the k best catalog rows and their scores; by `num_beams` beams, or exactly if that is None.

        Raises:
            ValueError: fewer than k items remain for a user.
        """
        choice.require(k)
        sizes = self.batch_sizes(histories, num_beams or 1)
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(histories)
        users_together = min(sizes.users, max(1, sizes.nodes // (num_beams or first_beams(k))))
        if num_beams is None:  # of a model that cannot tell items apart, all semantic IDs are kept to the end
            users_together = min(users_together, max(1, self.memory_budget // (_FOUND_BYTES * self.walker.num_leaves)))
        for users in _batches(histories, range(len(histories)), users_together):
            of_users = [histories[user] for user in users]
            results = self.recommend_encoded(
                self.encode(of_users), of_users, k, [choice.of(user) for user in users], sizes, num_beams=num_beams
            )
            for user, result in zip(users, results, strict=True):
                found[user] = result
        return found

    @_evaluation
    def recommend_encoded(
        self,
        encoded: EncodedHistories,
        histories: Sequence[np.ndarray],
        k: int,
        choices: Sequence[NamedItems],
        sizes: BatchSizes,
        *,
        num_beams: int | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`recommend` under histories that are encoded already; as catalog rows they break ties."""
        items = ItemFilter(self.walker.trie, choices)
        prior = self._prior().for_search(self.walker, self.alpha, max_nodes=sizes.nodes) if self.alpha else None
        search = Search(self.walker, encoded, items, alpha=self.alpha, prior=prior, max_nodes=sizes.nodes)
        leaves = search.exact(k) if num_beams is None else search.beam(num_beams)
        return [rank_items(self.catalog, part, items, user, histories[user], k) for user, part in enumerate(leaves)]

    def _prior(self) -> EmptyHistoryPrior:
        """Kept with the catalog as long as the weights stay the same."""
        key = (self.walker.method, state_of(self.model))
        priors: dict[Any, EmptyHistoryPrior] = self.catalog.priors.setdefault(self.model, {})
        for outdated in [other for other in list(priors) if other[1] != key[1]]:
            priors.pop(outdated, None)
        return priors.setdefault(key, priors.get(key) or EmptyHistoryPrior(self.walker))


def _batches(histories: Sequence[np.ndarray], users: Sequence[int], size: int) -> Iterator[list[int]]:
    """The users in groups with histories of like length."""
    by_length = sorted(users, key=lambda user: len(histories[user]))
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]
