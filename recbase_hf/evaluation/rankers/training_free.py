"""Rankers that fit nothing: chance, the counts of popularity, and how alike the texts' vectors are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.rankers.ranker import chosen_columns, flat_candidates, require_events
from recbase_hf.modeling.centering import center
from recbase_hf.text.similarity import log_sum_exp_similarity

__all__ = ["SIMILARITIES", "Popularity", "Random", "Similarity", "TextSimilarity"]

Similarity = Literal["mean", "max", "last", "log-sum-exp"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)

_ROWS = 1 << 16
"""Vectors that are gathered at a time: 100 MB of width 384."""


class Random:
    """A random number for each item, which depends on the seed, the user's history and the item alone.

    Users with equal histories, such as those without one, have equal scores.

    >>> ranker = Random(num_items=100, seed=1)
    >>> histories = [np.array([3, 5])]
    >>> bool(ranker.scores(histories, [np.array([7])])[0] == ranker.scores(histories, None)[0, 7])
    True
    """

    name = "random"

    def __init__(self, num_items: int, *, seed: int = 0) -> None:
        self.num_items = num_items
        self.seed = seed

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Uniform in [0, 1); see `Ranker.scores`."""
        of_user = np.array([self._number(history) for history in histories], dtype=np.uint64)
        if candidates is None:
            return np.stack([_uniform(own + np.arange(self.num_items, dtype=np.uint64)) for own in of_user])
        users, items = flat_candidates(candidates, self.num_items)
        return _uniform(of_user[users] + items.astype(np.uint64))

    def _number(self, history: np.ndarray) -> int:
        text = f"{self.seed} {' '.join(map(str, history.tolist()))}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _uniform(keys: np.ndarray) -> np.ndarray:
    """Keys (n,) uint64 to numbers in [0, 1), (n,) float32: the finalizer of SplitMix64 and its upper 24 bits."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((keys ^ (keys >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


class Popularity:
    """How many training events an item has, the same for every user.

    Args:
        training: of the target set, without any held-out event.
        num_items: items in the catalog.

    Raises:
        ValueError: there is no training event, or one with an item that is not in the catalog.

    >>> training = Histories(np.array(["ann", "bob"], object), np.array([0, 2, 3]), np.array([2, 0, 2]))
    >>> Popularity(training, num_items=3).scores([np.array([0])], None).tolist()
    [[1.0, 0.0, 2.0]]
    """

    name = "popularity (target set)"

    def __init__(self, training: Histories, num_items: int) -> None:
        require_events(training, num_items)
        self._counts = np.bincount(training.items, minlength=num_items).astype(np.float32)

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Numbers of events; see `Ranker.scores`."""
        counts = np.broadcast_to(self._counts, (len(histories), len(self._counts)))
        return chosen_columns(counts, candidates) if candidates is not None else counts.copy()


class TextSimilarity:
    """Cosines between the vectors of an item and of the history's items; 0 for all items without a history.

    Args:
        vectors: (items, width) float, of the catalog; they are scaled to unit length.
        how: cosine with the sum of the history's vectors ("mean"), with the most similar of them ("max"), with the
            last of them ("last"), or the logarithm of the sum of exp(beta * cosine) over them ("log-sum-exp"): one like
            item in the history suffices there too, but further ones add to it.
        centered: take the catalog's mean vector, what all items share, from each vector first.
        beta: of log-sum-exp.

    Raises:
        ValueError: `how` is unknown.

    >>> ranker = TextSimilarity(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]), how="last")
    >>> ranker.scores([np.array([1, 0])], None).round(3)
    array([[1.   , 0.   , 0.707]], dtype=float32)
    """

    def __init__(
        self, vectors: np.ndarray, how: Similarity = "mean", *, centered: bool = False, beta: float = 5.0
    ) -> None:
        if how not in SIMILARITIES:
            raise ValueError(f"how={how!r} is unknown; choose one of {', '.join(SIMILARITIES)}")
        self.name = self.name_of(how, centered=centered)
        self.how = how
        self.beta = beta
        self._vectors = _unit_vectors(vectors, centered=centered)

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Cosines, but for log-sum-exp; see `Ranker.scores`."""
        if self.how in ("mean", "last"):
            return self._profile_scores(histories, candidates)
        if candidates is not None:
            flat_candidates(candidates, len(self._vectors))  # refuses what is not in the catalog
        rows = [
            self._nearness(history, slice(None) if candidates is None else candidates[user])
            for user, history in enumerate(histories)
        ]
        return np.stack(rows) if candidates is None else np.concatenate([np.empty(0, dtype=np.float32), *rows])

    @staticmethod
    def name_of(how: Similarity, *, centered: bool) -> str:
        """As in tables: "text similarity: centered, mean cosine"."""
        return f"text similarity: {'centered, ' * centered}{how}{' cosine' * (how != 'log-sum-exp')}"

    def _profile_scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Cosines with one vector a user."""
        newest = -1 if self.how == "last" else 0
        sums = [self._vectors[history[newest:]].sum(axis=0) for history in histories]
        profiles = center(np.stack(sums), np.zeros(self._vectors.shape[1]))
        if candidates is None:
            return profiles @ self._vectors.T
        users, items = flat_candidates(candidates, len(self._vectors))
        scores = np.empty(len(items), dtype=np.float32)
        for start in range(0, len(items), _ROWS):
            part = slice(start, start + _ROWS)
            scores[part] = np.einsum("nw,nw->n", profiles[users[part]], self._vectors[items[part]])
        return scores

    def _nearness(self, history: np.ndarray, items: np.ndarray | slice) -> np.ndarray:
        """Scores of some items for one user."""
        cosines = self._vectors[items] @ self._vectors[history].T
        if self.how == "log-sum-exp":
            return log_sum_exp_similarity(cosines, self.beta)
        return cosines.max(axis=1) if len(history) else np.zeros(len(cosines), dtype=np.float32)


def _unit_vectors(vectors: np.ndarray, *, centered: bool) -> np.ndarray:
    vectors = np.asarray(vectors)
    mean = vectors.mean(axis=0, dtype=np.float64) if centered else np.zeros(vectors.shape[1])
    return center(vectors, mean)
