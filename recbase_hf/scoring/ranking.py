"""From semantic IDs to items: those that collide score alike and are told apart by their texts."""

from __future__ import annotations

import numpy as np

from recbase_hf.catalog import ItemCatalog
from recbase_hf.modeling.centering import center
from recbase_hf.scoring.item_filter import ItemFilter
from recbase_hf.scoring.search import FoundLeaves
from recbase_hf.text.similarity import log_sum_exp_similarity

__all__ = ["rank_items"]


def rank_items(
    catalog: ItemCatalog, found: FoundLeaves, items: ItemFilter, user: int, history: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of one user.

    Equal scores are ordered by text similarity to the history (if the catalog has vectors), then by item id.

    Args:
        found: leaves, best first, with at least k allowed items.
        items: which items are allowed.
        user: position in `items`.
        history: (n,) catalog rows.

    Returns:
        (k,) catalog rows and (k,) scores, best first.
    """
    rows, scores = _items_of_best_leaves(found, items, user, k)
    order = np.argsort(-scores, kind="stable")
    rows, scores = rows[order], scores[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    ranked = [_by_similarity_and_id(catalog, part, history) for part in np.split(rows, starts[1:])]
    return np.concatenate(ranked)[:k], scores[:k]


def _items_of_best_leaves(found: FoundLeaves, items: ItemFilter, user: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All allowed items of the leaves that score no less than the k-th item."""
    rows: list[np.ndarray] = []
    count, last = 0, -np.inf
    for leaf, score in zip(found.leaves, found.scores, strict=True):
        if count >= k and score < last:
            break
        rows.append(items.items(user, int(leaf)))
        count, last = count + len(rows[-1]), score
    return np.concatenate(rows), np.repeat(found.scores[: len(rows)], [len(part) for part in rows])


def _by_similarity_and_id(catalog: ItemCatalog, rows: np.ndarray, history: np.ndarray) -> np.ndarray:
    if len(rows) == 1:
        return rows
    similarity = np.zeros(len(rows), dtype=np.float32)
    if catalog.vectors is not None and catalog.mean is not None:
        candidates, past = (center(catalog.vectors[part], catalog.mean) for part in (rows, history))
        # Rounded, because equal texts may differ in the last digit.
        similarity = log_sum_exp_similarity(candidates @ past.T).round(5)
    rank = np.argsort(np.argsort(np.array([catalog.item_ids[row] for row in rows])))
    return rows[np.lexsort((rank, -similarity))]
