"""The training of quantizers: when levels open, what learns by then, and what becomes of codes that nothing uses."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from quantizers.small_quantizers import (
    CODES,
    DOMAINS,
    LEVELS,
    before_each_step,
    centered,
    fit,
    small_config,
)

RESIDUAL = pytest.mark.parametrize("kind", ["cl-vae", "rq-vae"])
ITEMS = sum(map(len, DOMAINS.values()))
TRAINED_ON = ITEMS - ITEMS // 10


def active_levels_of_steps(kind, **options):
    """How many levels learn in each step, and the reports."""
    active = []
    with before_each_step(lambda model, _: active.append(model.active_levels)):
        model, reports = fit(kind, **options)
    assert model.active_levels == LEVELS
    return active, reports


# ---- when levels open ----------------------------------------------------------------------------------------------


@RESIDUAL
def test_levels_open_one_after_the_other(kind):
    active, reports = active_levels_of_steps(kind, max_steps_per_level=20)
    assert active == [1] * 20 + [2] * 20 + [3] * 20
    assert [report.steps for report in reports] == [20] * LEVELS


def test_a_level_that_has_settled_makes_room_for_the_next_and_the_last_learns_on():
    active, reports = active_levels_of_steps("cl-vae", tolerance=1e9, patience=2, max_steps_per_level=40)
    assert [report.steps for report in reports] == [30, 30, 40], "the first evaluation that has two before it"
    assert active == [1] * 30 + [2] * 30 + [3] * 40


def test_by_epochs_a_level_opens_after_so_many_passes_over_the_items():
    active, reports = active_levels_of_steps("cl-vae", curriculum="epochs", epochs_per_level=2, tolerance=1e9)
    passes = math.ceil(2 * TRAINED_ON / 64)
    assert [report.steps for report in reports] == [passes, passes, 30]
    assert active == [1] * passes + [2] * passes + [3] * 30


def test_epochs_count_for_all_levels_but_the_last_whatever_the_steps():
    _, reports = active_levels_of_steps("cl-vae", curriculum="epochs", epochs_per_level=5, max_steps_per_level=12)
    assert all(report.steps > 12 for report in reports[:-1])
    assert reports[-1].steps == 12


def test_without_curriculum_all_levels_learn_from_the_first_step():
    active, reports = active_levels_of_steps("cl-vae", curriculum="none", max_steps_per_level=10, tolerance=1e9)
    assert active == [LEVELS] * (10 * LEVELS)
    assert [report.steps for report in reports] == [10] * LEVELS
    assert all(report.used_codes >= 0.9 * CODES for report in reports)


@pytest.mark.parametrize("kind", ["product", "fsq"])
@pytest.mark.parametrize("curriculum", ["convergence", "epochs", "none"])
def test_levels_that_do_not_need_each_other_learn_together_for_all_steps(kind, curriculum):
    steps = []
    with before_each_step(lambda model, _: steps.append(1)):
        _, reports = fit(kind, curriculum=curriculum, epochs_per_level=1, tolerance=1e9, max_steps_per_level=11)
    assert len(steps) == 11 * LEVELS
    assert [report.steps for report in reports] == [11] * LEVELS


# ---- what a level starts from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("curriculum", ["convergence", "none"])
@pytest.mark.parametrize("kmeans_start", [True, False])
def test_a_level_starts_among_its_residuals_from_k_means_or_from_some_of_them(curriculum, kmeans_start):
    shares_left, farthest = {}, {}

    def measure(model, _vectors):
        for level in set(range(model.active_levels)) - set(shares_left):
            residuals = model.residuals(centered(model), level)
            distances = torch.cdist(residuals, model.codebooks[level].detach())
            shares_left[level] = float(distances.min(dim=1).values.square().sum() / residuals.square().sum())
            farthest[level] = float(distances.min(dim=0).values.max() / residuals.norm(dim=1).mean())

    with before_each_step(measure):
        fit("cl-vae", curriculum=curriculum, kmeans_start=kmeans_start, max_steps_per_level=2)
    for level in range(LEVELS):
        assert shares_left[level] < (0.7 if kmeans_start else 1.1)
        assert (farthest[level] < 1e-2) is (not kmeans_start), "each code is one of the items"


@pytest.mark.parametrize("freeze", [True, False])
def test_earlier_levels_stand_still_when_they_are_frozen(freeze):
    seen: dict[tuple[int, int], list[torch.Tensor]] = {}

    def remember(model, _vectors):
        for level in range(model.active_levels - 1):
            seen.setdefault((model.active_levels, level), []).append(model.codebooks[level].detach().clone())

    with before_each_step(remember):
        model, _ = fit(small_config("cl-vae", freeze_earlier_levels=freeze), max_steps_per_level=25)
    assert seen.keys() == {(2, 0), (3, 0), (3, 1)}
    for (_, level), books in seen.items():
        assert torch.equal(books[0], books[-1]) is freeze
        assert torch.equal(books[-1], model.codebooks[level]) is freeze


# ---- codes that nothing uses ---------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["replaced", "left"])
def thrown_away(request, tmp_path):
    """Whether unused codes are to be replaced; and tensors soon after the first three codes were put out of reach."""
    steps = iter(range(1_000))

    def throw_away(model, _vectors):
        if next(steps) == 17:
            with torch.no_grad():
                model.codebooks[0, :3] = 1e3

    options = {"max_steps_per_level": 30, "save_every": 20, "replace_unused": request.param}
    with before_each_step(throw_away):
        fit(small_config("cl-vae", num_levels=1), checkpoints=tmp_path, **options)
    folder = tmp_path / "step-00000020"
    return request.param, load_file(folder / "model.safetensors"), load_file(folder / "optimizer.safetensors")


def test_unused_codes_are_moved_to_the_residuals_and_forget_their_momentum_if_they_are_to_be(thrown_away):
    replaced, weights, moments = thrown_away
    assert bool(weights["codebooks"].abs().max() < 100) is replaced
    for name in ("exp_avg", "exp_avg_sq"):
        forgotten = moments[f"codebooks/{name}"][0].abs().sum(dim=1) == 0
        assert bool(forgotten[:3].all()) is replaced
        assert not forgotten.all()


def test_a_frozen_level_keeps_its_unused_codes():
    books = []

    def throw_away(model, _vectors):
        if model.active_levels == 2 and not books:
            with torch.no_grad():
                model.codebooks[0, :3] = 1e3
        if model.active_levels == 2:
            books.append(model.codebooks[0].detach().clone())

    with before_each_step(throw_away):
        fit(small_config("cl-vae", num_levels=2, freeze_earlier_levels=True), max_steps_per_level=25)
    assert torch.equal(books[0], books[-1])
