"""What a score is: which softmax each code's probability is taken from."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

__all__ = ["ScoreMethod", "accumulation_dtype", "checked_method"]

ScoreMethod = Literal["joint", "catalog"]
"""`joint`: each softmax over all codes of a level, the paper's score. `catalog`: each softmax over the codes that
continue the prefix in the catalog, less the log of the number of items that share the semantic ID, so that the
probabilities of all items of the catalog sum to 1."""


def checked_method(method: str) -> ScoreMethod:
    """The method, if it is one."""
    if method not in get_args(ScoreMethod):
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(get_args(ScoreMethod))}")
    return method  # type: ignore[return-value]


def accumulation_dtype(model: Any) -> torch.dtype:
    """Log-probabilities are summed in float32 at least: bfloat16 would keep three digits and reorder candidates."""
    return torch.promote_types(model.dtype, torch.float32)
