"""The rankers give what their formulas say, one user at a time as many at once, candidates as the whole catalog."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import chain

import numpy as np
import pytest

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.metrics import gauc
from recbase_hf.evaluation.rankers.ladder import ladder
from recbase_hf.evaluation.rankers.linear import Als, Ease
from recbase_hf.evaluation.rankers.neighbors import ItemKnn, TextKnn
from recbase_hf.evaluation.rankers.ranker import Ranker
from recbase_hf.evaluation.rankers.sequential import Gru4Rec, SasRec, SequentialSettings
from recbase_hf.evaluation.rankers.training_free import SIMILARITIES, Popularity, Random, TextSimilarity

ITEMS = 30
SMALL = SequentialSettings(width=16, max_length=6, max_epochs=2)
SAMPLED = SequentialSettings(width=16, max_length=6, max_epochs=2, full_softmax=5, negatives=8)


def make_histories(sequences: list[list[int]]) -> Histories:
    offsets = np.cumsum([0, *map(len, sequences)])
    names = np.array([f"u{user}" for user in range(len(sequences))], dtype=object)
    return Histories(names, offsets, np.array(list(chain(*sequences)), dtype=np.int64))


def random_sequences(seed: int, users: int, longest: int = 9) -> list[list[int]]:
    """Item 0 has no event."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, longest, size=users)
    return [generator.choice(np.arange(1, ITEMS), length, replace=False).tolist() for length in lengths]


def random_vectors(seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ITEMS, width)).astype(np.float32) + 0.5


def as_arrays(sequences: list[list[int]]) -> list[np.ndarray]:
    return [np.array(sequence, dtype=np.int64) for sequence in sequences]


TRAINING = make_histories(random_sequences(seed=1, users=60))
HISTORIES = as_arrays([[0, 3, 5], [], [7], [1, 2, 4, 8, 9, 10, 11, 12], [0]])
CANDIDATES = as_arrays([[1, 2, 0], [3], [], [5, 6, 29, 12], [0, 1]])

RANKERS: dict[str, Callable[[], Ranker]] = {
    "random": lambda: Random(ITEMS, seed=3),
    "popularity": lambda: Popularity(TRAINING, ITEMS),
    "mean": lambda: TextSimilarity(random_vectors(), "mean"),
    "max": lambda: TextSimilarity(random_vectors(), "max", centered=True),
    "last": lambda: TextSimilarity(random_vectors(), "last", centered=True),
    "log-sum-exp": lambda: TextSimilarity(random_vectors(), "log-sum-exp"),
    "text kNN": lambda: TextKnn(random_vectors(), neighbors=4),
    "ItemKNN": lambda: ItemKnn(TRAINING, ITEMS, neighbors=4),
    "EASE": lambda: Ease(TRAINING, ITEMS, regularization=3.0),
    "ALS": lambda: Als(TRAINING, ITEMS, factors=4, regularization=0.1),
    "GRU4Rec": lambda: Gru4Rec(TRAINING, ITEMS, settings=SMALL),
    "SASRec": lambda: SasRec(TRAINING, ITEMS, settings=SAMPLED),
}
each_ranker = pytest.mark.parametrize("name", list(RANKERS))


@cache
def made(name: str) -> Ranker:
    return RANKERS[name]()


@each_ranker
def test_candidates_have_the_scores_of_the_whole_catalog(name: str) -> None:
    everything = made(name).scores(HISTORIES, None)
    chosen = made(name).scores(HISTORIES, CANDIDATES)
    assert everything.shape == (len(HISTORIES), ITEMS)
    assert everything.dtype == chosen.dtype == np.float32
    expected = np.concatenate([everything[user, own] for user, own in enumerate(CANDIDATES)])
    np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-6)


@each_ranker
def test_other_users_in_the_call_change_nothing(name: str) -> None:
    together = made(name).scores(HISTORIES, CANDIDATES)
    alone = [made(name).scores([history], [own]) for history, own in zip(HISTORIES, CANDIDATES, strict=True)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        made(name).scores(HISTORIES, None)[3:4], made(name).scores(HISTORIES[3:4], None), rtol=1e-5, atol=1e-6
    )


