"""All figures of one scorer on one candidate set, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbase_hf.evaluation import metrics
from recbase_hf.evaluation.intervals import bootstrap_auc_interval, bootstrap_interval
from recbase_hf.evaluation.protocol import CandidateSet

__all__ = ["Figures", "measure"]

_AUC_BOOTSTRAP_ROWS = 50_000_000
"""One resample of the global AUC walks over all rows, so that many rows get fewer resamples, but 100 at least."""


@dataclass(frozen=True)
class Figures:
    """What one scorer reaches on one candidate set; ties count as in `recbase_hf.evaluation.metrics`.

    Attributes:
        name: of the scorer.
        auc: over all (user, candidate) pairs together.
        auc_interval: 95 % bootstrap interval over users, from `auc_samples` resamples.
        gauc: mean AUC of a user.
        gauc_interval: 95 % bootstrap interval over users, from `gauc_samples` resamples.
        mrr: mean reciprocal rank of a user's first positive.
        ndcg: of the first k candidates, by k.
        recall: share of a user's positives among the first k candidates, by k.
        scored_users: users with both classes.
        skipped_users: users with one class only, who have no AUC.
    """

    name: str
    auc: float
    auc_interval: tuple[float, float]
    gauc: float
    gauc_interval: tuple[float, float]
    mrr: float
    ndcg: dict[int, float]
    recall: dict[int, float]
    scored_users: int
    skipped_users: int
    auc_samples: int
    gauc_samples: int


def measure(
    name: str,
    scores: np.ndarray,
    candidate_set: CandidateSet,
    *,
    ks: Sequence[int] = (1, 3),
    seed: int = 0,
    samples: int = 1000,
) -> Figures:
    """All figures of one scorer.

    Args:
        name: of the scorer, for the table.
        scores: (users, candidates) float, higher is better.
        candidate_set: gives labels and users.
        ks: cut-offs of NDCG and recall; those beyond the number of candidates are lowered to it.
        seed: of the bootstrap.
        samples: resamples of the bootstrap; the AUC takes fewer where there are more than 50,000 pairs.

    Raises:
        ValueError: the scores have another shape than the candidates, or hold NaN; the labels are all of one class.
    """
    if np.shape(scores) != candidate_set.candidates.shape:
        raise ValueError(
            f"{name}: the scores have shape {np.shape(scores)}, the candidates {candidate_set.candidates.shape}; "
            "give one score a candidate"
        )
    num_users, num_candidates = candidate_set.candidates.shape
    users = np.repeat(np.arange(num_users), num_candidates)
    columns = candidate_set.labels.ravel(), np.ravel(scores), users
    scored, areas = metrics.user_auc(*columns)
    auc_samples = min(samples, max(100, _AUC_BOOTSTRAP_ROWS // max(len(users), 1)))
    ks = sorted({min(k, num_candidates) for k in ks})
    return Figures(
        name=name,
        auc=metrics.auc(*columns[:2]),
        auc_interval=bootstrap_auc_interval(*columns, samples=auc_samples, seed=seed),
        gauc=float(areas.mean()) if len(areas) else math.nan,
        gauc_interval=bootstrap_interval(areas, samples=samples, seed=seed),
        mrr=metrics.mrr(*columns),
        ndcg={k: metrics.ndcg_at_k(*columns, k) for k in ks},
        recall={k: metrics.recall_at_k(*columns, k) for k in ks},
        scored_users=len(scored),
        skipped_users=num_users - len(scored),
        auc_samples=auc_samples,
        gauc_samples=samples,
    )
