"""The names of quantizers, and what they stand for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbase_hf.auto import new_quantizer
from recbase_hf.quantizers.kinds import KINDS, config_of_kind, require_applicable, training_of_kind
from recbase_hf.quantizers.training import QuantizerTraining


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [4, 16, 384])
def test_a_kind_has_the_sizes_that_are_asked_for(kind, width):
    config = config_of_kind(kind, input_dim=width, codebook_size=32)
    quantizer = new_quantizer(config)
    assert quantizer.config.model_type == KINDS[kind].model_type
    assert (config.input_dim, config.codebook_size, config.num_levels) == (width, 32, 4)


@given(bits=st.integers(1, 16))
def test_a_grid_of_fours_and_at_most_one_two_makes_any_power_of_two(bits):
    grid = config_of_kind("fsq", input_dim=8, codebook_size=2**bits).grid
    assert math.prod(grid) == 2**bits
    assert sorted(grid, reverse=True) == grid
    assert grid.count(4) == bits // 2


def test_the_published_grid_can_be_given():
    config = config_of_kind("fsq", input_dim=384, grid=[8, 8, 8, 6, 5])
    assert config.codebook_size == 15_360


def test_a_kind_has_its_own_training_where_nobody_asks_for_another():
    assert training_of_kind("rq-vae", QuantizerTraining()).curriculum == "none"
    assert training_of_kind("rq-vae", QuantizerTraining(curriculum="epochs")).curriculum == "epochs"
    assert training_of_kind("cl-vae", QuantizerTraining()) == QuantizerTraining()


def test_a_plain_rq_vae_has_none_of_what_the_cl_vae_adds_unless_it_is_asked_for():
    plain = config_of_kind("rq-vae", input_dim=8, codebook_size=16)
    assert not any([plain.linear_path, plain.kl_weight, plain.entropy_weight, plain.neighbor_weight])
    assert config_of_kind("rq-vae", input_dim=8, codebook_size=16, kl_weight=0.5).kl_weight == 0.5
    full = config_of_kind("cl-vae", input_dim=8, codebook_size=16)
    assert all([full.linear_path, full.kl_weight, full.entropy_weight, full.neighbor_weight])


@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        ("vq", {}, "unknown quantizer 'vq'; choose from product, fsq, cl-vae, rq-vae, residual-kmeans"),
        ("residual-kmeans", {"kl_weight": 1.0}, "kl_weight does not apply .* residual-kmeans, only to cl-vae, rq-vae;"),
        ("cl-vae", {"level_dim": 4}, "level_dim does not apply to the quantizer cl-vae, only to product; leave it out"),
        ("product", {"codebooks": 4}, "codebooks does not apply to the quantizer product; leave it out"),
        ("fsq", {"codebook_size": 1000}, "1000 codes is no grid of fours and twos; give the grid itself"),
        ("fsq", {"codebook_size": 1}, "1 codes is no grid"),
        ("fsq", {"grid": [4, 1]}, r"grid is \[4, 1\]; every scalar needs at least 2 steps"),
        ("fsq", {"grid": [4, 4]}, r"the grid \[4, 4\] has 16 points, codebook_size says 32"),
        ("fsq", {"grid": []}, r"grid is \[\]"),
        ("fsq", {"split_input": True, "num_levels": 3}, "16 wide cannot be split into 3 equal parts"),
        ("product", {"level_dim": 5}, "4 levels of 5 components need vectors at least 20 wide, these are 16"),
        ("product", {"num_levels": 0}, "num_levels is 0, it must be at least 1"),
        ("product", {"num_levels": 17}, "17 levels of 1 components need vectors at least 17 wide"),
    ],
)
def test_what_does_not_fit_together_is_named(kind, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        config_of_kind(kind, **{"input_dim": 16, "codebook_size": 32, **options})


@pytest.mark.parametrize(
    ("kind", "setting", "complaint"),
    [
        ("product", {"curriculum": "epochs"}, "curriculum does not apply .* product, only to cl-vae, rq-vae; leave it"),
        ("fsq", {"kmeans_start": False}, "kmeans_start does not .* fsq, only to product, cl-vae, rq-vae, residual-k"),
        ("residual-kmeans", {"learning_rate": 0.1}, "learning_rate .* only to product, fsq, cl-vae, rq-vae; leave"),
    ],
)
def test_a_training_setting_that_a_kind_does_not_heed_is_named(kind, setting, complaint):
    with pytest.raises(ValueError, match=complaint):
        require_applicable(kind, QuantizerTraining(**setting))


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_heeds_the_general_settings(kind):
    require_applicable(kind, QuantizerTraining(seed=1, max_items=10, domain_balance=0.5, save_every=7))
