"""Centering of item vectors on their own catalog's mean.

Sentence vectors mostly say which domain a text comes from. Less the mean of their own catalog they say how an item
differs from its neighbors, which is what quantizer and similarities need on a domain nobody has seen.
"""

from __future__ import annotations

import numpy as np

__all__ = ["center", "shrunk_mean"]


def shrunk_mean(vectors: np.ndarray, corpus_mean: np.ndarray, weight: float) -> np.ndarray:
    """Mean (width,) float32 of (items, width) vectors and `weight` further items that lie at `corpus_mean`.

    >>> shrunk_mean(np.array([[1.0, 0.0]]), np.zeros(2), weight=1.0).tolist()
    [0.5, 0.0]
    """
    total = np.asarray(vectors).sum(axis=0, dtype=np.float64) + weight * np.asarray(corpus_mean, dtype=np.float64)
    return (total / (len(vectors) + weight)).astype(np.float32)


def center(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Subtract `mean` and scale to unit length, (items, width) float32; an item exactly on the mean stays zero.

    >>> center(np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    centered = np.asarray(vectors, dtype=np.float32) - np.asarray(mean, dtype=np.float32)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    return centered / np.where(lengths > 1e-12, lengths, np.float32(1.0))
