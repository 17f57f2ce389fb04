"""The functions of `recbase_hf.evaluation.metrics` as `evaluate` metrics, for loops that collect batches with them.

Instantiate the classes directly: `GAUC().compute(predictions=..., references=..., users=...)`; `evaluate.load` would
look for their names on the Hub. Needs the `eval` extra: `pip install 'recbase-hf[eval]'`.

Inputs are `predictions` (float scores), `references` (0 or 1) and, but for `AUC`, `users` (strings: pass
`[str(user) for user in users]` for integer ids). `evaluate.combine` hands the arguments of one metric to all, so every
metric accepts `users` and `k`, and the ones that have no use for them ignore them.

`evaluate` keeps what it collects in a file of its cache; choose the folder with `GAUC(cache_dir=...)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from recbase_hf.evaluation import metrics

__all__ = ["AUC", "GAUC", "MRR", "NDCG", "Recall"]


class _ItemMetric(evaluate.Metric):
    """What the metrics share: one row for each (user, candidate) pair, described by the docstring of the class."""

    needs_users = True

    def _info(self) -> evaluate.MetricInfo:
        # References are float so that a soft label is refused by the metric; an integer column would truncate it.
        features = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        if self.needs_users:
            features["users"] = datasets.Value("string")
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description="predictions: float scores; references: 0 or 1; users: user ids as strings",
            features=datasets.Features(features),
        )


class AUC(_ItemMetric):
    """Global AUC, ties counting one half: `{"auc": float}`."""

    needs_users = False

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[float],
        users: Sequence[str] | None = None,
        k: int | None = None,
    ) -> dict[str, Any]:
        return {"auc": metrics.auc(references, predictions)}


class GAUC(_ItemMetric):
    """Unweighted mean of the per-user AUC: `{"gauc": float, "scored_users": int, "skipped_users": int}`."""

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], users: Sequence[str], k: int | None = None
    ) -> dict[str, Any]:
        result = metrics.gauc(references, predictions, users)
        return {"gauc": result.value, "scored_users": result.scored_users, "skipped_users": result.skipped_users}


class MRR(_ItemMetric):
    """Mean reciprocal rank of each user's first positive: `{"mrr": float}`."""

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], users: Sequence[str], k: int | None = None
    ) -> dict[str, Any]:
        return {"mrr": metrics.mrr(references, predictions, users)}


class NDCG(_ItemMetric):
    """Mean NDCG of each user's first `k` candidates, `compute(k=10)`: `{"ndcg@10": float}`."""

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], users: Sequence[str], k: int = 10
    ) -> dict[str, Any]:
        return {f"ndcg@{k}": metrics.ndcg_at_k(references, predictions, users, k)}


class Recall(_ItemMetric):
    """Mean share of each user's positives among the first `k` candidates, `compute(k=10)`: `{"recall@10": float}`."""

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], users: Sequence[str], k: int = 10
    ) -> dict[str, Any]:
        return {f"recall@{k}": metrics.recall_at_k(references, predictions, users, k)}
