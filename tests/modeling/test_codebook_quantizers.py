"""Product quantizer and residual k-means: which features a level quantizes, and by which code."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizers.small_quantizers import CODES, LEVELS, WIDTH, small_quantizer


def unit_vectors(count=20, seed=0):
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_residual_k_means_takes_the_nearest_code_of_what_is_left_and_decodes_to_the_sum(seed):
    quantizer, vectors = small_quantizer("residual-kmeans", seed), unit_vectors(seed=seed)
    codes = quantizer.encode(vectors).numpy()
    left = vectors.double().numpy()
    for level, book in enumerate(quantizer.codebooks.detach().double().numpy()):
        distances = np.square(left[:, None] - book).sum(axis=2)
        assert (distances[np.arange(20), codes[:, level]] <= distances.min(axis=1) + 1e-5).all()
        left = left - book[codes[:, level]]
    np.testing.assert_allclose(quantizer.decode(torch.from_numpy(codes)).numpy(), vectors.numpy() - left, atol=1e-5)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_each_level_of_a_product_quantizer_takes_the_nearest_code_of_its_own_features(seed):
    quantizer, vectors = small_quantizer("product", seed), unit_vectors(seed=seed)
    with torch.no_grad():
        features = quantizer.features(vectors)
    assert features.shape == (20, LEVELS, quantizer.config.level_dim)
    codes = quantizer.encode(vectors)
    for level in range(LEVELS):
        distances = torch.cdist(features[:, level], quantizer.codebooks[level].detach())
        taken = distances.gather(1, codes[:, level : level + 1])[:, 0]
        assert (taken <= distances.min(dim=1).values + 1e-3).all()


def test_no_code_of_a_product_quantizer_depends_on_another():
    quantizer, vectors = small_quantizer("product"), unit_vectors()
    codes = quantizer.encode(vectors)
    with torch.no_grad():
        quantizer.codebooks[0] = quantizer.codebooks[0].flip(0)
    changed = quantizer.encode(vectors)
    assert torch.equal(changed[:, 0], CODES - 1 - codes[:, 0])
    assert torch.equal(changed[:, 1:], codes[:, 1:])


def test_the_parts_of_a_product_quantizers_loss_train_what_they_are_for():
    def trained(**weights):
        quantizer = small_quantizer("product", **{"commitment_weight": 0.0, "neighbor_weight": 0.0, **weights})
        quantizer(unit_vectors()).loss.backward()
        return {name: parameter.grad for name, parameter in quantizer.named_parameters()}

    plain, committed, near = trained(), trained(commitment_weight=1.0), trained(neighbor_weight=1.0)
    assert all(gradient.abs().sum() > 0 for gradient in plain.values())
    for other, changed in [(committed, ["encoder"]), (near, ["decoder", "encoder"])]:
        differing = [name for name in plain if not torch.allclose(plain[name], other[name])]
        assert sorted(differing) == [f"linear_{part}.weight" for part in changed]
