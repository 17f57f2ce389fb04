"""Scores that are fitted to a domain without any label: from nothing but the histories that are to be scored.

Each history is asked for its own newest item: how well would the language model, the texts and the items' popularity
among the histories have found it among random items of the catalog? The weights that answer best make the scores. So
the model counts for much where it knows the domain and for little where it does not, and nobody has to say which.

No candidate and no outcome is looked at. It is still more than zero-shot for one user: it needs the histories of many,
and popularity is counted from them. Figures of it stand in rows of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recbase_hf.errors import DataError
from recbase_hf.scoring.calibration import text_similarity

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["LEAST_USERS", "POPULARITY", "Adaptation", "Component", "adapt", "fitted_weights", "model_components"]

Component = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]
"""Histories and candidates, each (n,) catalog rows a user, to a number for each candidate, user after user."""

POPULARITY = "popularity"
"""Name of the component that is counted here: log(1 + n) of an item that n of the histories hold."""

LEAST_USERS = 50
"""Fewer histories with two items say too little about a handful of weights."""

_RIDGE = 1e-3
_USERS_PER_BATCH = 256


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Weights for one catalog and its users, made by `adapt`.

    Attributes:
        weights: of the components and of popularity, by name.
        components: what they weigh.
        popularity: (items,) float64, log(1 + n) of an item that n of the histories hold.
        users: histories that the weights were fitted on.
    """

    weights: dict[str, float]
    components: Mapping[str, Component]
    popularity: np.ndarray
    users: int

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Adapted scores, for each user (candidates,) float64; only their order and differences mean something.

        Args:
            histories: (n,) catalog rows a user, oldest first.
            candidates: (n,) catalog rows a user.
        """
        if not len(histories):
            return []
        values = _values(self.components, self.popularity, histories, candidates)
        flat = sum((weight * values[name] for name, weight in self.weights.items()), np.zeros(1))
        return np.split(flat, np.cumsum([len(rows) for rows in candidates])[:-1])


def adapt(
    histories: Sequence[np.ndarray],
    num_items: int,
    components: Mapping[str, Component],
    *,
    num_negatives: int = 9,
    max_users: int = 2000,
    seed: int = 0,
) -> Adaptation:
    """Fit the weights of components and popularity to the histories of a domain.

    Args:
        histories: (n,) catalog rows a user, oldest first; those of one item only count for popularity.
        num_items: items of the catalog.
        components: by name; `model_components` makes those of a model.
        num_negatives: items drawn uniformly beside the newest of each history.
        max_users: histories that are asked, drawn at random.
        seed: of what is drawn.

    Raises:
        DataError: fewer than `LEAST_USERS` histories hold two items.
    """
    generator = np.random.default_rng(seed)
    asked = np.flatnonzero([len(history) >= 2 for history in histories])
    if len(asked) < LEAST_USERS:
        raise DataError(
            f"{len(asked)} of {len(histories)} histories hold two items; at least {LEAST_USERS} are needed to adapt to "
            "a domain: hand in more histories, or take the joint or the calibrated score"
        )
    if len(asked) > max_users:
        asked = np.sort(generator.choice(asked, max_users, replace=False))
    pasts = [np.asarray(histories[user], dtype=np.int64) for user in asked.tolist()]
    newest = np.array([past[-1] for past in pasts], dtype=np.int64)
    drawn = generator.integers(0, num_items, (len(asked), num_negatives))
    candidates = np.concatenate([newest[:, None], drawn], axis=1)
    takes_part = np.array([~np.isin(row, past) for row, past in zip(candidates, pasts, strict=True)])
    takes_part[:, 0] = True  # of its own items, the newest alone is to be found
    held = [np.unique(np.asarray(history, dtype=np.int64)) for history in histories]  # once, however often it comes
    counts = np.bincount(np.concatenate(held), minlength=num_items)
    popularity = np.log1p(counts)
    values = _values(components, popularity, [past[:-1] for past in pasts], list(candidates))
    features = np.stack([value.reshape(candidates.shape) for value in values.values()], axis=-1)
    # The history that is asked must not vouch for its own answer.
    features[:, 0, -1] = np.log1p(counts[newest] - 1)
    weights = fitted_weights(features, takes_part)
    return Adaptation(dict(zip(values, weights.tolist(), strict=True)), components, popularity, len(asked))


def model_components(scorer: RecBaseScorer, catalog: ItemCatalog) -> dict[str, Component]:
    """What a bundle knows of a candidate.

    `joint` is the model's log-probability given the history, `prior` that given no history, `text` the similarity of
    the texts' vectors.

    Raises:
        DataError: the catalog has no vectors.
    """
    vectors = catalog.centered_vectors
    of_items: list[np.ndarray] = []

    def joint(histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray]) -> np.ndarray:
        parts: list[np.ndarray] = []
        for start in range(0, len(histories), _USERS_PER_BATCH):
            users = slice(start, start + _USERS_PER_BATCH)
            parts += scorer.score_rows(histories[users], candidates[users], catalog=catalog, method="joint")
        return np.concatenate(parts)

    def prior(histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray]) -> np.ndarray:
        if not of_items:  # the same for all users, so once for the catalog
            nothing = [np.empty(0, dtype=np.int64)]
            of_items.extend(scorer.score_rows(nothing, [np.arange(len(catalog))], catalog=catalog, method="joint"))
        return of_items[0][np.concatenate(candidates)]

    def text(histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(histories, candidates, strict=True)
        return np.concatenate([text_similarity(vectors, scorer.kept(history), rows) for history, rows in pairs])

    return {"joint": joint, "prior": prior, "text": text}


def fitted_weights(features: np.ndarray, takes_part: np.ndarray) -> np.ndarray:
    """Weights (features,) under which the first candidate of each user is likeliest: a conditional logit model.

    Args:
        features: (users, candidates, features) float.
        takes_part: (users, candidates) bool; the first always does.

    >>> features = np.zeros((60, 3, 1))
    >>> features[:, 0] = 1.0
    >>> bool(fitted_weights(features, np.ones((60, 3), dtype=bool))[0] > 2.0)
    True
    """
    import torch

    scale = np.maximum(features[takes_part].std(axis=0), 1e-9)
    inputs, left_out = torch.from_numpy(features / scale), torch.from_numpy(~takes_part)
    first = torch.zeros(len(features), dtype=torch.long)
    weights = torch.zeros(features.shape[-1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = (inputs @ weights).masked_fill(left_out, -torch.inf)
        value = torch.nn.functional.cross_entropy(logits, first) + _RIDGE * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach().numpy() / scale


def _values(
    components: Mapping[str, Component],
    popularity: np.ndarray,
    histories: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
) -> dict[str, np.ndarray]:
    """Each component and, last, popularity: (all candidates,) float64."""
    values = {name: component(histories, candidates).astype(np.float64) for name, component in components.items()}
    return values | {POPULARITY: popularity[np.concatenate(candidates)]}