@each_ranker
def test_items_outside_the_catalog_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"items 2 to {ITEMS}, but the ranker was made for a catalog of {ITEMS}"):
        made(name).scores([np.array([1])], [np.array([2, ITEMS])])


@each_ranker
def test_without_a_history_nothing_but_what_everybody_does_counts(name: str) -> None:
    scores = made(name).scores([np.empty(0, dtype=np.int64)] * 2, None)
    np.testing.assert_array_equal(scores[0], scores[1])
    assert scores.any() == (name in ("random", "popularity", "GRU4Rec", "SASRec"))


def test_random_knows_seed_history_and_item_only() -> None:
    many = as_arrays([[user, user + 1] for user in range(4000)])
    candidates = [np.arange(5)] * len(many)
    scores = Random(ITEMS, seed=0).scores(many, candidates)
    np.testing.assert_array_equal(scores, Random(2 * ITEMS, seed=0).scores(many, candidates))
    assert (scores != Random(ITEMS, seed=1).scores(many, candidates)).mean() > 0.99
    assert len(np.unique(scores)) > 0.99 * len(scores)
    assert (Random(ITEMS).scores(as_arrays([[1, 2]]), None) != Random(ITEMS).scores(as_arrays([[2, 1]]), None)).any()
    labels, users = np.tile([1, 0, 0, 0, 0], len(many)), np.repeat(np.arange(len(many)), 5)
    assert gauc(labels, scores, users).value == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(np.histogram(scores, bins=4, range=(0, 1))[0] / len(scores), 0.25, atol=0.02)


