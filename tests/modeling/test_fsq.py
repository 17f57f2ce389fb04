"""Finite scalar quantization: every code is a point of the grid, and every point of the grid is a code."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf import FsqConfig, FsqModel

grids = st.lists(st.integers(2, 9), min_size=1, max_size=4).filter(lambda grid: math.prod(grid) <= 2000)


def model_of(grid, *, width=12, levels=2, seed=0, **options):
    torch.manual_seed(seed)
    return FsqModel(FsqConfig(input_dim=width, num_levels=levels, grid=grid, hidden_dims=[8], **options)).eval()


def unit_vectors(count, width=12, seed=0):
    vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def grid_model(grid):
    """One level, whose scalars are the numbers of the vector as they are; decoded, the values that stand for them."""
    scalars = len(grid)
    model = model_of(grid, width=scalars, levels=1)
    with torch.no_grad():
        model.project.weight.copy_(torch.eye(scalars) / scalars**0.5)
        model.linear_decoder.weight.copy_(torch.eye(scalars) * scalars**0.5)
        model.decoder[-1].weight.zero_()
    return model


def test_the_published_grid_has_its_codes():
    model = model_of([8, 8, 8, 6, 5], levels=4, width=20)
    assert model.config.codebook_size == 15_360
    assert model.last_level_distances(unit_vectors(2, 20), torch.zeros(2, 4, dtype=torch.long)).shape == (2, 15_360)


@given(grid=grids)
@settings(max_examples=40, deadline=None)
def test_each_code_is_a_point_of_its_own(grid):
    model = grid_model(grid)
    points = model.decode(torch.arange(model.config.codebook_size)[:, None])
    assert points.abs().max() <= 1 + 1e-5
    for scalar, steps in enumerate(grid):
        assert len(points[:, scalar].round(decimals=4).unique()) == steps
    assert len(points.round(decimals=4).unique(dim=0)) == model.config.codebook_size


@given(grid=grids)
@settings(max_examples=40, deadline=None)
def test_some_vector_has_each_code(grid):
    model = grid_model(grid)
    values = torch.linspace(-6, 6, 4001)
    for scalar, steps in enumerate(grid):
        vectors = torch.zeros(len(values), len(grid))
        vectors[:, scalar] = values
        below = math.prod(grid[:scalar])
        codes = model.encode(vectors)[:, 0]
        digits = codes // below % steps
        assert digits.unique().tolist() == list(range(steps))
        assert (digits.diff() >= 0).all(), "larger numbers, larger digits"
        assert len((codes - digits * below).unique()) == 1, "no other digit moves"
        within_reach = digits[values.abs() < 3]
        assert (within_reach.min(), within_reach.max()) == (0, steps - 1)


@given(grid=grids)
@settings(max_examples=40, deadline=None)
def test_a_point_of_the_grid_encodes_to_itself(grid):
    model = model_of(grid, levels=1, width=8)
    codes = torch.arange(model.config.codebook_size)
    steps, strides = torch.tensor(grid), torch.tensor([math.prod(grid[:place]) for place in range(len(grid))])
    points = codes[:, None] // strides % steps - steps // 2
    assert torch.equal(model._codes(points.float()), codes)
    assert torch.equal(model._codes(points + 0.98 * torch.rand(points.shape) - 0.49), codes)


@given(grid=st.lists(st.sampled_from([2, 3, 5]), min_size=1, max_size=3), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_level_that_is_not_given_stands_in_the_middle_of_its_grid(grid, seed):
    model = model_of(grid, seed=seed)
    with torch.no_grad():
        model.decoder[-1].weight.zero_()  # what is left is linear
    every = torch.arange(model.config.codebook_size)
    both = model.decode(torch.stack([torch.zeros_like(every), every], dim=1))
    torch.testing.assert_close(model.decode(torch.zeros(1, 1, dtype=torch.long))[0], both.mean(dim=0))


@given(grid=grids, seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_decoding_a_code_gives_what_the_forward_decoded(grid, seed):
    model, vectors = model_of(grid, seed=seed), 3.0 * unit_vectors(10, seed=seed)
    out = model(vectors)
    assert torch.equal(out.codes, model.encode(vectors))
    torch.testing.assert_close(model.decode(out.codes), out.reconstruction.detach(), atol=1e-5, rtol=1e-4)


def test_the_gradient_goes_through_the_rounding():
    model, vectors = model_of([4, 5, 2], neighbor_weight=0.0), unit_vectors(30)
    model(vectors).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert (model.project.weight.grad.abs().sum(dim=1) > 0).all(), "of each scalar"
    before = float(model(vectors).loss.detach())
    optimizer = torch.optim.Adam([model.project.weight, model.project.bias], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(vectors).loss.backward()
        optimizer.step()
    assert float(model(vectors).loss.detach()) < 0.9 * before, "the map in front learns"


@pytest.mark.parametrize("split_input", [True, False])
def test_a_level_sees_its_own_part_of_the_vector_or_all_of_it(split_input):
    model = model_of([4, 4], levels=3, split_input=split_input)
    vectors = unit_vectors(200)
    codes = model.encode(vectors)
    for level in range(3):
        changed = vectors.clone()
        changed[:, 4 * level : 4 * level + 4] = unit_vectors(200, seed=1)[:, 4 * level : 4 * level + 4]
        moved = (model.encode(changed) != codes).any(dim=0).tolist()
        assert moved == [True if not split_input else other == level for other in range(3)]


def test_parts_that_a_level_does_not_see_are_not_trained():
    model = model_of([4, 4], levels=3, split_input=True)
    model(unit_vectors(30)).loss.backward()
    seen = model.project.weight.grad.abs() > 0
    own = torch.block_diag(*[torch.ones(2, 4)] * 3).bool()
    assert not seen[~own].any()
    assert seen[own].all()
