"""The baselines give what their formulas say, whatever the batch and the padding."""

from __future__ import annotations

import numpy as np
import pytest

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation import baselines, metrics
from recbase_hf.evaluation.baselines import mean_cosine_scores, popularity_scores, random_scores, similarity_scores
from recbase_hf.evaluation.protocol import CandidateSet, leave_last_out


def make_set(histories: list[list[int]], candidates: list[list[int]]) -> CandidateSet:
    return CandidateSet(
        users=np.array([f"u{user}" for user in range(len(histories))], dtype=object),
        histories=[np.array(history, dtype=np.int64) for history in histories],
        candidates=np.array(candidates),
        labels=np.eye(len(candidates), len(candidates[0]), dtype=np.int8),
    )


def unit_vectors(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(params=[1, 32 << 20], ids=["one user a batch", "one batch"])
def _batch_sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_BATCH_BYTES", request.param)


HISTORIES = [[0, 3, 5], [], [7], [1, 2, 4, 8, 9]]
CANDIDATES = [[1, 2], [3, 4], [7, 0], [5, 6]]


@pytest.mark.usefixtures("_batch_sizes")
def test_mean_cosine_is_the_cosine_with_the_mean_of_the_history() -> None:
    vectors = unit_vectors(10)
    scores = mean_cosine_scores(make_set(HISTORIES, CANDIDATES), vectors)
    assert scores.dtype == np.float32
    for row, history in enumerate(HISTORIES):
        if not history:
            assert scores[row].tolist() == [0.0, 0.0]
            continue
        mean = vectors[history].mean(axis=0)
        np.testing.assert_allclose(scores[row], vectors[CANDIDATES[row]] @ mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.usefixtures("_batch_sizes")
@pytest.mark.parametrize("beta", [0.1, 5.0, 1000.0])
def test_similarity_is_the_log_sum_exp_of_the_cosines(beta: float) -> None:
    vectors = unit_vectors(10)
    scores = similarity_scores(make_set(HISTORIES, CANDIDATES), vectors, beta=beta)
    assert scores.dtype == np.float32
    for row, history in enumerate(HISTORIES):
        cosines = vectors[CANDIDATES[row]].astype(np.float64) @ vectors[history].T.astype(np.float64)
        expected = np.logaddexp.reduce(beta * cosines, axis=1) if history else [0.0, 0.0]
        np.testing.assert_allclose(scores[row], expected, rtol=1e-4, atol=1e-4)


def test_no_user_with_a_history_scores_zero_everywhere() -> None:
    candidate_set = make_set([[], []], [[1, 2], [3, 4]])
    assert not mean_cosine_scores(candidate_set, unit_vectors(10)).any()
    assert not similarity_scores(candidate_set, unit_vectors(10)).any()


def test_too_few_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="up to row 7, but there are 5 vectors"):
        mean_cosine_scores(make_set(HISTORIES, CANDIDATES), unit_vectors(5))


def test_popularity_counts_all_events_but_the_held_out_ones() -> None:
    users = np.array(["ann", "bob", "cid", "dan"], dtype=object)
    histories = Histories(users, np.array([0, 3, 5, 7, 8]), np.array([0, 1, 2, 1, 2, 0, 2, 2]))
    candidate_set = CandidateSet(
        users=users[[0, 2]],
        histories=[np.array([0, 1]), np.array([0])],
        candidates=np.array([[2, 0, 1], [5, 1, 2]]),
        labels=np.array([[1, 0, 0], [0, 0, 1]], dtype=np.int8),
    )
    # Item 2 has four events; the last ones of ann and cid are held out, those of bob and dan are not.
    assert popularity_scores(candidate_set, histories).tolist() == [[2.0, 2.0, 2.0], [0.0, 2.0, 2.0]]


def test_popularity_refuses_histories_of_something_else() -> None:
    histories = Histories(np.array(["ann", "bob"], object), np.array([0, 2, 4]), np.array([0, 1, 2, 3]))
    candidate_set = leave_last_out(histories, 10)
    with pytest.raises(ValueError, match="'bob' of the candidate set is not in the histories"):
        popularity_scores(candidate_set, histories.select([0]))
    shortened = Histories(histories.users, np.array([0, 2, 3]), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"'bob' .* does not end with the held-out item"):
        popularity_scores(candidate_set, shortened)


def test_random_scores_depend_on_the_seed_only_and_know_nothing() -> None:
    users = 5000
    histories = Histories(
        np.array([f"u{user}" for user in range(users)], dtype=object), 2 * np.arange(users + 1), np.tile([3, 4], users)
    )
    candidate_set = leave_last_out(histories, 50, seed=0)
    scores = random_scores(candidate_set, seed=0)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, random_scores(candidate_set, seed=0))
    assert (scores != random_scores(candidate_set, seed=1)).any()
    owners = np.repeat(np.arange(users), candidate_set.candidates.shape[1])
    assert metrics.gauc(candidate_set.labels.ravel(), scores.ravel(), owners).value == pytest.approx(0.5, abs=0.02)
