"""Centering of item vectors on their own catalog's mean.

Sentence vectors mostly say which domain a text comes from. Less the mean of their own catalog they say how an item
differs from its neighbors, which is what quantizer and similarities need on a domain nobody has seen.
"""

from __future__ import annotations

import numpy as np

__all__ = ["SUMMED", "center", "mean_of_sums", "shrunk_mean"]


SUMMED = 1 << 18
"""Vectors that are summed together, so that a mean does not depend on whether they were all in memory."""


def shrunk_mean(vectors: np.ndarray, corpus_mean: np.ndarray, weight: float) -> np.ndarray:
    """Mean (width,) float32 of (items, width) vectors and `weight` further items that lie at `corpus_mean`.

    >>> shrunk_mean(np.array([[1.0, 0.0]]), np.zeros(2), weight=1.0).tolist()
    [0.5, 0.0]
    """
    vectors = np.asarray(vectors)
    starts = range(0, len(vectors), SUMMED)
    sums = [vectors[start : start + SUMMED].sum(axis=0, dtype=np.float64) for start in starts]
    return mean_of_sums(sums, len(vectors), corpus_mean, weight)


def mean_of_sums(sums: list[np.ndarray], count: int, corpus_mean: np.ndarray, weight: float) -> np.ndarray:
    """`shrunk_mean` of `count` vectors, of which each `SUMMED` were summed (float64) before."""
    total = sum(sums, weight * np.asarray(corpus_mean, dtype=np.float64))
    return (total / (count + weight)).astype(np.float32)


def center(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Subtract `mean` and scale to unit length, (items, width) float32; an item exactly on the mean stays zero.

    >>> center(np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    centered = np.asarray(vectors, dtype=np.float32) - np.asarray(mean, dtype=np.float32)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    return centered / np.where(lengths > 1e-12, lengths, np.float32(1.0))