def test_popularity_counts_the_training_events_alone() -> None:
    whole = make_histories([[0, 1, 2], [1, 2], [0, 2]])
    training = make_histories([[0, 1], [1], [0]])  # without everybody's last event, item 2
    assert Popularity(training, 4).scores([whole[0], whole[1]], None).tolist() == [[2.0, 2.0, 0.0, 0.0]] * 2


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("how", SIMILARITIES)
def test_text_similarities_are_their_formulas(how: str, centered: bool) -> None:
    vectors = random_vectors().astype(np.float64)
    scores = TextSimilarity(vectors, how, centered=centered).scores(HISTORIES, None)  # type: ignore[arg-type]
    if centered:
        vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for user, history in enumerate(HISTORIES):
        if not len(history):
            continue
        cosines = vectors @ vectors[history].T
        profile = vectors[history].sum(axis=0)
        expected = {
            "mean": vectors @ profile / np.linalg.norm(profile),
            "max": cosines.max(axis=1),
            "last": cosines[:, -1],
            "log-sum-exp": np.log(np.exp(5 * cosines).sum(axis=1)),
        }[how]
        np.testing.assert_allclose(scores[user], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_cells", [1, 1 << 24])
def test_item_knn_adds_up_the_nearest_shrunk_cosines(block_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbase_hf.evaluation.rankers.neighbors._BLOCK_CELLS", block_cells)
    had = np.zeros((len(TRAINING), ITEMS))
    for user in range(len(TRAINING)):
        had[user, TRAINING[user]] = 1
    counts = had.sum(axis=0)
    similarities = (had.T @ had) / (np.sqrt(np.outer(counts, counts)) + 2.0)
    np.fill_diagonal(similarities, 0)
    scores = ItemKnn(TRAINING, ITEMS, neighbors=5, shrinkage=2.0).scores(HISTORIES, None)
    np.testing.assert_allclose(scores, naive_votes(similarities, 5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block_cells", [1, 1 << 24])
@pytest.mark.parametrize("neighbors", [5, 100])
def test_text_knn_adds_up_the_nearest_cosines(
    neighbors: int, block_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbase_hf.evaluation.rankers.neighbors._BLOCK_CELLS", block_cells)
    vectors = random_vectors() - random_vectors().mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = np.maximum(vectors @ vectors.T, 0)
    np.fill_diagonal(similarities, 0)
    scores = TextKnn(random_vectors(), neighbors=neighbors).scores(HISTORIES, None)
    np.testing.assert_allclose(scores, naive_votes(similarities, neighbors), rtol=1e-4, atol=1e-5)


def naive_votes(similarities: np.ndarray, neighbors: int) -> np.ndarray:
    """For each user and candidate, the similarity to those of its nearest items that are in the history."""
    # Equal similarities: the lower item is nearer.
    nearest = [np.argsort(-row, kind="stable")[:neighbors] for row in similarities]
    return np.array(
        [
            [sum(similarities[item, own] for own in history if own in nearest[item]) for item in range(ITEMS)]
            for history in HISTORIES
        ]
    )


def test_ease_is_the_closed_form() -> None:
    had = np.zeros((len(TRAINING), ITEMS))
    for user in range(len(TRAINING)):
        had[user, TRAINING[user]] = 1
    inverse = np.linalg.inv(had.T @ had + 3.0 * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    expected = np.array([weights[history].sum(axis=0) for history in HISTORIES])
    scores = Ease(TRAINING, ITEMS, regularization=3.0).scores(HISTORIES, None)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)


def test_ease_weights_are_the_best_that_are_zero_on_the_diagonal() -> None:
    """The closed form against least squares, one item at a time from all the others."""
    had = np.zeros((len(TRAINING), ITEMS))
    for user in range(len(TRAINING)):
        had[user, TRAINING[user]] = 1
    others = np.delete(np.arange(ITEMS), 7)
    gram = had[:, others].T @ had[:, others] + 3.0 * np.eye(len(others))
    weights = np.linalg.solve(gram, had[:, others].T @ had[:, 7])
    scores = Ease(TRAINING, ITEMS, regularization=3.0).scores([np.array([item]) for item in others], None)
    np.testing.assert_allclose(scores[:, 7], weights, rtol=1e-3, atol=1e-5)


def test_ease_refuses_catalogs_that_are_too_large_to_invert() -> None:
    with pytest.raises(ValueError, match=r"29 items with a training event, more than max_items=20; leave EASE out"):
        Ease(TRAINING, ITEMS, max_items=20)


def test_als_solves_for_the_factors_of_the_history() -> None:
    ranker = Als(TRAINING, ITEMS, factors=4, regularization=0.1, confidence=5.0)
    factors = ranker._model.item_factors.astype(np.float64)
    for history in HISTORIES:
        weights = np.ones(ITEMS)
        weights[history] = 5.0
        gram = factors.T @ (weights[:, None] * factors) + 0.1 * np.eye(4)
        expected = factors @ np.linalg.solve(gram, 5.0 * factors[history].sum(axis=0))
        np.testing.assert_allclose(ranker.scores([history], None)[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [Popularity, ItemKnn, Ease, SasRec, Gru4Rec, Als])
def test_training_without_events_is_refused(make: Callable[[Histories, int], Ranker]) -> None:
    with pytest.raises(ValueError, match="histories of 2 users hold no event"):
        make(make_histories([[], []]), ITEMS)
    with pytest.raises(ValueError, match=r"hold items 3 to 30, but the catalog has 30"):
        make(make_histories([[3], [30]]), ITEMS)


def test_the_ladder_names_what_it_makes() -> None:
    rankers = ladder(TRAINING, random_vectors(), seed=5)
    assert len(rankers) == 16
    for name, make in rankers.items():
        if name not in (SasRec.name, Gru4Rec.name, Als.name):
            assert make().name == name
    assert sum("(target set)" in name for name in rankers) == 6


def test_unknown_similarity_is_refused() -> None:
    with pytest.raises(ValueError, match="how='median' is unknown; choose one of mean, max, last, log-sum-exp"):
        TextSimilarity(random_vectors(), "median")  # type: ignore[arg-type]
