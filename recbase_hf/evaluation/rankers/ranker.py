"""What every ranker offers, and the arrays that several of them are made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from recbase_hf.data.histories import Histories

__all__ = ["Ranker", "chosen_columns", "flat_candidates", "history_matrix", "training_matrix"]


class Ranker(Protocol):
    """Gives items scores for users who are known by their histories alone.

    Attributes:
        name: as it stands in tables; "(target set)" says that the ranker learned from interactions of that set.
    """

    name: str

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Higher is better; which other users are in the call changes nothing but rounding.

        Args:
            histories: a (length,) int64 array of item rows a user, oldest first; may be empty.
            candidates: an (n,) int64 array of item rows a user, or None for every item of the catalog.

        Returns:
            float32: (sum of n,), user after user, or (users, items).

        Raises:
            ValueError: a candidate is not an item of the catalog.
        """


def flat_candidates(candidates: Sequence[np.ndarray], num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Position of the user and item of each candidate, both (sum of n,) int64, user after user.

    Raises:
        ValueError: an item is not in the catalog.

    >>> users, items = flat_candidates([np.array([4, 2]), np.array([3])], num_items=5)
    >>> users.tolist(), items.tolist()
    ([0, 0, 1], [4, 2, 3])
    """
    users = np.repeat(np.arange(len(candidates)), [len(own) for own in candidates])
    items = np.concatenate([np.empty(0, dtype=np.int64), *candidates])
    if len(items) and not 0 <= items.min() <= items.max() < num_items:
        raise ValueError(
            f"the candidates are items {items.min()} to {items.max()}, but the ranker was made for a catalog of "
            f"{num_items}; make it for the catalog that the candidates come from"
        )
    return users, items


def chosen_columns(scores: np.ndarray, candidates: Sequence[np.ndarray] | None) -> np.ndarray:
    """The candidates' scores out of those of all items, (users, items); all of them without candidates."""
    if candidates is None:
        return scores
    users, items = flat_candidates(candidates, scores.shape[1])
    return scores[users, items]


def history_matrix(histories: Sequence[np.ndarray], num_items: int) -> Any:
    """What each user had: a `scipy` CSR matrix, (users, items) float32 of ones."""
    offsets = np.cumsum([0, *map(len, histories)])
    return _ones(np.concatenate([np.empty(0, dtype=np.int64), *histories]), offsets, num_items)


def training_matrix(training: Histories, num_items: int) -> Any:
    """The same of training histories: a `scipy` CSR matrix, (users, items) float32 of ones.

    Raises:
        ValueError: there is no event, or one with an item that is not in the catalog.
    """
    require_events(training, num_items)
    return _ones(training.items, training.offsets, num_items)


def require_events(training: Histories, num_items: int) -> None:
    """Raise `ValueError` unless there are training events, all with items of the catalog."""
    if not len(training.items):
        raise ValueError(
            f"the training histories of {len(training)} users hold no event, so that nothing can be learned from them; "
            "give more interactions, or leave out the rankers that learn from the target set"
        )
    if not 0 <= training.items.min() <= training.items.max() < num_items:
        raise ValueError(
            f"the training histories hold items {training.items.min()} to {training.items.max()}, but the catalog has "
            f"{num_items}; build them with the item ids of the catalog"
        )


def _ones(items: np.ndarray, offsets: np.ndarray, num_items: int) -> Any:
    from scipy import sparse

    ones = np.ones(len(items), dtype=np.float32)
    matrix = sparse.csr_matrix((ones, items, offsets), shape=(len(offsets) - 1, num_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
