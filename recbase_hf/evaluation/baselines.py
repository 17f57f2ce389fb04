"""What RecBase has to beat: scores from chance, from popularity and from the texts' vectors, without any training.

All functions return (users, candidates) float32 scores in the order of the candidate set, higher is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.protocol import CandidateSet
from recbase_hf.text.similarity import log_sum_exp_similarity

__all__ = ["mean_cosine_scores", "popularity_scores", "random_scores", "similarity_scores"]

_BATCH_BYTES = 32 << 20
"""Of gathered vectors; larger batches fall out of the processor's cache and are no faster."""


def random_scores(candidate_set: CandidateSet, seed: int) -> np.ndarray:
    """Uniform random scores."""
    # A stream of its own: the candidate set may have been drawn with the same seed.
    return np.random.default_rng((seed, 0x72616E64)).random(candidate_set.candidates.shape, dtype=np.float32)


def popularity_scores(candidate_set: CandidateSet, histories: Histories) -> np.ndarray:
    """How many events each candidate has, without the held-out last event of any evaluated user.

    Not zero-shot: it counts the interactions of the target data set, which a zero-shot model never sees.

    Args:
        candidate_set: from `leave_last_out`.
        histories: what it was made from; users who are not evaluated count with all their events.

    Raises:
        ValueError: an evaluated user is not in `histories`, or does not end with the held-out item there.
    """
    position_of_user = {user: position for position, user in enumerate(histories.users)}
    positions = np.array([position_of_user.get(user, -1) for user in candidate_set.users], dtype=np.int64)
    last_events = histories.offsets[positions + 1] - 1
    held_out = (candidate_set.candidates == histories.items[last_events][:, None]) & (candidate_set.labels == 1)
    wrong = np.flatnonzero((positions < 0) | ~held_out.any(axis=1))
    if len(wrong):
        raise ValueError(
            f"user {candidate_set.users[wrong[0]]!r} of the candidate set is not in the histories, or does not end "
            "with the held-out item there; give the histories that the candidate set was made from"
        )
    counts = np.bincount(histories.items, minlength=int(candidate_set.candidates.max()) + 1)
    counts -= np.bincount(histories.items[last_events], minlength=len(counts))
    return counts[candidate_set.candidates].astype(np.float32)


def mean_cosine_scores(candidate_set: CandidateSet, vectors: np.ndarray) -> np.ndarray:
    """Cosine of each candidate with the mean vector of the history; 0 without a history.

    Args:
        candidate_set: rows of `vectors`.
        vectors: (items, width) float32 of unit length, such as `catalog.vectors`.
    """
    scores = np.zeros(candidate_set.candidates.shape, dtype=np.float32)
    for batch in _batches(candidate_set, vectors):
        profile = (batch.history * batch.present[:, :, None]).sum(axis=1)
        lengths = np.linalg.norm(profile, axis=1, keepdims=True)
        profile /= np.where(lengths > 1e-12, lengths, np.float32(1.0))
        scores[batch.users] = (batch.candidates @ profile[:, :, None])[:, :, 0]
    return scores


def similarity_scores(candidate_set: CandidateSet, centered_vectors: np.ndarray, beta: float = 5.0) -> np.ndarray:
    """Log-sum-exp, over the items of the history, of `beta` times the cosine with the candidate; 0 without a history.

    The stronger baseline: one like item in the history suffices, and centering takes out what all items share.

    Args:
        candidate_set: rows of `centered_vectors`.
        centered_vectors: (items, width) float32 of unit length, `catalog.centered_vectors`.
        beta: near 0 the mean cosine decides, for large values the cosine of the most similar item.
    """
    scores = np.zeros(candidate_set.candidates.shape, dtype=np.float32)
    for batch in _batches(candidate_set, centered_vectors):
        cosines = batch.candidates @ batch.history.transpose(0, 2, 1)
        cosines = np.where(batch.present[:, None, :], cosines, np.float32(-np.inf))
        scores[batch.users] = log_sum_exp_similarity(cosines, beta)
    return scores


class _Batch(NamedTuple):
    users: slice
    candidates: np.ndarray  # (batch, candidates, width) float32
    history: np.ndarray  # (batch, longest history, width) float32, padded
    present: np.ndarray  # (batch, longest history) bool, False where padded


def _batches(candidate_set: CandidateSet, vectors: np.ndarray) -> Iterator[_Batch]:
    """The vectors of a few users at a time, so that the memory does not grow with the number of users."""
    if candidate_set.candidates.max(initial=-1) >= len(vectors):
        raise ValueError(
            f"the candidates go up to row {candidate_set.candidates.max()}, but there are {len(vectors)} vectors; "
            "give those of the catalog that the candidate set was made for"
        )
    vectors = np.asarray(vectors, dtype=np.float32)
    longest = max(map(len, candidate_set.histories), default=0)
    bytes_a_user = vectors[:1].nbytes * (longest + candidate_set.candidates.shape[1])
    step = max(1, _BATCH_BYTES // max(bytes_a_user, 1))
    for start in range(0, len(candidate_set), step):
        users = slice(start, start + step)
        rows, present = _padded(candidate_set.histories[users])
        yield _Batch(users, vectors[candidate_set.candidates[users]], vectors[rows], present)


def _padded(histories: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (users, longest) int64, 0 where there is none, and where there is one, (users, longest) bool."""
    lengths = np.array([len(history) for history in histories])
    present = np.arange(lengths.max()) < lengths[:, None]
    rows = np.zeros(present.shape, dtype=np.int64)
    rows[present] = np.concatenate(histories)
    return rows, present
