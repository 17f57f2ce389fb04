"""RecBase as one ranker among others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["RecBaseRanker"]


class RecBaseRanker:
    """Ranks by one of a scorer's scores.

    Args:
        scorer: histories longer than its `max_history` lose their oldest items.
        catalog: whose rows are ranked, made with the scorer's tokenizer.
        score: `joint`, `catalog`, or `calibrated`, which the bundle's calibration says how to make.
    """

    def __init__(
        self, scorer: RecBaseScorer, catalog: ItemCatalog, score: Literal["joint", "catalog", "calibrated"]
    ) -> None:
        self.name = f"RecBase {score}"
        self._scorer, self._catalog, self._score = scorer, catalog, score

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Natural-log probabilities (with a text term where calibrated); see `Ranker.scores`."""
        rows = candidates
        if rows is None:
            rows = [np.arange(len(self._catalog))] * len(histories)
        if self._score == "calibrated":
            parts = self._scorer.score_calibrated_rows(histories, rows, catalog=self._catalog)
        else:
            parts = self._scorer.score_rows(histories, rows, catalog=self._catalog, method=self._score)
        return np.stack(parts) if candidates is None else np.concatenate(parts)
