"""What a score is, and how the best are searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

__all__ = ["ScoreMethod", "SearchMethod", "accumulation_dtype", "checked_alpha", "checked_beams", "checked_method"]

ScoreMethod = Literal["joint", "catalog"]
"""`joint`: each softmax over all codes of a level, the paper's score. `catalog`: each softmax over the codes that
continue the prefix in the catalog, less the log of the number of items that share the semantic ID, so that the
probabilities of all items of the catalog sum to 1."""


SearchMethod = Literal["exact", "beam"]
"""`exact`: the order of `score` over the whole catalog. `beam`: only the best prefixes are followed."""

DEFAULT_BEAMS = 200
"""As many as the codes of a level or fewer cost little, and too few miss most of the best."""


def checked_method(method: str) -> ScoreMethod:
    """The method, if it is one."""
    if method not in get_args(ScoreMethod):
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(get_args(ScoreMethod))}")
    return method  # type: ignore[return-value]


def checked_alpha(alpha: float) -> float:
    """The share of the score under an empty history, if it is one."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be between 0 and 1")
    return float(alpha)


def accumulation_dtype(model: Any) -> torch.dtype:
    """Log-probabilities are summed in float32 at least: bfloat16 would keep three digits and reorder candidates."""
    import torch

    return torch.promote_types(model.dtype, torch.float32)


def checked_beams(search: str, num_beams: int | None, k: int) -> int | None:
    """How many beams; None for the exact search."""
    if search not in get_args(SearchMethod):
        raise ValueError(f"search is {search!r}; it must be one of {', '.join(get_args(SearchMethod))}")
    if search == "exact":
        if num_beams is not None:
            raise ValueError(f"num_beams is {num_beams}, but the exact search has no beams; give search='beam' too")
        return None
    if num_beams is not None and num_beams < k:
        raise ValueError(f"num_beams is {num_beams}, too few to find k = {k} items; give at least as many")
    return max(2 * k, DEFAULT_BEAMS) if num_beams is None else num_beams
