"""How alike item vectors are to a history of items."""

from __future__ import annotations

import numpy as np

__all__ = ["log_sum_exp_similarity"]


def log_sum_exp_similarity(cosines: np.ndarray, beta: float = 5.0) -> np.ndarray:
    """Log-sum-exp, over the items of the history, of `beta` times the cosine with each candidate.

    One like item in the history suffices. For `beta` near 0 the mean cosine decides, for large ones the highest.

    Args:
        cosines: (..., candidates, history) float32; -inf where a history is shorter than others.

    Returns:
        (..., candidates) float32; 0 without a history.

    >>> log_sum_exp_similarity(np.array([[1.0, 0.0], [0.5, 0.5]], dtype=np.float32)).round(3).tolist()
    [5.006999969482422, 3.193000078201294]
    """
    exponents = np.float32(beta) * cosines
    highest = exponents.max(axis=-1, keepdims=True, initial=np.float32(-1e30))  # finite without a history too
    sums = np.exp(exponents - highest).sum(axis=-1)
    return np.where(sums > 0, np.log(np.maximum(sums, np.float32(1e-30))) + highest[..., 0], np.float32(0.0))
