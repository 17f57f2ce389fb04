"""What is measured on texts, codes and vectors wherever a catalog is judged: plain functions over arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from recbase_hf.errors import DataError

__all__ = ["drift", "is_shared_by_texts", "numbered_texts", "reconstruction_cosines", "texts_per_group"]


def numbered_texts(texts: Sequence[str]) -> np.ndarray:
    """Number (items,) int64 of each item's text: equal ones for equal texts, from 0 in the order of appearance.

    >>> numbered_texts(["go", "chess", "go"]).tolist()
    [0, 1, 0]
    """
    return pa.array(texts, pa.large_string()).dictionary_encode().indices.to_numpy().astype(np.int64)


def texts_per_group(group: np.ndarray, text: np.ndarray) -> np.ndarray:
    """How many distinct texts (groups,) int64 each group of items holds.

    Args:
        group: (items,) integer, the group of each item, from 0; such as its semantic ID.
        text: (items,) integer, the number of each item's text, from 0.

    >>> texts_per_group(np.array([0, 0, 0, 1]), np.array([5, 6, 5, 5])).tolist()
    [2, 1]
    """
    group, text = np.asarray(group, dtype=np.int64), np.asarray(text, dtype=np.int64)
    num_texts = text.max(initial=0) + 1
    return np.bincount(np.unique(group * num_texts + text) // num_texts)


def is_shared_by_texts(group: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Whether (items,) bool another text than the item's own is in its group; arguments as in `texts_per_group`.

    >>> is_shared_by_texts(np.array([0, 0, 1, 1]), np.array([5, 6, 5, 5])).tolist()
    [True, True, False, False]
    """
    return texts_per_group(group, text)[group] > 1


def reconstruction_cosines(vectors: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Cosine (items,) float32 between centered vectors and what the codes decode to; 0 where one of them is zero.

    Args:
        vectors: (items, width) floating.
        decoded: (items, width) floating.

    Raises:
        DataError: the shapes differ.

    >>> reconstruction_cosines(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    if np.shape(vectors) != np.shape(decoded):
        raise DataError(
            f"the vectors have shape {np.shape(vectors)}, the decoded ones {np.shape(decoded)}; they must be equal"
        )
    vectors, decoded = (np.asarray(array, dtype=np.float32) for array in (vectors, decoded))
    products = np.einsum("iw,iw->i", vectors, decoded)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(decoded, axis=1)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 1e-12)
    return np.clip(cosines, -1.0, 1.0)


def drift(cosines: np.ndarray, fitted_cosines: np.ndarray) -> float:
    """Share of items that the quantizer reconstructs worse than all but 1 % of the items it was fitted on.

    Args:
        cosines: (items,) reconstruction cosines.
        fitted_cosines: (101,) percentiles 0 to 100 of the reconstruction cosine over the fitted items.

    Returns:
        About 0.01 for items like the fitted ones.

    >>> drift(np.array([0.2, 0.6, 0.7, 0.9]), np.linspace(0.5, 1.0, 101))
    0.25
    """
    return float((np.asarray(cosines) < np.asarray(fitted_cosines)[1]).mean())
