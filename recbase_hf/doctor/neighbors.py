"""How many of an item's nearest neighbors by text are also its nearest neighbors by semantic ID."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from recbase_hf.doctor.groups import numbered_rows
from recbase_hf.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["neighbor_recall", "query_recalls"]

CHUNK_CELLS = 8_000_000
"""Similarities held at a time: 32 MB, however many items there are."""

TIE = 1e-6
"""Cosines of unit vectors in float32 are this exact: what is closer together counts as equally near."""


def neighbor_recall(
    vectors: np.ndarray,
    decoded: np.ndarray,
    *,
    codes: np.ndarray | None = None,
    k: int = 10,
    max_queries: int = 2000,
    seed: int = 0,
) -> float:
    """Share of the `k` nearest items by the cosine of `vectors` among the `k` nearest by the cosine of `decoded`.

    The nearest are searched among all items but the query itself. Items that share a semantic ID decode alike, so
    which of them are among the `k` is left to chance, and the expectation over that chance is counted: with G strictly
    nearer than the k-th and E as near as it, (k - |G|) items are drawn from E. Items whose vectors are as near as the
    k-th nearest are all right answers; with that, vectors recall themselves whole even where they repeat.

    Args:
        vectors: (items, width) floating, centered vectors of the item texts.
        decoded: (items, any width) floating, what each item's semantic ID decodes to.
        codes: (items, levels) integer, the semantic IDs; items with equal codes are then taken to decode alike.
            Without them equal rows of `decoded` are looked for, which takes longer.
        k: neighbors an item; at most items - 1 are asked for.
        max_queries: items whose neighbors are looked at, a sample drawn with `seed` where there are more.

    Returns:
        The mean over the queries, in [0, 1]; chance gives about k / (items - 1).

    Raises:
        DataError: the arrays do not belong together, hold NaN or infinity, or there are fewer than two items.

    >>> vectors = np.random.default_rng(0).normal(size=(12, 8))
    >>> neighbor_recall(vectors, 2 * vectors, k=3)
    1.0
    >>> round(neighbor_recall(vectors, np.ones((12, 8)), k=3), 4)  # all decode alike: 3 of 11, by chance
    0.2727
    """
    return float(query_recalls(vectors, decoded, codes=codes, k=k, max_queries=max_queries, seed=seed).mean())


def query_recalls(
    vectors: np.ndarray,
    decoded: np.ndarray,
    *,
    codes: np.ndarray | None = None,
    k: int = 10,
    max_queries: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """`neighbor_recall` query by query, (queries,) float64: for an interval over items."""
    import torch

    _check(vectors, decoded, codes)
    num_items = len(vectors)
    k = min(k, num_items - 1)
    first_row, group_of_item = _groups(decoded if codes is None else codes)
    group_sizes = torch.from_numpy(np.bincount(group_of_item))
    groups = torch.from_numpy(group_of_item)
    of_items, of_groups = _Directions(vectors), _Directions(np.asarray(decoded)[first_row])

    found = []
    queries = _sample(num_items, max_queries, seed)
    for rows in _chunks(queries, CHUNK_CELLS // num_items):
        similarity = of_items.similarities(rows)
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        nearest = similarity >= similarity.topk(k).values[:, -1:] - TIE
        query, item = nearest.nonzero(as_tuple=True)
        place = _place_of_groups(of_groups.similarities(groups[rows]), groups[rows], group_sizes, k)
        shares = torch.zeros(len(rows), dtype=torch.float64)
        shares.index_add_(0, query, place[query, groups[item]].double())
        found.append((shares / k).clamp_max(1.0))
    return torch.cat(found).numpy()


class _Directions:
    """The rows of a matrix by direction; a row of zeros has none, and similarity 0 to everything."""

    def __init__(self, matrix: np.ndarray) -> None:
        import torch

        # Float16 would tie what is not tied, and is slow on a CPU.
        self.matrix = torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
        lengths = torch.linalg.vector_norm(self.matrix, dim=1)
        # Lengths are divided out of the products, not out of the matrix, which would be a second copy of it.
        self.scale = torch.where(lengths > 1e-12, 1.0 / lengths.clamp_min(1e-12), 0.0)

    def similarities(self, rows: Tensor) -> Tensor:
        """(rows, all rows) float32 cosines."""
        import torch

        queries = self.matrix[rows] * self.scale[rows, None]
        return torch.mul(products := queries @ self.matrix.T, self.scale, out=products)


def _place_of_groups(similarity: Tensor, own: Tensor, sizes: Tensor, k: int) -> Tensor:
    """(queries, groups) float32: the chance of an item of the group to be among the k nearest of the query.

    Args:
        similarity: (queries, groups) of what the groups decode to.
        own: (queries,) group of the query itself, in which one item less can be found.
        sizes: (groups,) items.
    """
    import torch

    # The query's own group may be empty without it, so one group more than items are asked for.
    best = similarity.topk(min(k + 1, similarity.shape[1]))
    counts = sizes[best.indices] - (best.indices == own[:, None]).long()
    enough = (counts.cumsum(dim=1) >= k).long().argmax(dim=1, keepdim=True)
    threshold = best.values.gather(1, enough)
    nearer = (counts * (best.values > threshold)).sum(dim=1)
    as_near = similarity == threshold
    query, group = as_near.nonzero(as_tuple=True)
    drawn_from = torch.zeros(len(similarity), dtype=torch.long).index_add_(0, query, sizes[group])
    drawn_from -= as_near.gather(1, own[:, None]).squeeze(1).long()
    chance = (k - nearer) / drawn_from
    place = (similarity > threshold).float()
    place[query, group] = chance[query].float()
    return place


def _groups(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each kind of row, (groups,) int64, and the group of every row, (items,) int64."""
    _, first_row, group_of_item = np.unique(numbered_rows(np.asarray(rows)), return_index=True, return_inverse=True)
    return first_row, group_of_item


def _sample(num_items: int, size: int, seed: int) -> Tensor:
    import torch

    if num_items <= size:
        return torch.arange(num_items)
    return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(num_items, size, replace=False)))


def _chunks(rows: Tensor, size: int) -> Iterator[Tensor]:
    yield from rows.split(max(size, 1))


def _check(vectors: np.ndarray, decoded: np.ndarray, codes: np.ndarray | None) -> None:
    shapes = {"vectors": np.shape(vectors), "decoded": np.shape(decoded)}
    if codes is not None:
        shapes["codes"] = np.shape(codes)
    if any(len(shape) != 2 or shape[0] != len(vectors) for shape in shapes.values()):
        raise DataError(f"vectors, decoded and codes need two dimensions and one row an item each, but have {shapes}")
    if len(vectors) < 2:
        raise DataError(f"there are {len(vectors)} items; neighbors need at least two")
    for name, array in (("vectors", vectors), ("decoded", decoded)):
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise DataError(f"row {bad[0] + 1} of {name} holds NaN or infinity; encode that item again")
