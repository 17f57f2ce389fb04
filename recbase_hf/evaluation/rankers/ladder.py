"""The rankers that stand beside RecBase in a table, from chance to sequence models trained on the target set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.rankers.linear import Als, Ease
from recbase_hf.evaluation.rankers.neighbors import ItemKnn, TextKnn
from recbase_hf.evaluation.rankers.ranker import Ranker
from recbase_hf.evaluation.rankers.training_free import SIMILARITIES, Popularity, Random, TextSimilarity

__all__ = ["ladder"]


def ladder(training: Histories, vectors: np.ndarray, *, seed: int = 0) -> dict[str, Callable[[], Ranker]]:
    """All rankers by name, each as a function that makes (and fits) it, from the weakest to the strongest kind.

    What is not called costs nothing; what is called may raise `ValueError`, as `Ease` does for large catalogs.

    Args:
        training: of the target set, in rows of the catalog, without any held-out event.
        vectors: (items, width) float, of the catalog.
        seed: of all rankers that draw numbers.

    >>> training = Histories(np.array(["ann"], object), np.array([0, 2]), np.array([1, 2]))
    >>> rankers = ladder(training, np.eye(4))
    >>> ranker = rankers["popularity (target set)"]()
    >>> ranker.name, ranker.scores([np.array([0])], None).tolist()
    ('popularity (target set)', [[0.0, 1.0, 1.0, 0.0]])
    """
    from recbase_hf.evaluation.rankers.sequential import Gru4Rec, SasRec  # late, because it imports torch

    num_items = len(vectors)
    rankers: dict[str, Callable[[], Ranker]] = {
        Random.name: partial(Random, num_items, seed=seed),
        Popularity.name: partial(Popularity, training, num_items),
    }
    for centered in (False, True):
        for how in SIMILARITIES:
            name = TextSimilarity.name_of(how, centered=centered)
            rankers[name] = partial(TextSimilarity, vectors, how, centered=centered)
    return rankers | {
        TextKnn.name: partial(TextKnn, vectors),
        ItemKnn.name: partial(ItemKnn, training, num_items),
        Ease.name: partial(Ease, training, num_items),
        Als.name: partial(Als, training, num_items, seed=seed),
        Gru4Rec.name: partial(Gru4Rec, training, num_items, seed=seed),
        SasRec.name: partial(SasRec, training, num_items, seed=seed),
    }
