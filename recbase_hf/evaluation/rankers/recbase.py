"""RecBase as one ranker among others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["VIEWS", "MirroredRanker", "RecBaseRanker", "ScoreName"]

ScoreName = Literal["joint", "catalog", "calibrated"]

VIEWS = 4
"""Views of a catalog: as it is, and three mirror images; each costs as much as the first."""


class RecBaseRanker:
    """Ranks by one of a scorer's scores.

    Args:
        scorer: histories longer than its `max_history` lose their oldest items.
        catalog: whose rows are ranked, made with the scorer's tokenizer.
        score: `joint`, `catalog`, or `calibrated`, which the bundle's calibration says how to make.
    """

    def __init__(self, scorer: RecBaseScorer, catalog: ItemCatalog, score: ScoreName) -> None:
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


class MirroredRanker:
    """Ranks by the joint score less that of an empty history, in the mean over several views of the catalog.

    For models that learned from mirror images (`mirrors` of `recbase pretrain`): to them each view of a catalog that
    they do not know is as good as any, and what one rounding to codes hides another shows.

    Args:
        scorer: histories longer than its `max_history` lose their oldest items.
        catalog: whose rows are ranked, with vectors.
    """

    name = "RecBase mirrored"

    def __init__(self, scorer: RecBaseScorer, catalog: ItemCatalog) -> None:
        self._scorer, self._num_items = scorer, len(catalog)
        self._views = [catalog.mirrored(number, tokenizer=scorer.tokenizer) for number in range(VIEWS)]

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Natural-log ratios of probabilities; see `Ranker.scores`."""
        rows = [np.arange(self._num_items)] * len(histories) if candidates is None else candidates
        views = [
            np.concatenate(self._scorer.score_rows(histories, rows, catalog=view, method="joint", alpha=1.0))
            for view in self._views
        ]
        mean: np.ndarray = np.stack(views).mean(axis=0, dtype=np.float32)
        return mean.reshape(len(histories), -1) if candidates is None else mean
