"""What all kinds of quantizers promise: codes, vectors, and checkpoints that come back whole or not at all."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from quantizers.small_quantizers import CODES, LEVELS, TRAINED_KINDS, WIDTH, small_config, small_quantizer
from recbase_hf.auto import new_quantizer, quantizer_config
from recbase_hf.quantizers.kinds import KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)


def unit_vectors(count=23, seed=0):
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


# ---- codes and vectors ---------------------------------------------------------------------------------------------


@every_kind
@given(seed=st.integers(0, 10_000), count=st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_an_item_has_a_code_a_level_and_fewer_levels_decode_too(kind, seed, count):
    quantizer = small_quantizer(kind, seed)
    codes = quantizer.encode(unit_vectors(count, seed))
    assert codes.shape == (count, LEVELS)
    assert codes.dtype == torch.int64
    assert ((codes >= 0) & (codes < CODES)).all()
    for levels in range(1, LEVELS + 1):
        decoded = quantizer.decode(codes[:, :levels])
        assert decoded.shape == (count, WIDTH)
        assert torch.isfinite(decoded).all()


@every_kind
def test_codes_do_not_depend_on_the_batch(kind):
    quantizer, vectors = small_quantizer(kind), unit_vectors()
    whole = quantizer.encode(vectors)
    assert len(whole.unique(dim=0)) > 5
    assert torch.equal(quantizer.encode(vectors, batch_size=5), whole)
    assert torch.equal(torch.cat([quantizer.encode(vector[None]) for vector in vectors]), whole)
    assert torch.equal(quantizer.encode(vectors.flip(0)), whole.flip(0))
    assert torch.equal(quantizer.encode(vectors.double()), whole)


@every_kind
def test_different_codes_decode_to_different_vectors_and_level_by_level(kind):
    quantizer, vectors = small_quantizer(kind), unit_vectors()
    codes = quantizer.encode(vectors)
    for level in range(LEVELS):
        other = codes.clone()
        other[:, level] = (codes[:, level] + 1) % CODES
        changed = (quantizer.decode(other) - quantizer.decode(codes)).abs().max(dim=1).values > 1e-5
        assert changed.all()
        if level:
            torch.testing.assert_close(quantizer.decode(other[:, :level]), quantizer.decode(codes[:, :level]))


@every_kind
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_last_code_is_the_nearest_by_the_distances_to_the_last_level(kind, seed):
    quantizer, vectors = small_quantizer(kind, seed), unit_vectors(12, seed)
    codes = quantizer.encode(vectors)
    distances = quantizer.last_level_distances(vectors, codes)
    assert distances.shape == (12, CODES)
    assert distances.dtype == torch.float32
    assert distances.min() > -1e-4
    assert torch.equal(distances.argmin(dim=1), codes[:, -1])
    elsewhere = codes.clone()
    elsewhere[:, -1] = 0
    assert torch.equal(quantizer.last_level_distances(vectors, elsewhere), distances), "whatever the last code is"


@pytest.mark.parametrize("kind", ["residual-kmeans", "cl-vae", "rq-vae"])
def test_distances_to_the_last_level_are_of_what_the_codes_before_leave(kind):
    quantizer, vectors = small_quantizer(kind), unit_vectors()
    codes = torch.randint(CODES, (len(vectors), LEVELS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        points = vectors if kind == "residual-kmeans" else quantizer.posterior(vectors)[0]
        taken = sum(quantizer.codebooks[level][codes[:, level]] for level in range(LEVELS - 1))
        expected = torch.cdist(points - taken, quantizer.codebooks[-1]).square()
    torch.testing.assert_close(quantizer.last_level_distances(vectors, codes), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TRAINED_KINDS)
def test_the_forward_gives_the_codes_of_encode_and_the_vectors_of_decode(kind):
    quantizer, vectors = small_quantizer(kind), unit_vectors()
    out = quantizer(vectors)
    assert torch.equal(out.codes, quantizer.encode(vectors))
    torch.testing.assert_close(quantizer.decode(out.codes), out.reconstruction.detach())
    error = (out.reconstruction - vectors).square().sum(dim=1).mean()
    torch.testing.assert_close(out.reconstruction_loss, error.detach())


@every_kind
def test_vectors_that_cannot_be_encoded_are_named(kind):
    quantizer = small_quantizer(kind)
    with pytest.raises(ValueError, match=r"\(items, 16\), got \(3, 7\)"):
        quantizer.encode(torch.zeros(3, 7))
    with pytest.raises(ValueError, match=r"\(items, 16\), got \(16,\)"):
        quantizer.encode(torch.zeros(WIDTH))
    for bad in (float("nan"), float("inf")):
        vectors = unit_vectors(5)
        vectors[3, 1] = bad
        with pytest.raises(ValueError, match="vector 3 holds NaN or infinity"):
            quantizer.encode(vectors)


# ---- losses --------------------------------------------------------------------------------------------------------

WEIGHTS = {
    "product": {"commitment": 1.0, "neighbor": 1.0},
    "fsq": {"neighbor": 1.0},
    "cl-vae": {"commitment": 1.0, "neighbor": 1.0, "kl": 1.0, "entropy": -1.0},
}
"""Which parts of a kind's loss have a weight, and whether they are added or subtracted."""


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind, parts in WEIGHTS.items() for part in parts])
def test_a_part_of_the_loss_counts_by_its_weight_and_at_zero_not_at_all(kind, part):
    off = {f"{name}_weight": 0.0 for name in WEIGHTS[kind]}
    without, slight, full = (small_quantizer(kind, **{**off, f"{part}_weight": weight}) for weight in (0.0, 0.5, 2.0))
    vectors = unit_vectors()
    losses = [quantizer(vectors).loss.detach() for quantizer in (without, slight, full)]
    out = full(vectors)
    value = WEIGHTS[kind][part] * (out.entropy if part == "entropy" else out[f"{part}_loss"])
    assert value != 0
    torch.testing.assert_close(losses[1] - losses[0], 0.5 * value)
    torch.testing.assert_close(losses[2] - losses[0], 2.0 * value)
    rest = without(vectors)
    codebook = 0.0 if rest.codebook_loss is None else rest.codebook_loss
    torch.testing.assert_close(losses[0], rest.reconstruction_loss + codebook)


