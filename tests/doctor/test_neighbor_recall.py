"""Neighbor recall equals the plain definition, counts ties by expectation and needs no more than it is given."""

from __future__ import annotations

import numpy as np
import pytest

from recbase_hf.doctor import neighbors
from recbase_hf.doctor.measures import neighbor_recall
from recbase_hf.errors import DataError


def unit_rows(rows: int, width: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def buckets(items: int, kinds: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, what their codes decode to, and the codes; several items share a code."""
    kind = np.random.default_rng(seed).integers(kinds, size=items)
    decoded = unit_rows(kinds, 6, seed + 1)[kind]
    vectors = decoded + 0.5 * unit_rows(items, 6, seed + 2)
    return vectors, decoded, np.stack([kind, kind % 3], axis=1)


def recall_by_definition(vectors: np.ndarray, decoded: np.ndarray, k: int) -> float:
    """|G and T| + (k - |G|) |E and T| / |E|, query by query, as it is written down."""
    overlaps = []
    for query in range(len(vectors)):
        others = np.flatnonzero(np.arange(len(vectors)) != query)
        by_text, by_code = (
            np.array([a[query] @ a[other] / np.linalg.norm(a[query]) / np.linalg.norm(a[other]) for other in others])
            for a in (vectors.astype(float), decoded.astype(float))
        )
        nearest = by_text >= np.sort(by_text)[-k]
        threshold = np.sort(by_code)[-k]
        nearer, as_near = by_code > threshold + 1e-7, np.abs(by_code - threshold) <= 1e-7
        drawn = (k - nearer.sum()) * (as_near & nearest).sum() / as_near.sum()
        overlaps.append(((nearer & nearest).sum() + drawn) / k)
    return float(np.mean(overlaps))


@pytest.mark.parametrize(("items", "kinds", "k"), [(40, 40, 10), (40, 6, 10), (60, 12, 3), (12, 4, 10), (30, 1, 5)])
def test_it_equals_its_definition(items, kinds, k):
    vectors, decoded, codes = buckets(items, kinds)
    expected = recall_by_definition(vectors, decoded, k)
    assert neighbor_recall(vectors, decoded, codes=codes, k=k) == pytest.approx(expected, abs=1e-6)
    assert neighbor_recall(vectors, decoded, k=k) == pytest.approx(expected, abs=1e-6)


def test_vectors_recall_themselves_even_where_they_repeat():
    vectors = unit_rows(30, 8)
    assert neighbor_recall(vectors, vectors) == 1.0
    repeated = np.concatenate([vectors, vectors, vectors[:5]])
    assert neighbor_recall(repeated, repeated, k=3) == 1.0


def test_one_code_for_everything_is_chance():
    assert neighbor_recall(unit_rows(101, 8), np.ones((101, 3)), k=10) == pytest.approx(0.1)


def test_only_directions_count():
    vectors, decoded, codes = buckets(50, 20)
    lengths = np.random.default_rng(3).uniform(0.1, 10, size=(50, 1))
    plain = neighbor_recall(vectors, decoded, codes=codes, k=5)
    assert neighbor_recall(vectors * lengths, 3 * decoded, codes=codes, k=5) == pytest.approx(plain, abs=1e-6)


def test_the_order_of_the_items_does_not_count():
    vectors, decoded, codes = buckets(50, 20)
    order = np.random.default_rng(3).permutation(50)
    shuffled = neighbor_recall(vectors[order], decoded[order], codes=codes[order], k=5)
    assert shuffled == pytest.approx(neighbor_recall(vectors, decoded, codes=codes, k=5), abs=1e-6)


def test_the_chunks_do_not_count(monkeypatch):
    vectors, decoded, codes = buckets(50, 20)
    whole = neighbor_recall(vectors, decoded, codes=codes, k=5)
    monkeypatch.setattr(neighbors, "CHUNK_CELLS", 150)
    assert neighbor_recall(vectors, decoded, codes=codes, k=5) == pytest.approx(whole, abs=1e-6)


def test_equal_codes_decode_alike_also_where_the_last_bit_differs():
    vectors, decoded, codes = buckets(60, 5)
    noisy = decoded * (1 + 1e-7 * np.random.default_rng(0).normal(size=decoded.shape))
    assert neighbor_recall(vectors, noisy, codes=codes) == pytest.approx(recall_by_definition(vectors, decoded, 10))


def test_a_sample_is_drawn_by_its_seed_and_near_the_whole():
    vectors, decoded, codes = buckets(400, 60)
    sampled = [neighbor_recall(vectors, decoded, codes=codes, max_queries=200, seed=seed) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert sampled[0] == pytest.approx(neighbor_recall(vectors, decoded, codes=codes), abs=0.03)


def test_half_precision_is_taken():
    vectors, decoded, codes = buckets(50, 20)
    halves = neighbor_recall(vectors.astype(np.float16), decoded.astype(np.float16), codes=codes, k=5)
    assert halves == pytest.approx(neighbor_recall(vectors, decoded, codes=codes, k=5), abs=0.05)


@pytest.mark.parametrize(
    ("vectors", "decoded", "message"),
    [
        (np.ones((1, 2)), np.ones((1, 2)), "at least two"),
        (np.ones((3, 2)), np.ones((2, 2)), "one row an item"),
        (np.ones(3), np.ones(3), "two dimensions"),
        (np.array([[1.0], [np.nan]]), np.ones((2, 1)), "row 2 of vectors"),
        (np.ones((2, 1)), np.array([[np.inf], [1.0]]), "row 1 of decoded"),
    ],
)
def test_what_cannot_be_used_is_named(vectors, decoded, message):
    with pytest.raises(DataError, match=message):
        neighbor_recall(vectors, decoded)
