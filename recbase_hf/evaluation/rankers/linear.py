"""Rankers that are linear in the history: EASE and matrix factorization by alternating least squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.rankers.ranker import chosen_columns, flat_candidates, history_matrix, training_matrix

__all__ = ["MAX_EASE_ITEMS", "Als", "Ease"]

MAX_EASE_ITEMS = 20_000


class Ease:
    """EASE (Steck, 2019): the item-to-item weights, zero on the diagonal, that best rebuild the training histories.

    The closed form inverts a dense (items, items) matrix of those items that have a training event, the only ones with
    weights; all others score 0. 10,000 such items take half a minute and 1.2 GB, 20,000 minutes and 5 GB. On
    sparse data most pairs of items never come together and the weights say little; `Als` is the stronger one there.

    Args:
        training: of the target set, without any held-out event.
        num_items: items in the catalog.
        regularization: how much large weights cost.
        max_items: items with a training event that are inverted at most.

    Raises:
        ValueError: there are more than `max_items` items with a training event, there is none, or an event has an item
            that is not in the catalog.

    >>> training = Histories(np.array(["ann", "bob"], object), np.array([0, 2, 4]), np.array([0, 1, 0, 2]))
    >>> Ease(training, num_items=4, regularization=1.0).scores([np.array([1])], None).round(2)
    array([[ 0.5,  0. , -0.2,  0. ]], dtype=float32)
    """

    name = "EASE (target set)"

    def __init__(
        self, training: Histories, num_items: int, *, regularization: float = 500.0, max_items: int = MAX_EASE_ITEMS
    ) -> None:
        import torch

        had = training_matrix(training, num_items)
        self.num_items = num_items
        self._items = np.unique(training.items)
        if len(self._items) > max_items:
            raise ValueError(
                f"EASE inverts a dense matrix over the {len(self._items)} items with a training event, more than "
                f"max_items={max_items}; leave EASE out for this catalog, or raise max_items where "
                f"{3 * 4 * len(self._items) ** 2 / 1e9:.0f} GB of memory are free"
            )
        had = had[:, self._items]
        gram = torch.from_numpy((had.T @ had).toarray())
        gram.diagonal().add_(regularization)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        # Symmetric, and column by column in memory, which makes sparse products slow.
        self._weights = np.ascontiguousarray(inverse.numpy().T)
        self._weights /= -np.diag(self._weights)
        np.fill_diagonal(self._weights, 0)

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Sums of weights; see `Ranker.scores`."""
        scores = np.zeros((len(histories), self.num_items), dtype=np.float32)
        scores[:, self._items] = history_matrix(histories, self.num_items)[:, self._items] @ self._weights
        return chosen_columns(scores, candidates)


class Als:
    """Matrix factorization of implicit feedback (Hu, Koren and Volinsky, 2008), fitted by the library `implicit`.

    A user's factors are solved for from the history that is scored, so that users need not be among the training ones.

    Args:
        training: of the target set, without any held-out event.
        num_items: items in the catalog.
        factors: width of the factors.
        regularization: how much large factors cost.
        confidence: weight of an event, where each item that a user did not have weighs 1.
        iterations: passes over users and items.
        seed: of the factors' start.

    Raises:
        ValueError: there is no training event, or one with an item that is not in the catalog.
    """

    name = "ALS (target set)"

    def __init__(
        self,
        training: Histories,
        num_items: int,
        *,
        factors: int = 32,
        regularization: float = 30.0,
        confidence: float = 10.0,
        iterations: int = 15,
        seed: int = 0,
    ) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        had = training_matrix(training, num_items)
        with threadpool_limits(1, "blas"):  # its own threads and those of the linear algebra get in each other's way
            self._model = AlternatingLeastSquares(
                factors=factors,
                regularization=regularization,
                alpha=confidence,
                iterations=iterations,
                random_state=seed,
            )
            self._model.fit(had, show_progress=False)

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Products of user and item factors, 0 without a history; see `Ranker.scores`."""
        items = self._model.item_factors
        users = self._model.recalculate_user(np.arange(len(histories)), history_matrix(histories, len(items)))
        if candidates is None:
            return users @ items.T
        of_user, of_item = flat_candidates(candidates, len(items))
        return np.einsum("nf,nf->n", users[of_user], items[of_item])
