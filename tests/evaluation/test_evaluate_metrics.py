"""The `evaluate` shells return what the plain functions return, at once, in batches and combined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("evaluate")

import evaluate

from recbase_hf.evaluation import metrics
from recbase_hf.evaluation.evaluate_metrics import AUC, GAUC, MRR, NDCG, Recall


@pytest.fixture
def table() -> dict[str, Any]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    # Differences far below float32 resolution: rounding the scores on the way would make ties.
    scores = 1.0 + 1e-12 * (random.permutation(60) + 20 * labels)
    return {"predictions": scores, "references": labels, "users": [f"user {i}" for i in random.integers(0, 8, 60)]}


@pytest.fixture
def expected(table: dict[str, Any]) -> dict[str, float]:
    labels, scores, users = table["references"], table["predictions"], table["users"]
    gauc = metrics.gauc(labels, scores, users)
    return {
        "auc": metrics.auc(labels, scores),
        "gauc": gauc.value,
        "scored_users": gauc.scored_users,
        "skipped_users": gauc.skipped_users,
        "mrr": metrics.mrr(labels, scores, users),
        "ndcg@3": metrics.ndcg_at_k(labels, scores, users, 3),
        "recall@3": metrics.recall_at_k(labels, scores, users, 3),
    }


def in_batches(table: dict[str, Any], size: int) -> list[dict[str, Any]]:
    return [
        {name: column[start : start + size] for name, column in table.items()}
        for start in range(0, len(table["users"]), size)
    ]


@pytest.mark.parametrize(
    ("metric", "options", "names"),
    [
        (AUC, {}, ["auc"]),
        (GAUC, {}, ["gauc", "scored_users", "skipped_users"]),
        (MRR, {}, ["mrr"]),
        (NDCG, {"k": 3}, ["ndcg@3"]),
        (Recall, {"k": 3}, ["recall@3"]),
    ],
)
def test_metric_equals_the_function_at_once_and_in_batches(
    metric: type, options: dict, names: list[str], table: dict[str, Any], expected: dict[str, float], tmp_path: Path
) -> None:
    wanted = {name: expected[name] for name in names}
    if metric is AUC:
        del table["users"]
        batches = [{name: column[i : i + 7] for name, column in table.items()} for i in range(0, 60, 7)]
    else:
        batches = in_batches(table, 7)
    instance = metric(cache_dir=str(tmp_path))
    assert instance.compute(**table, **options) == wanted
    for batch in batches:
        instance.add_batch(**batch)
    assert instance.compute(**options) == wanted


def test_combined_metrics_share_users_and_k(table: dict[str, Any], expected: dict[str, float], tmp_path: Path) -> None:
    combined = evaluate.combine([metric(cache_dir=str(tmp_path)) for metric in (AUC, GAUC, MRR, NDCG, Recall)])
    assert combined.compute(**table, k=3) == expected
    for batch in in_batches(table, 16):
        combined.add_batch(**batch)
    assert combined.compute(k=3) == expected


def test_soft_labels_are_refused_not_truncated(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels row 1 is 0\.7"):
        AUC(cache_dir=str(tmp_path)).compute(predictions=[0.1, 0.2], references=[0, 0.7])


def test_integer_users_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="string"):
        GAUC(cache_dir=str(tmp_path)).compute(predictions=[0.1, 0.2], references=[0, 1], users=[5, 5])


def test_unknown_options_are_refused(table: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="top"):
        NDCG(cache_dir=str(tmp_path)).compute(**table, top=3)