# ---- configurations ------------------------------------------------------------------------------------------------


@every_kind
def test_the_settings_of_a_configuration_make_it_again(kind):
    config = small_config(kind, mean_shrinkage=3.5)
    written = json.loads(json.dumps(config.settings()))
    again = quantizer_config(config.model_type, **written)
    assert type(again) is type(config)
    assert again.to_diff_dict() == config.to_diff_dict()
    assert again.settings() == config.settings()
    assert not [name for name in written if name.startswith("_") or "version" in name]


@every_kind
@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"input_dim": 0}, "input_dim is 0"),
        ({"num_levels": 0}, "num_levels is 0"),
        ({"num_levels": 27, "input_dim": 540}, "num_levels is 27; .* at most 26"),
    ],
)
def test_impossible_sizes_are_named(kind, wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        quantizer_config(KINDS[kind].model_type, **{"input_dim": 512, **wrong})


def test_sizes_that_only_some_kinds_have_are_checked_too():
    for model_type, wrong, complaint in [
        ("clvae", {"codebook_size": -1}, "codebook_size is -1"),
        ("clvae", {"hidden_dims": [8, 0]}, r"hidden_dims is \[8, 0\]"),
        ("clvae", {"latent_dim": 0}, "latent_dim is 0"),
        ("fsq", {"hidden_dims": [0]}, r"hidden_dims is \[0\]"),
        ("fsq", {"grid": [4, 4], "codebook_size": 15}, r"grid \[4, 4\] has 16 points, codebook_size says 15"),
        ("product", {"level_dim": 0}, "level_dim is 0"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            quantizer_config(model_type, **wrong)


def test_an_unknown_kind_is_named_with_those_that_there_are():
    with pytest.raises(
        ValueError, match="unknown quantizer 'vqvae'; this version has clvae, fsq, product, residual_kmeans"
    ):
        quantizer_config("vqvae")


# ---- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """A folder and the quantizer that was saved there, as if it had been fitted."""
    folder = tmp_path_factory.mktemp(request.param)
    quantizer = small_quantizer(request.param)
    quantizer.corpus_mean.copy_(torch.arange(WIDTH) / 10)
    quantizer.fitted_cosines.copy_(torch.linspace(-1, 1, 101))
    quantizer.save_pretrained(folder)
    return folder, quantizer


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the checkpoint to damage, and a function that changes its tensors."""
    folder = tmp_path / "copy"
    shutil.copytree(saved[0], folder)

    def change(edit):
        state = load_file(folder / "model.safetensors")
        edit(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return folder, change


def assert_equal_states(left, right):
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name].numpy(), right[name].numpy(), err_msg=name)  # where NaN equals NaN


def test_a_checkpoint_comes_back_identical(saved, tmp_path):
    folder, quantizer = saved
    loaded = type(quantizer).from_pretrained(folder)
    assert loaded.config.settings() == quantizer.config.settings()
    assert_equal_states(loaded, quantizer)
    assert torch.equal(loaded.encode(unit_vectors()), quantizer.encode(unit_vectors()))
    codes = quantizer.encode(unit_vectors())
    assert torch.equal(loaded.decode(codes), quantizer.decode(codes))
    loaded.save_pretrained(tmp_path)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_auto_classes_find_each_kind(saved):
    folder, quantizer = saved
    assert type(AutoConfig.from_pretrained(folder)) is type(quantizer.config)
    loaded = AutoModel.from_pretrained(folder)
    assert type(loaded) is type(quantizer)
    assert_equal_states(loaded, quantizer)


@every_kind
def test_a_quantizer_that_was_never_fitted_can_be_saved_too(kind, tmp_path):
    quantizer = small_quantizer(kind)
    assert torch.isnan(quantizer.fitted_cosines).all()
    assert not quantizer.corpus_mean.any()
    quantizer.save_pretrained(tmp_path)
    assert_equal_states(type(quantizer).from_pretrained(tmp_path), quantizer)


def test_each_missing_tensor_is_an_error_that_names_it(saved, copy):
    quantizer, (folder, change) = saved[1], copy
    for name in quantizer.state_dict():
        removed = {}
        change(lambda state, name=name, removed=removed: removed.update({name: state.pop(name)}))
        with pytest.raises(ValueError, match=rf"missing keys: \['{name}'\]"):
            type(quantizer).from_pretrained(folder)
        change(lambda state, removed=removed: state.update(removed))
    assert_equal_states(type(quantizer).from_pretrained(folder), quantizer)


def test_a_tensor_too_many_is_an_error_that_names_it(saved, copy):
    folder, change = copy
    change(lambda state: state.update(extra=torch.zeros(1)))
    with pytest.raises(ValueError, match=r"unexpected keys: \['extra'\]"):
        type(saved[1]).from_pretrained(folder)


def test_a_misshapen_tensor_is_an_error_that_names_it(saved, copy):
    folder, change = copy
    change(lambda state: state.update(corpus_mean=torch.zeros(2)))
    with pytest.raises(ValueError, match=r"mismatched keys.*corpus_mean"):
        type(saved[1]).from_pretrained(folder)


def test_a_weight_that_is_not_finite_is_an_error_that_names_it(saved, copy):
    folder, change = copy
    name = next(name for name, _ in saved[1].named_parameters())
    change(lambda state: state[name][0].fill_(float("nan")))
    with pytest.raises(ValueError, match=rf"{folder}: NaN or infinity in \['{name}'\]"):
        type(saved[1]).from_pretrained(folder)


@pytest.mark.parametrize("kept", [0, 40, -8])
def test_a_truncated_file_is_an_error_that_names_the_folder(saved, copy, kept):
    folder, _ = copy
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{folder} are damaged"):
        type(saved[1]).from_pretrained(folder)


def test_pickled_weights_are_never_read(saved, copy):
    folder, _ = copy
    (folder / "model.safetensors").unlink()
    torch.save(saved[1].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        type(saved[1]).from_pretrained(folder)


@every_kind
def test_the_seed_of_torch_decides_an_unfitted_quantizer(kind):
    config = small_config(kind)
    torch.manual_seed(3)
    first = new_quantizer(config)
    assert_equal_states(first, small_quantizer(kind, seed=3))
    other = small_quantizer(kind, seed=4)
    assert any(not torch.equal(left, right) for left, right in zip(first.parameters(), other.parameters(), strict=True))
