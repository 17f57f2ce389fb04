"""Rankers that add up, over the items of the history, how near each is to the candidate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.rankers.ranker import flat_candidates, history_matrix, training_matrix
from recbase_hf.modeling.centering import center

__all__ = ["ItemKnn", "TextKnn"]

_BLOCK_CELLS = 1 << 24
"""Pairs of items that are compared at a time: 64 MB."""


class _Neighbors:
    """Scores from `nearest`, (items, items) CSR: in each row an item's neighbors and how near they are."""

    def __init__(self, nearest: Any) -> None:
        self._votes = nearest.T.tocsr()

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Sums of similarities, 0 for items without a neighbor in the history; see `Ranker.scores`."""
        num_items = self._votes.shape[0]
        sums = history_matrix(histories, num_items) @ self._votes
        if candidates is None:
            return sums.toarray()
        users, items = flat_candidates(candidates, num_items)
        if not len(items):  # scipy answers no indices with a matrix
            return np.empty(0, dtype=np.float32)
        return np.asarray(sums[users, items]).ravel()


class ItemKnn(_Neighbors):
    """Items had by the same users: similarity is c(i, j) / (sqrt(c(i) c(j)) + shrinkage), c the number of users.

    Args:
        training: of the target set, without any held-out event.
        num_items: items in the catalog.
        neighbors: the most similar items that count for an item.
        shrinkage: takes weight from similarities that few users stand for.

    Raises:
        ValueError: there is no training event, or one with an item that is not in the catalog.

    >>> training = Histories(np.array(["ann", "bob"], object), np.array([0, 2, 4]), np.array([0, 1, 0, 2]))
    >>> ItemKnn(training, num_items=4, shrinkage=0.0).scores([np.array([1])], None).round(3)
    array([[0.707, 0.   , 0.   , 0.   ]], dtype=float32)
    """

    name = "ItemKNN (target set)"

    def __init__(self, training: Histories, num_items: int, *, neighbors: int = 200, shrinkage: float = 10.0) -> None:
        had = training_matrix(training, num_items)
        super().__init__(sparse.vstack([_nearest(part, neighbors) for part in _co_occurrence(had, shrinkage)]).tocsr())


class TextKnn(_Neighbors):
    """The same with neighbors by the cosine of centered text vectors, where that is positive; learns from no event.

    Args:
        vectors: (items, width) float, of the catalog. All pairs are compared: work grows with the square of items.
        neighbors: the most similar items that count for an item.

    >>> vectors = np.array([[2.0, 1.0], [2.0, 1.1], [-2.0, 1.0], [-2.0, 0.9]])
    >>> TextKnn(vectors, neighbors=1).scores([np.array([0])], None).round(1)
    array([[0., 1., 0., 0.]], dtype=float32)
    """

    name = "text kNN: centered"

    def __init__(self, vectors: np.ndarray, *, neighbors: int = 50) -> None:
        vectors = np.asarray(vectors)
        unit = center(vectors, vectors.mean(axis=0, dtype=np.float64))
        super().__init__(sparse.vstack([_nearest(part, neighbors) for part in _cosines(unit, neighbors)]).tocsr())


def _co_occurrence(had: Any, shrinkage: float) -> Iterator[Any]:
    """Shrunk cosines of all pairs of columns, a block of (rows, items) CSR at a time, none of an item with itself."""
    by_item = had.T.tocsr()
    lengths = np.sqrt(np.diff(by_item.indptr)).astype(np.float32)
    for items in _blocks(len(lengths)):
        pairs = (by_item[items] @ had).tocoo()
        first = pairs.row + items.start
        similarities = pairs.data / (lengths[first] * lengths[pairs.col] + np.float32(shrinkage))
        other = first != pairs.col
        yield sparse.csr_matrix((similarities[other], (pairs.row[other], pairs.col[other])), shape=pairs.shape)


def _cosines(unit: np.ndarray, neighbors: int) -> Iterator[Any]:
    """The highest positive cosines of each row, a block of (rows, items) CSR at a time, none of an item with itself."""
    kept = min(neighbors, len(unit))
    for items in _blocks(len(unit)):
        cosines = unit[items] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, rows + items.start] = 0
        columns = np.argpartition(-cosines, kept - 1, axis=1)[:, :kept]
        highest = np.maximum(np.take_along_axis(cosines, columns, axis=1), 0)
        block = sparse.csr_matrix((highest.ravel(), (np.repeat(rows, kept), columns.ravel())), shape=cosines.shape)
        block.eliminate_zeros()
        yield block


def _blocks(num_items: int) -> Iterator[slice]:
    step = max(1, _BLOCK_CELLS // num_items)
    for start in range(0, num_items, step):
        yield slice(start, min(start + step, num_items))


def _nearest(similarities: Any, count: int) -> Any:
    """The `count` highest entries of each row of a CSR matrix; of equal ones those of lower columns."""
    pairs = similarities.tocoo()
    order = np.lexsort((pairs.col, -pairs.data, pairs.row))
    rows = pairs.row[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = order[rank < count]
    return sparse.csr_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)
