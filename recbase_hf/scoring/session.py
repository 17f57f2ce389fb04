"""A user who is there now: the history stays encoded between requests and grows item by item."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.scoring.choice import ItemChoice
from recbase_hf.scoring.engine import Engine
from recbase_hf.scoring.method import ScoreMethod, SearchMethod, checked_beams
from recbase_hf.scoring.tree_attention import EncodedHistories

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer, Recommendation

__all__ = ["RecBaseSession"]


class RecBaseSession:
    """One user's encoded history; made by `RecBaseScorer.session`.

    Scores and recommendations are those of the scorer for the same history. `append` costs one token a code, as long as
    the history fits the model's context; beyond that the oldest item goes, all positions move, and the history is
    encoded anew. So it is when another adapter becomes active.
    """

    def __init__(self, scorer: RecBaseScorer, catalog: ItemCatalog, history: Sequence[Any]) -> None:
        self._scorer, self._catalog = scorer, catalog
        self._rows = catalog.rows(history)
        self._adapter = scorer.active_adapter
        self._states = self._encode(self._rows)

    @property
    def history(self) -> list[str]:
        """Item ids, oldest first, also those that are beyond the context."""
        return [self._catalog.item_ids[row] for row in self._rows]

    def __repr__(self) -> str:
        return f"RecBaseSession({len(self._rows)} items of {self._catalog!r})"

    def append(self, item_id: Any) -> None:
        """The user has chosen another item.

        Raises:
            UnknownItemError: the item is not in the catalog.
            TypeError: a list of ids.
        """
        if isinstance(item_id, list | tuple | np.ndarray):
            raise TypeError(f"append takes one item id, not {item_id!r}")
        new = self._catalog.rows([item_id])
        rows = np.concatenate([self._rows, new])
        if len(rows) > self._scorer.max_history:
            encoded = self._encode(rows)
        else:
            encoded = self._engine("joint", 0.0).extend(self._encoded, new)
        self._rows, self._states, self._adapter = (
            rows,
            encoded,
            self._scorer.active_adapter,
        )  # together, so that a failure above changes nothing

    def score(self, candidates: Sequence[Any], *, method: ScoreMethod = "catalog", alpha: float = 0.0) -> np.ndarray:
        """Log-probability of each candidate as the next item, (candidates,); as `RecBaseScorer.score`."""
        engine = self._engine(method, alpha)
        sizes = engine.batch_sizes([self._kept])
        (levels,) = engine.score_encoded(self._encoded, [self._catalog.rows(candidates)], sizes)
        scores: np.ndarray = levels.sum(axis=1)
        return scores

    def recommend(
        self,
        k: int = 10,
        *,
        method: ScoreMethod = "catalog",
        alpha: float = 0.0,
        search: SearchMethod = "exact",
        num_beams: int | None = None,
        allowed: Sequence[Any] | None = None,
        exclude: Iterable[Any] = (),
        exclude_history: bool = True,
        mask: Any = None,
    ) -> list[Recommendation]:
        """The `k` best items of the catalog; as `RecBaseScorer.recommend`."""
        engine = self._engine(method, alpha)
        choice = ItemChoice(
            self._catalog, [self._rows], allowed=allowed, exclude=exclude, exclude_history=exclude_history, mask=mask
        )
        choice.require(k)
        beams = checked_beams(search, num_beams, k)
        sizes = engine.batch_sizes([self._kept], beams or 1)
        (found,) = engine.recommend_encoded(self._encoded, [self._kept], k, [choice.of(0)], sizes, num_beams=beams)
        return self._scorer.recommendations(self._catalog, *found)

    @property
    def _encoded(self) -> EncodedHistories:
        """The history as the active adapter reads it."""
        if self._adapter != self._scorer.active_adapter:
            self._states, self._adapter = self._encode(self._rows), self._scorer.active_adapter
        return self._states

    @property
    def _kept(self) -> np.ndarray:
        return self._scorer.kept(self._rows)

    def _encode(self, rows: np.ndarray) -> EncodedHistories:
        return self._engine("joint", 0.0).encode([self._scorer.kept(rows)])

    def _engine(self, method: ScoreMethod, alpha: float) -> Engine:
        return self._scorer.engine(self._catalog, method, alpha)
