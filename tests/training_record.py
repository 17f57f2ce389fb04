"""What a training leaves beside its weights."""

from __future__ import annotations

from typing import Any


def make_training_record(**settings: Any) -> dict[str, Any]:
    """Of a training on a data set of somebody's own and on one whose terms are known."""
    data = {"toys": "h-toys", "stdlib": "h-stdlib"}
    defaults = {"size": "tiny", "epochs": 2.0, "level_weights": [], "data": data, "tokenizer_data": {"toys": "i-toys"}}
    return {
        "settings": {**defaults, **settings},
        "parameters": 1,
        "targets": 1000,
        "trained_targets": 7_200_000,
        "log": [],
    }
