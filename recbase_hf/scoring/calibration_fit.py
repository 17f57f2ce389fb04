"""Fits a calibration: the components of scores are computed once, and every mix on a grid is judged by its GAUC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recbase_hf.progress import progress
from recbase_hf.scoring.calibration import text_similarity
from recbase_hf.scoring.method import ScoreMethod

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["ALPHAS", "METHODS", "TEXT_WEIGHTS", "Mix", "ScoreComponents", "fit_mix", "score_components"]

METHODS: tuple[ScoreMethod, ...] = ("catalog", "joint")
"""Of equally good ones, the first is chosen."""

ALPHAS = tuple(step / 10 for step in range(11))

TEXT_WEIGHTS = (0.0, *(2.0**power for power in range(-4, 5)))
"""The first round; the second divides the octaves around the best of them in eight."""

_USERS_PER_BATCH = 256
_DIGITS = 12
"""Of a GAUC: the order of a sum must not make one of two equal mixes better."""


class Mix(NamedTuple):
    """A point of the grid; see `Calibration`."""

    method: ScoreMethod
    alpha: float
    text_weight: float


class _Pairs(NamedTuple):
    """Each positive row of a user with each negative one; `weights` (pairs,) make a mean over users of means."""

    positives: np.ndarray
    negatives: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class ScoreComponents:
    """What the calibrated scores of one domain are mixed from; user `u` owns the rows `offsets[u] : offsets[u + 1]`.

    Attributes:
        labels: (rows,) 0 or 1.
        offsets: (users + 1,) int64.
        scores: for each method (rows,) float, under the histories.
        priors: for each method (rows,) float, under an empty history.
        text: (rows,) float32, text similarity to the history.
    """

    labels: np.ndarray
    offsets: np.ndarray
    scores: dict[ScoreMethod, np.ndarray]
    priors: dict[ScoreMethod, np.ndarray]
    text: np.ndarray

    def mixed(self, mix: Mix) -> np.ndarray:
        """Calibrated scores, (rows,) float."""
        return self._mixed(mix.method, mix.alpha, [mix.text_weight])[:, 0]

    def gauc(self, scores: np.ndarray) -> Any:
        """Mean over users of the AUC of scores (rows,); of (rows, n), one for each of the n.

        Users without a positive or without a negative do not count; a tie counts one half.

        Raises:
            ValueError: no user has both.

        >>> labels, offsets = np.array([0, 1, 1, 0, 0]), np.array([0, 2, 5])
        >>> components = ScoreComponents(labels, offsets, {}, {}, np.zeros(5, dtype=np.float32))
        >>> float(components.gauc(np.array([0.1, 0.7, 0.4, 0.4, 0.9])))
        0.625
        """
        pairs = self._pairs
        if not len(pairs.weights):
            raise ValueError("no user has both a positive and a negative candidate; give users who have")
        chosen, others = scores[pairs.positives], scores[pairs.negatives]
        return pairs.weights @ ((chosen > others) + (chosen == others) / 2)

    def figures(self, mix: Mix) -> dict[str, float]:
        """The number of users, and the GAUC of each component and of the mix."""
        scores: dict[str, np.ndarray] = {"joint": self.scores["joint"], "catalog": self.scores["catalog"]}
        scores.update({"text similarity": self.text, "calibrated": self.mixed(mix)})
        figures = {name: round(float(self.gauc(part)), _DIGITS) for name, part in scores.items()}
        return {"users": len(self.offsets) - 1, **figures}

    def _mixed(self, method: ScoreMethod, alpha: float, text_weights: Sequence[float]) -> np.ndarray:
        """(rows, text weights)."""
        scores = self.scores[method] - alpha * self.priors[method]
        weights = np.asarray(text_weights, dtype=scores.dtype)  # sums are rounded, and ties arise, as in the scorer
        return scores[:, None] + weights * self.text.astype(scores.dtype)[:, None]

    @cached_property
    def _pairs(self) -> _Pairs:
        users = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        positives, negatives = np.flatnonzero(self.labels), np.flatnonzero(self.labels == 0)
        num_positives, num_negatives = (
            np.bincount(users[rows], minlength=len(self.offsets) - 1) for rows in (positives, negatives)
        )
        own = num_negatives[users[positives]]
        place = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
        first = (np.cumsum(num_negatives) - num_negatives)[users[positives]]
        counts = num_positives * num_negatives
        of_pair = np.repeat(users[positives], own)
        return _Pairs(
            np.repeat(positives, own),
            negatives[np.repeat(first, own) + place],
            1.0 / counts[of_pair] / np.count_nonzero(counts) if len(of_pair) else np.empty(0),
        )


def score_components(
    scorer: RecBaseScorer,
    catalog: ItemCatalog,
    histories: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    labels: np.ndarray,
) -> ScoreComponents:
    """Run the model over one domain.

    Args:
        histories: (n,) catalog rows a user.
        candidates: (n,) catalog rows a user.
        labels: (sum of n,) 0 or 1, user after user.

    Raises:
        DataError: the catalog has no vectors.
        FingerprintMismatchError: the catalog was made with another tokenizer.
    """
    vectors = catalog.centered_vectors
    items, row_of_item = np.unique(np.concatenate(candidates), return_inverse=True)
    nothing = [np.empty(0, dtype=np.int64)]
    scores: dict[ScoreMethod, np.ndarray] = {}
    priors: dict[ScoreMethod, np.ndarray] = {}
    for method in METHODS:
        priors[method] = scorer.score_rows(nothing, [items], catalog=catalog, method=method)[0][row_of_item]
        parts: list[np.ndarray] = []
        starts = range(0, len(histories), _USERS_PER_BATCH)
        for start in progress(starts, description=f"RecBase {method}"):
            users = slice(start, start + _USERS_PER_BATCH)
            parts += scorer.score_rows(histories[users], candidates[users], catalog=catalog, method=method)
        scores[method] = np.concatenate(parts)
    similarities = [
        text_similarity(vectors, scorer.kept(history), rows)
        for history, rows in zip(histories, candidates, strict=True)
    ]
    offsets = np.cumsum([0, *map(len, candidates)])
    return ScoreComponents(np.asarray(labels), offsets, scores, priors, np.concatenate(similarities))


def fit_mix(domains: Mapping[str, ScoreComponents]) -> Mix:
    """The mix with the highest mean GAUC over the domains; of equally good ones, that with the smallest alpha, then
    the smallest text weight.

    Raises:
        ValueError: there is no domain, or one without a user who has both a positive and a negative candidate.
    """
    if not domains:
        raise ValueError("there is no domain to fit a calibration on; name one at least")
    around = _best(domains.values(), TEXT_WEIGHTS).text_weight
    middle = around or TEXT_WEIGHTS[1] / 2
    refined = {float(f"{middle * 2 ** (step / 8):.4g}") for step in range(-7, 8)}
    return _best(domains.values(), sorted({around, *refined}))


def _best(domains: Iterable[ScoreComponents], text_weights: Sequence[float]) -> Mix:
    found = []
    for preference, method in enumerate(METHODS):
        for alpha in ALPHAS:
            values = [domain.gauc(domain._mixed(method, alpha, text_weights)) for domain in domains]
            means = np.mean(values, axis=0).round(_DIGITS)
            found += [
                (-mean, alpha, weight, preference) for mean, weight in zip(means.tolist(), text_weights, strict=True)
            ]
    _, alpha, weight, preference = min(found)
    return Mix(METHODS[preference], alpha, weight)
