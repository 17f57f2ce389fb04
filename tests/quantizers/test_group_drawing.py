"""Which items a step sees: a function of the draw's seed, by weight, or an item's neighborhood in one domain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.quantizers import batches
from recbase_hf.quantizers.batches import NEIGHBORS, draw_group


def unit_vectors(count, seed=0):
    vectors = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def draw(sizes, *, size=64, seed=0, with_neighbors=True, weights=None, domain_weights=None):
    """The rows that a draw takes, as positions among the items of domains of these sizes."""
    vectors = unit_vectors(sum(sizes))
    group = draw_group(
        vectors,
        np.ones(sum(sizes)) if weights is None else np.asarray(weights, dtype=float),
        np.cumsum([0, *sizes]),
        np.ones(len(sizes)) if domain_weights is None else np.asarray(domain_weights, dtype=float),
        with_neighbors=with_neighbors,
        generator=np.random.default_rng(seed),
        size=size,
    )
    distances = torch.cdist(group, vectors)
    assert (distances.min(dim=1).values < 1e-3).all()
    return distances.argmin(dim=1).numpy()


def domains_of(rows, sizes):
    return np.searchsorted(np.cumsum(sizes), rows, side="right")


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    size=st.integers(1, 70),
    seed=st.integers(0, 1000),
    with_neighbors=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_draw_repeats_and_has_its_size(sizes, size, seed, with_neighbors):
    rows = draw(sizes, size=size, seed=seed, with_neighbors=with_neighbors)
    assert len(rows) == size
    assert rows.tolist() == draw(sizes, size=size, seed=seed, with_neighbors=with_neighbors).tolist()
    if with_neighbors:
        assert len(set(domains_of(rows, sizes))) == 1


@pytest.mark.parametrize("with_neighbors", [True, False])
def test_another_seed_draws_others(with_neighbors):
    first, other = (draw([300], seed=seed, with_neighbors=with_neighbors) for seed in (0, 1))
    assert first.tolist() != other.tolist()


def test_with_neighbors_an_item_comes_with_its_nearest():
    sizes = [50, 80]
    vectors = unit_vectors(sum(sizes))
    rows = draw(sizes)
    first, last = ((0, 50), (50, 130))[domains_of(rows, sizes)[0]]
    for family in rows.reshape(-1, NEIGHBORS):
        cosines = vectors[first:last] @ vectors[family[0]]
        assert set(family) == set((first + cosines.topk(NEIGHBORS).indices).tolist())
    assert len(set(rows[::NEIGHBORS])) > 1


def test_neighbors_of_a_large_domain_are_looked_for_in_a_part_of_it(monkeypatch):
    monkeypatch.setattr(batches, "SEARCHED", 30)
    starts = set()
    for seed in range(20):
        rows = draw([200], seed=seed)
        assert np.ptp(rows) < 30
        starts.add(int(rows.min()))
    assert min(starts) < 60
    assert max(starts) > 120


def test_domains_come_by_their_weight():
    sizes = [30, 0, 500, 10]
    drawn = [domains_of(draw(sizes, seed=seed, domain_weights=[1, 5, 0, 3]), sizes)[0] for seed in range(200)]
    shares = np.bincount(drawn, minlength=4) / 200
    assert shares[1] == 0, "it has no items"
    assert shares[2] == 0
    assert shares[0] == pytest.approx(0.25, abs=0.08)


def test_items_come_by_their_weight_where_neighbors_do_not_matter():
    weights = np.concatenate([np.zeros(5), np.full(10, 1.0), np.full(10, 3.0), np.zeros(5)])
    rows = draw([30], size=4000, with_neighbors=False, weights=weights)
    counts = np.bincount(rows, minlength=30)
    assert (counts[weights == 0] == 0).all()
    assert counts[5:15].sum() / 4000 == pytest.approx(0.25, abs=0.03)
    assert counts[5:25].min() > 0
