"""The neighbor loss: nothing where neighborhoods are kept, something where they are not, and always a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbase_hf.modeling.modeling_quantizer import neighbor_loss

seeds = st.integers(0, 10_000)
counts = st.integers(2, 20)


def unit_vectors(count, seed=0, width=6):
    vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


@given(count=counts, seed=seeds, scale=st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_neighborhoods_that_are_kept_cost_nothing_whatever_the_lengths(count, seed, scale):
    vectors = unit_vectors(count, seed)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)).double())[0]
    for kept in (vectors, vectors @ rotation, -vectors):
        assert abs(float(neighbor_loss(vectors, scale * kept))) < 1e-9


@given(count=st.integers(3, 20), seed=seeds, scale=st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_the_length_of_a_reconstruction_does_not_matter_and_its_direction_does(count, seed, scale):
    vectors, other = unit_vectors(count, seed), unit_vectors(count, seed + 1)
    loss = float(neighbor_loss(vectors, other))
    assert loss > 1e-4
    assert float(neighbor_loss(vectors, scale * other)) == pytest.approx(loss)


def test_it_is_the_mean_divergence_of_the_two_neighborhoods():
    vectors, other = unit_vectors(5).numpy(), unit_vectors(5, seed=1).numpy()

    def neighborhoods(points):
        weights = np.exp(points @ points.T / 0.1)
        np.fill_diagonal(weights, 0.0)
        return weights / weights.sum(axis=1, keepdims=True)

    kept, changed = neighborhoods(vectors), neighborhoods(other)
    pairs = ~np.eye(5, dtype=bool)
    expected = (kept[pairs] * np.log(kept[pairs] / changed[pairs])).sum() / 5
    found = neighbor_loss(torch.from_numpy(vectors), torch.from_numpy(3.0 * other))
    assert float(found) == pytest.approx(expected)


def test_a_small_disturbance_costs_less_than_a_large_one():
    vectors, noise = unit_vectors(30), unit_vectors(30, seed=1)
    losses = [float(neighbor_loss(vectors, vectors + size * noise)) for size in (0.0, 0.1, 0.3, 1.0)]
    assert losses == sorted(losses)
    assert losses[1] > losses[0]


ODD = {
    "one item": torch.ones(1, 4) / 2,
    "all alike": torch.ones(8, 4) / 2,
    "zeros": torch.zeros(8, 4),
    "two kinds": torch.eye(4)[[0, 0, 1, 1]],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("disturbed", [True, False])
def test_it_is_a_number_with_a_gradient_on_odd_batches_too(name, disturbed):
    vectors = ODD[name]
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    reconstruction = (vectors + disturbed * noise).requires_grad_()
    loss = neighbor_loss(vectors, reconstruction)
    loss.backward()
    assert torch.isfinite(loss)
    assert float(loss.detach()) > -1e-6
    assert torch.isfinite(reconstruction.grad).all()


def test_items_of_the_same_text_do_not_count_as_neighbors_of_each_other():
    vectors, other = unit_vectors(6), unit_vectors(6, seed=1)
    doubled = neighbor_loss(torch.cat([vectors, vectors]), torch.cat([other, other]))
    torch.testing.assert_close(doubled, neighbor_loss(vectors, other))
