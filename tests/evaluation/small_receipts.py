"""Small receipts of evaluations, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbase_hf.evaluation.comparison import EvaluatedSet

RANKERS = {
    "random": 0.50,
    "popularity (target set)": 0.70,
    "text similarity: mean": 0.60,
    "text similarity: centered, log-sum-exp": 0.66,
    "text kNN": 0.62,
    "EASE (target set)": 0.80,
    "RecBase joint": 0.65,
    "RecBase catalog": 0.68,
}


def make_receipt(
    name: str = "toys",
    *,
    gauc: dict[str, float | None] | None = None,
    lift: float = 0.0,
    protocol: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The receipt of a leave-last-out evaluation.

    Args:
        gauc: by ranker; `RANKERS` by default. Other metrics are that and a bit.
        lift: added to the rows of RecBase.
        protocol: settings that differ from the defaults.
        model: facts that differ from the defaults.
        **options: of the command, that differ from the defaults.
    """
    gauc = RANKERS if gauc is None else gauc
    protocol = {
        **{"name": "leave-last-out", "seed": 0, "ks": [1, 3], "num_items": 900, "num_users": 100 + len(name)},
        **{"num_candidates": 5, "max_history": 20, "max_users": 5000, "users_too_short": len(name)},
        **(protocol or {}),
    }
    facts = {
        **{"name": "mini", "fingerprint": "f1", "weights": "w1", "training_data": {"films": "h-films"}},
        **{"tokenizer_data": {"films": "i-films"}, "was_trained_on_this_data": False, "calibration": None},
        **(model or {}),
    }
    return {
        "format_version": 2,
        "date": "2026-11-22T15:00:00+00:00",
        "dataset": {"name": name, "hash": f"h-{name}", "items_hash": f"i-{name}", "users": 200, "items": 900},
        "protocol": protocol,
        "model": facts if any(ranker.startswith("RecBase") for ranker in gauc) else None,
        "rankers": [_row(ranker, value, lift) for ranker, value in gauc.items()],
        "options": {
            **{"model": "mini", "data": name, "output": f"{name}.json", "protocol": "leave-last-out", "seed": 0},
            **{"max_history": 20, "max_users": 5000},
            **options,
        },
        "command": f"recbase evaluate --model mini --data {name}",
        "seconds": 12.3,
        "versions": {"python": "3.11.7", "recbase-hf": "0.2.0", "torch": "2.9.0"},
        "hardware": {"processor": "abacus", "cpus": 2, "accelerator": None},
    }


def _row(ranker: str, value: float | None, lift: float) -> dict[str, Any]:
    value = None if value is None else value + lift * ranker.startswith("RecBase")
    metrics = {
        metric: _figure(None if value is None else value + 0.01 * number)
        for number, metric in enumerate(("gauc", "auc", "mrr", "ndcg@1", "ndcg@3", "hit@1"))
    }
    if ranker.startswith("RecBase"):
        metrics["log_loss"] = _figure(1.2)
    metrics["coverage@3"] = {"value": 0.25, "low": None, "high": None}
    return {"name": ranker, "metrics": metrics, "users": 100, "skipped_users": 0, "seconds": 1.25}


def _figure(value: float | None) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def evaluated(*receipts: dict[str, Any]) -> list[EvaluatedSet]:
    """What `read_sets` would give of files with these receipts."""
    return [EvaluatedSet(f"{number}.json", receipt) for number, receipt in enumerate(receipts)]


def write_receipts(folder: Path, *receipts: dict[str, Any]) -> Path:
    """A folder with a file for each receipt, named by number and data set."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, receipt in enumerate(receipts):
        (folder / f"{number}-{receipt['dataset']['name']}.json").write_text(json.dumps(receipt))
    return folder
