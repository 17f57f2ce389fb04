"""Rankers whose weights are fitted, without labels, to the very histories that are ranked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recbase_hf.modeling.centering import center
from recbase_hf.scoring.adaptation import Adaptation, Component, adapt, model_components
from recbase_hf.scoring.calibration import text_similarity

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["AdaptedModel", "AdaptedText"]


class _Adapted:
    """Ranks by adapted scores; see `recbase_hf.scoring.adaptation`."""

    def __init__(self, adaptation: Adaptation) -> None:
        self.adaptation = adaptation
        self._num_items = len(adaptation.popularity)

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """No unit; see `Ranker.scores`."""
        rows = [np.arange(self._num_items)] * len(histories) if candidates is None else candidates
        parts = [part.astype(np.float32) for part in self.adaptation.scores(histories, rows)]
        return np.stack(parts) if candidates is None else np.concatenate([np.empty(0, np.float32), *parts])


class AdaptedModel(_Adapted):
    """The language model, the texts and the popularity among the histories that are ranked for.

    Args:
        scorer: of the model.
        catalog: whose rows are ranked.
        histories: all that are ranked for.
        seed: of what is drawn for the fit.

    Raises:
        DataError: too few histories.
    """

    name = "RecBase adapted"

    def __init__(
        self, scorer: RecBaseScorer, catalog: ItemCatalog, histories: Sequence[np.ndarray], *, seed: int = 0
    ) -> None:
        components = model_components(scorer, catalog)
        super().__init__(adapt(histories, len(catalog), components, seed=seed))


class AdaptedText(_Adapted):
    """The texts and the popularity among the histories that are ranked for, weighed alike but without any model.

    What an adapted model has to beat.

    Args:
        vectors: (items, width) float, of the catalog.
        histories: all that are ranked for.
        seed: of what is drawn for the fit.

    Raises:
        DataError: too few histories.
    """

    name = "text similarity and popularity, adapted"

    def __init__(self, vectors: np.ndarray, histories: Sequence[np.ndarray], *, seed: int = 0) -> None:
        centered = center(vectors, np.asarray(vectors.mean(axis=0, dtype=np.float64)))

        def text(histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray]) -> np.ndarray:
            pairs = zip(histories, candidates, strict=True)
            return np.concatenate([text_similarity(centered, history, rows) for history, rows in pairs])

        components: dict[str, Component] = {"text": text}
        super().__init__(adapt(histories, len(vectors), components, seed=seed))
