"""The quantizer's curriculum: levels open in turn, codes are used, and an interruption leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbase_hf.modeling.centering import center, shrunk_mean
from safetensors.torch import load_file

from recbase_hf.training import tokenizer as quantizer_training
from recbase_hf.training.launch import make_accelerator
from training.small_quantizers import (
    CODES,
    LEVELS,
    VECTORS,
    before_each_step,
    clustered_vectors,
    make_config,
    train,
    train_and_interrupt,
)
from training.small_runs import assert_same_weights


@pytest.fixture(scope="module")
def straight():
    """An uninterrupted training: the model and its reports."""
    return train(make_accelerator())


# ---- the curriculum ----------------------------------------------------------------------------------------------


def test_levels_open_one_after_the_other_and_all_end_open(new_accelerator):
    active = []
    with before_each_step(lambda model: active.append(model.active_levels)):
        model, reports = train(new_accelerator())
    assert active == sorted(active)
    assert [report.level for report in reports] == list(range(1, LEVELS + 1))
    assert [active.count(level + 1) for level in range(LEVELS)] == [report.steps for report in reports]
    assert model.active_levels == LEVELS
    assert not model.training


def test_a_level_that_has_settled_makes_room_for_the_next(new_accelerator):
    _, reports = train(new_accelerator(), tolerance=1e9, patience=2)
    assert [report.steps for report in reports] == [30] * LEVELS, "the first evaluation that has two before it"


def test_a_level_that_does_not_settle_takes_its_most_steps(straight):
    assert [report.steps for report in straight[1]] == [60] * LEVELS


def test_codes_are_used_and_each_level_adds_detail(straight):
    reports = straight[1]
    for report in reports:
        assert report.used_codes >= 0.75 * CODES
        assert 0.5 * CODES <= report.perplexity <= report.used_codes + 1e-3
    losses = [report.reconstruction_loss for report in reports]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < 0.8, "a unit vector that is guessed to be zero costs 1"
    assert losses[-1] < 0.8 * losses[0]


def test_the_report_is_about_all_items(straight):
    model, reports = straight
    mean = model.corpus_mean.numpy()
    np.testing.assert_allclose(mean, np.mean([part.mean(axis=0) for part in VECTORS.values()], axis=0), atol=1e-6)
    means = {name: shrunk_mean(part, mean, model.config.mean_shrinkage) for name, part in VECTORS.items()}
    vectors = torch.from_numpy(np.concatenate([center(part, means[name]) for name, part in VECTORS.items()]))
    codes = model.encode(vectors)
    for report in reports:
        error = (model.decode(codes[:, : report.level]) - vectors).square().sum(dim=1).mean()
        assert report.reconstruction_loss == pytest.approx(float(error), rel=1e-4)
        assert report.used_codes == len(codes[:, report.level - 1].unique())


# ---- seeds and going on ------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(straight, new_accelerator):
    assert_same_weights(train(new_accelerator())[0], straight[0])
    assert not torch.equal(train(new_accelerator(), seed=1)[0].codebooks, straight[0].codebooks)


@pytest.mark.parametrize("options", [{"gradient_accumulation": 4}, {"mixed_precision": "bf16"}])
def test_an_accelerator_made_for_a_language_model_gives_the_same_quantizer(straight, new_accelerator, options):
    assert_same_weights(train(new_accelerator(**options))[0], straight[0])


@pytest.mark.parametrize(
    "interruptions",
    [
        pytest.param([10], id="before the first checkpoint"),
        pytest.param([40], id="within the first level"),
        pytest.param([62], id="just after a level has opened"),
        pytest.param([110, 61], id="twice"),
    ],
)
def test_a_resumed_training_equals_a_straight_one(tmp_path, new_accelerator, straight, interruptions):
    for steps in interruptions:
        train_and_interrupt(new_accelerator(), steps, tmp_path)
    model, reports = train(new_accelerator(), checkpoints=tmp_path)
    assert_same_weights(model, straight[0])
    assert reports == straight[1]


def test_a_checkpoint_at_the_very_step_where_a_level_opens_is_resumed_exactly(tmp_path, new_accelerator, straight):
    train_and_interrupt(new_accelerator(), 65, tmp_path, save_every=60)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000060"]
    assert_same_weights(train(new_accelerator(), checkpoints=tmp_path, save_every=60)[0], straight[0])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"learning_rate": 1e-4}, id="training"),
        pytest.param({"config": make_config(latent_dim=4)}, id="shape"),
        pytest.param({"config": make_config(kl_weight=0.5)}, id="loss"),
        pytest.param({"vectors": {"first": clustered_vectors(600, seed=5)}}, id="vectors"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, new_accelerator, changes):
    train_and_interrupt(new_accelerator(), 30, tmp_path)
    with pytest.raises(ValueError, match="step-00000025 is of a training with other settings"):
        train(new_accelerator(), checkpoints=tmp_path, **changes)


# ---- codebooks ---------------------------------------------------------------------------------------------------


def test_each_level_starts_among_its_residuals(new_accelerator):
    vectors = torch.from_numpy(center(VECTORS["first"], VECTORS["first"].mean(axis=0)))
    shares_left = {}

    def measure(model):
        level = model.active_levels - 1
        if level not in shares_left:
            residuals = model.residuals(vectors, level)
            distances = torch.cdist(residuals, model.codebooks[level].detach()).min(dim=1).values
            shares_left[level] = float(distances.square().sum() / residuals.square().sum())

    with before_each_step(measure):
        train(new_accelerator())
    assert all(shares_left[level] < 0.5 for level in range(LEVELS)), shares_left


@pytest.mark.parametrize("freeze", [True, False])
def test_earlier_levels_stand_still_when_they_are_frozen(new_accelerator, freeze):
    seen: dict[tuple[int, int], list[torch.Tensor]] = {}

    def remember(model):
        for level in range(model.active_levels - 1):
            seen.setdefault((model.active_levels, level), []).append(model.codebooks[level].detach().clone())

    with before_each_step(remember):
        model, _ = train(new_accelerator(), config=make_config(freeze_earlier_levels=freeze))
    assert seen.keys() == {(2, 0), (3, 0), (3, 1)}
    for (_, level), books in seen.items():
        assert torch.equal(books[0], books[-1]) is freeze
        assert torch.equal(books[-1], model.codebooks[level]) is freeze


def test_unused_codes_are_moved_to_the_residuals_and_forget_their_momentum(tmp_path, new_accelerator):
    steps = iter(range(1_000))

    def throw_away(model):
        if next(steps) == 17:
            with torch.no_grad():
                model.codebooks[0, :3] = 1e3

    with before_each_step(throw_away):
        shape = make_config(num_levels=1)
        train(new_accelerator(), config=shape, checkpoints=tmp_path, max_steps_per_level=30, save_every=20)
    codebooks = load_file(tmp_path / "step-00000020" / "model.safetensors")["codebooks"]
    moments = load_file(tmp_path / "step-00000020" / "optimizer.safetensors")
    assert codebooks.abs().max() < 100
    for name in ("exp_avg", "exp_avg_sq"):
        forgotten = moments[f"codebooks/{name}"][0].abs().sum(dim=1) == 0
        assert forgotten[:3].all()
        assert not forgotten.all()


# ---- odd data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vectors",
    [
        pytest.param(clustered_vectors(7), id="fewer items than codes"),
        pytest.param(clustered_vectors(1), id="one item"),
        pytest.param(np.repeat(clustered_vectors(1), 50, axis=0), id="all alike"),
        pytest.param(np.repeat(clustered_vectors(3), 30, axis=0), id="fewer different items than codes"),
    ],
)
def test_small_and_uniform_data_can_be_trained_on(new_accelerator, vectors):
    model, reports = train(new_accelerator(), {"odd": vectors}, max_steps_per_level=20)
    different = len(np.unique(vectors, axis=0))
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert all(np.isfinite(report.reconstruction_loss) for report in reports)
    assert all(1 <= report.used_codes <= different for report in reports)
    assert reports[0].used_codes == different, "what differs is told apart"


def test_vectors_of_another_width_are_refused(new_accelerator):
    with pytest.raises(ValueError, match="the vectors of books are 8 wide, the configuration says 16"):
        train(new_accelerator(), {"books": np.ones((5, 8), np.float32)})


def test_a_batch_size_that_the_processes_cannot_share_is_refused(monkeypatch, new_accelerator):
    accelerator = new_accelerator()
    monkeypatch.setattr(type(accelerator), "num_processes", 3)
    with pytest.raises(ValueError, match="batch_size 64 must be a multiple of the 3 processes"):
        train(accelerator)


def test_kmeans_keeps_every_distinct_point_where_there_are_fewer_than_clusters():
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    centers = quantizer_training._kmeans(points, 8, seed=0)
    assert centers.shape == (8, 3)
    assert centers.dtype == np.float32
    nearest = np.linalg.norm(points[:, None] - centers, axis=2).min(axis=1)
    np.testing.assert_allclose(nearest, 0, atol=1e-6)


def test_settings_below_zero_are_named():
    with pytest.raises(ValueError, match="learning_rate is 0"):
        quantizer_training.QuantizerTraining(learning_rate=0)
