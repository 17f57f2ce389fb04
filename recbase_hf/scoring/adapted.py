"""AdaptedScorer: a scorer that knows one domain, from the histories of its users alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.scoring.adaptation import Adaptation, adapt, model_components
from recbase_hf.scoring.choice import as_list, is_one_list, rows_of_users

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer, Recommendation

__all__ = ["AdaptedScorer"]


class AdaptedScorer:
    """Scores for one catalog, weighed by the histories of its users; `RecBaseScorer.adapt` makes it.

    Attributes:
        catalog: what is scored.
        adaptation: the weights, and the popularity that was counted.
    """

    def __init__(self, scorer: RecBaseScorer, histories: Sequence[Any], catalog: ItemCatalog, *, seed: int = 0) -> None:
        if is_one_list(as_list(histories)):
            raise ValueError(
                "adapt takes the histories of many users, a list of item ids each; this is one list of ids"
            )
        rows = [catalog.rows(history) for history in histories]
        self.catalog = catalog
        self._adapter = scorer.active_adapter
        self.adaptation: Adaptation = adapt(rows, len(catalog), model_components(scorer, catalog), seed=seed)
        self._scorer = scorer

    @property
    def weights(self) -> dict[str, float]:
        """Of `joint`, `prior`, `text` and `popularity`: what the histories themselves trust in."""
        return self.adaptation.weights

    def score(self, history: Sequence[Any], candidates: Sequence[Any]) -> Any:
        """Adapted scores, (candidates,) float64, or one such array a user; see `RecBaseScorer.score`.

        They have no unit; their order is what counts.

        Raises:
            UnknownItemError: an item is not in the catalog.
            ValueError: the numbers of histories and candidate lists differ, or another adapter is active than when the
                weights were fitted.
        """
        self._require_same_adapter()
        histories, rows, one_user = rows_of_users(history, candidates, self.catalog)
        scores = self.adaptation.scores(histories, rows)
        return scores[0] if one_user else scores

    def recommend(self, history: Sequence[Any], k: int = 10, *, exclude_history: bool = True) -> list[Recommendation]:
        """The `k` items of the catalog with the highest adapted scores for one user, best first.

        Every item of the catalog is scored. The scores are adapted ones, no log-probabilities.

        Raises:
            UnknownItemError: an item is not in the catalog.
            ValueError: fewer than `k` items remain, or there are several histories.
        """
        self._require_same_adapter()
        history = as_list(history)
        if not is_one_list(history):
            raise ValueError("recommend takes one history here; call it for each user")
        rows = self.catalog.rows(history)
        left = len(self.catalog) - (len(np.unique(rows)) if exclude_history else 0)
        if not 1 <= k <= left:
            raise ValueError(f"k is {k}, but {left} items can be recommended; give a number from 1 to that")
        scores = self.adaptation.scores([rows], [np.arange(len(self.catalog))])[0]
        if exclude_history:
            scores[rows] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        return self._scorer.recommendations(self.catalog, best, scores[best])

    def _require_same_adapter(self) -> None:
        if self._scorer.active_adapter != self._adapter:
            raise ValueError(
                f"these weights were fitted with adapter {self._adapter!r}, now {self._scorer.active_adapter!r} is "
                "active: adapt again, or set_adapter back"
            )
