"""The zero-shot evaluation: RecBase on a catalog it was not trained on, beside what needs no training at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.baselines import mean_cosine_scores, popularity_scores, random_scores, similarity_scores
from recbase_hf.evaluation.figures import Figures, measure
from recbase_hf.evaluation.protocol import CandidateSet
from recbase_hf.progress import progress

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.method import ScoreMethod
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["evaluate_zero_shot"]


def evaluate_zero_shot(
    scorer: RecBaseScorer,
    catalog: ItemCatalog,
    histories: Histories,
    candidate_set: CandidateSet,
    *,
    methods: Sequence[ScoreMethod] = ("joint", "catalog"),
    users_per_batch: int = 256,
) -> list[Figures]:
    """Figures of the baselines and then of RecBase, one for each of `methods`.

    Args:
        scorer: what is evaluated; histories longer than its `max_history` lose their oldest items.
        catalog: of the target data set, made with the scorer's tokenizer.
        histories: of the target data set, in rows of the catalog; only the popularity baseline looks at them.
        candidate_set: made from `histories` by `leave_last_out`.
        methods: score methods of RecBase, `joint` and `catalog`.
        users_per_batch: users that RecBase scores at a time.

    Raises:
        ValueError: a method is unknown, `users_per_batch` is below 1, or catalog, histories and candidate set do not
            belong together.
        FingerprintMismatchError: the catalog was made with another tokenizer.
    """
    from recbase_hf.scoring.method import checked_method

    if users_per_batch < 1:
        raise ValueError(f"users_per_batch is {users_per_batch}; it must be at least 1")
    methods = [checked_method(method) for method in methods]
    seed = int(candidate_set.settings.get("seed", 0))
    scores = {
        "random": random_scores(candidate_set, seed),
        "popularity (target set)": popularity_scores(candidate_set, histories),
        "text similarity: mean cosine": mean_cosine_scores(candidate_set, catalog.require_vectors()[0]),
        "text similarity: centered, log-sum-exp": similarity_scores(candidate_set, catalog.centered_vectors),
    }
    for method in methods:
        scores[f"RecBase {method}"] = _recbase_scores(scorer, catalog, candidate_set, method, users_per_batch)
    return [measure(name, part, candidate_set, seed=seed) for name, part in scores.items()]


def _recbase_scores(
    scorer: RecBaseScorer, catalog: ItemCatalog, candidate_set: CandidateSet, method: ScoreMethod, users_per_batch: int
) -> np.ndarray:
    """(users, candidates) float32."""
    scores = np.empty(candidate_set.candidates.shape, dtype=np.float32)
    with progress(description=f"RecBase {method}", total=len(candidate_set), unit="user") as bar:
        for start in range(0, len(candidate_set), users_per_batch):
            batch = slice(start, start + users_per_batch)
            rows = list(candidate_set.candidates[batch])
            scores[batch] = scorer.score_rows(candidate_set.histories[batch], rows, catalog=catalog, method=method)
            bar.update(len(rows))
    return scores
