"""The CL-VAE: what each term of its loss trains, and what its codes mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from recbase_hf import ClVaeConfig, ClVaeModel

WIDTH = 6


def small_model(seed=0, **overrides):
    """A plain VAE: without linear path and neighbor loss."""
    torch.manual_seed(seed)
    sizes = {"input_dim": WIDTH, "hidden_dims": [10], "latent_dim": 4, "num_levels": 3, "codebook_size": 5}
    plain = {"linear_path": False, "neighbor_weight": 0.0}
    return ClVaeModel(ClVaeConfig(**{**sizes, **plain, **overrides}))


def unit_vectors(count=32, seed=0):
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def gradients(model, vectors):
    model.zero_grad()
    model(vectors).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# ---- the loss ------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_its_parts():
    model = small_model(commitment_weight=0.5, kl_weight=0.25, entropy_weight=2.0, neighbor_weight=3.0)
    out = model(unit_vectors())
    expected = out.reconstruction_loss + out.codebook_loss + 0.5 * out.commitment_loss + 0.25 * out.kl_loss
    torch.testing.assert_close(out.loss.detach(), expected + 3.0 * out.neighbor_loss - 2.0 * out.entropy)
    torch.testing.assert_close(out.codebook_loss, out.commitment_loss)  # they differ in what they train


@pytest.mark.parametrize("linear_path", [True, False])
@pytest.mark.parametrize("active", [1, 2, 3])
def test_the_loss_trains_encoder_decoder_and_the_active_codebooks_only(active, linear_path):
    model = small_model(linear_path=linear_path)
    model.active_levels = active
    found = gradients(model, unit_vectors())
    for name, gradient in found.items():
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name
    moved = found["codebooks"].abs().sum(dim=(1, 2)) > 0
    assert moved.tolist() == [level < active for level in range(3)]


def test_frozen_levels_get_no_gradient():
    model = small_model(freeze_earlier_levels=True)
    model.active_levels = 2
    found = gradients(model, unit_vectors())
    assert (found["codebooks"].abs().sum(dim=(1, 2)) > 0).tolist() == [False, True, False]
    assert all(found[name].abs().sum() > 0 for name in found)


def test_reconstruction_reaches_the_encoder_through_the_quantizer():
    model = small_model(commitment_weight=0.0, kl_weight=0.0, entropy_weight=0.0).eval()
    found = gradients(model, unit_vectors())
    assert found["encoder.0.weight"].abs().sum() > 0
    # Not so the codebooks: they follow the residuals alone.
    model.zero_grad()
    (model(unit_vectors()).reconstruction - unit_vectors()).square().sum().backward()
    assert model.codebooks.grad is None


def test_maximizing_the_entropy_spreads_the_codes_evenly():
    # All but one code start so far away that every vector takes the same one.
    model = small_model(num_levels=1, codebook_size=8).eval()
    with torch.no_grad():
        model.codebooks[0] = 0.1 * model.codebooks[0]
        model.codebooks[0, 1:] += 10.0
    vectors = unit_vectors(128)

    def perplexity():
        shares = torch.bincount(model.encode(vectors)[:, 0], minlength=8) / len(vectors)
        return float(torch.exp(torch.special.entr(shares).sum()))

    def loss(entropy_weight):
        model.config.entropy_weight = entropy_weight
        return model(vectors).loss

    def entropy():
        model.config.entropy_weight = 1.0
        return float(model(vectors).entropy)

    assert perplexity() == 1.0
    before = entropy()
    optimizer = torch.optim.Adam([model.codebooks], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (loss(1.0) - loss(0.0)).backward()  # minus the entropy, and nothing else
        optimizer.step()
    assert perplexity() > 3.0
    assert before < entropy() <= 1.0


def test_entropy_is_one_where_all_codes_are_used_alike_and_fine_with_a_single_code():
    model = small_model()
    with torch.no_grad():
        model.codebooks.zero_()  # all codes equally far
    assert float(model(unit_vectors()).entropy) == pytest.approx(1.0)
    assert torch.isfinite(small_model(codebook_size=1)(unit_vectors()).loss)


def set_posterior(model, mean, log_variance):
    """Make the encoder answer every vector with this posterior."""
    last = model.encoder[-1]
    with torch.no_grad():
        last.weight.zero_()
        offset = model.posterior(unit_vectors(1))[1][0, 0] - last.bias[-1]  # what is added to the encoder's answer
        last.bias.copy_(torch.cat([torch.full((4,), mean), torch.full((4,), log_variance) - offset]))


@given(mean=st.floats(-3, 3), log_variance=st.floats(-11, 3))
@settings(max_examples=40, deadline=None)
def test_kl_is_that_of_the_posterior_and_a_standard_normal(mean, log_variance):
    model = small_model()
    set_posterior(model, mean, log_variance)
    posterior = Normal(torch.tensor(mean).double(), torch.tensor(log_variance).double().mul(0.5).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros(()).double(), torch.ones(()).double()))
    found = model(unit_vectors(4)).kl_loss
    assert found >= 0
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_kl_is_zero_for_a_standard_normal_posterior_and_positive_for_any_other():
    model = small_model()
    for mean, log_variance in [(0.0, 0.0), (0.1, 0.0), (-0.1, 0.0), (0.0, 0.5), (0.0, -0.5)]:
        set_posterior(model, mean, log_variance)
        kl = float(model(unit_vectors(4)).kl_loss)
        assert (abs(kl) < 1e-6) == (mean == log_variance == 0.0), (mean, log_variance, kl)


def test_evaluation_is_deterministic_and_training_samples():
    model, vectors = small_model(), unit_vectors()
    model.eval()
    assert torch.equal(model(vectors).reconstruction, model(vectors).reconstruction)
    model.train()
    set_posterior(model, 0.0, 0.0)  # a wide posterior: the samples take other codes
    first, second = model(vectors), model(vectors)
    assert not torch.equal(first.codes, second.codes)
    assert not torch.equal(first.reconstruction, second.reconstruction)


def test_without_kl_the_encoder_is_deterministic_in_training_too():
    model, vectors = small_model(kl_weight=0.0).train(), unit_vectors()
    set_posterior(model, 0.0, 0.0)
    assert torch.equal(model(vectors).reconstruction, model(vectors).reconstruction)


def test_the_linear_path_runs_beside_the_hidden_layers():
    model, vectors = small_model(linear_path=True).eval(), unit_vectors()
    plain = small_model().eval()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    with torch.no_grad():
        shift = model.posterior(vectors)[0] - plain.posterior(vectors)[0]
        torch.testing.assert_close(shift, model.linear_encoder(WIDTH**0.5 * vectors))
        codes = model.encode(vectors)
        latent = sum(model.codebooks[level][codes[:, level]] for level in range(3))
        beside = model.linear_decoder(latent) / WIDTH**0.5
    torch.testing.assert_close(model.decode(codes), plain.decode(codes) + beside)


# ---- codes ---------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), count=st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_encode_takes_the_nearest_code_of_every_level(seed, count):
    model, vectors = small_model(seed), unit_vectors(count, seed)
    codes = model.encode(vectors).numpy()
    assert codes.shape == (count, 3)
    with torch.no_grad():
        residuals = model.posterior(vectors)[0].double().numpy()
    for level, book in enumerate(model.codebooks.detach().double().numpy()):
        np.testing.assert_allclose(model.residuals(vectors, level).numpy(), residuals, atol=1e-5)
        distances = np.square(residuals[:, None] - book).sum(axis=-1)
        taken = distances[np.arange(count), codes[:, level]]
        assert (taken <= distances.min(axis=1, initial=np.inf) + 1e-5).all()
        residuals = residuals - book[codes[:, level]]


@pytest.mark.parametrize("levels", [1, 2])
def test_fewer_levels_decode_to_what_a_forward_over_them_gives(levels):
    model, vectors = small_model().eval(), unit_vectors()
    codes = model.encode(vectors)
    model.active_levels = levels
    out = model(vectors)
    assert torch.equal(out.codes, codes[:, :levels])
    torch.testing.assert_close(model.decode(codes[:, :levels]), out.reconstruction.detach())
