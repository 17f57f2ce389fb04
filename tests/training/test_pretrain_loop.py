"""Pretraining learns, goes on exactly where it stopped, and does not depend on how a batch is split up."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from recbase_hf.shards.packing import IGNORED
from recbase_hf.training.launch import make_accelerator
from training.small_runs import (
    CODES,
    LAYOUT,
    STEPS,
    TRAIN,
    VALIDATION,
    all_rows,
    assert_same_weights,
    make_rows,
    make_small_model,
    make_training,
    train,
)

# ---- learning ----------------------------------------------------------------------------------------------------


def test_the_loss_falls_on_unseen_users(tmp_path, new_accelerator):
    _, log = train(tmp_path, new_accelerator(), make_training(epochs=12, evaluate_every=10))
    assert log[-1]["step"] == math.ceil(12 * len(TRAIN) / 8)
    assert log[0]["validation_loss"] > 1.0
    assert log[-1]["validation_loss"] < 0.75 * log[0]["validation_loss"]
    assert log[-1]["train_loss"] < 0.75 * log[0]["train_loss"]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == log


def test_validation_loss_is_that_of_each_user_alone(tmp_path, new_accelerator):
    model, log = train(tmp_path, new_accelerator(), make_training(learning_rate=0.0))
    losses = []
    for row in all_rows(VALIDATION).input_ids.astype(np.int64):
        starts = [*np.flatnonzero(row == LAYOUT.bos), int((row != LAYOUT.pad).sum())]
        for start, stop in pairwise(starts):
            ids = torch.from_numpy(row[start:stop]).long()[None]
            with torch.no_grad():
                logits = model.eval()(input_ids=ids).logits[0, :-1]
            losses += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
    assert len(losses) == all_rows(VALIDATION).num_targets
    assert log[-1]["validation_loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_a_loss_that_is_no_number_names_the_last_checkpoint_and_leaves_it(tmp_path, new_accelerator):
    model = make_small_model()
    calls = iter(range(1_000))

    def spoil(module, _inputs, output):
        if module.training and next(calls) == 4:
            return output * math.nan
        return output

    model.register_forward_hook(spoil)
    with pytest.raises(
        FloatingPointError, match=r"loss or its gradient is nan at step 5; .*step-00000003.*learning_rate"
    ):
        train(tmp_path, new_accelerator(), model=model)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_loss_that_is_no_number_from_the_start_has_no_checkpoint_to_name(tmp_path, new_accelerator):
    model = make_small_model()
    model.lm_head.weight.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"nan at step 1; .*none yet"):
        train(tmp_path, new_accelerator(), model=model)


# ---- how a batch is split up -------------------------------------------------------------------------------------


def test_gradient_accumulation_does_not_change_the_training(tmp_path, new_accelerator):
    targets_of_rows = (all_rows(TRAIN).labels != IGNORED).sum(axis=1)
    assert len(set(targets_of_rows.tolist())) > 1, "otherwise a mean of means would pass"
    runs = {}
    for accumulation in (1, 2, 4):
        accelerator = new_accelerator(gradient_accumulation=accumulation)
        training = make_training(gradient_accumulation=accumulation, learning_rate=1e-3)
        runs[accumulation] = train(tmp_path / str(accumulation), accelerator, training, model=make_small_model())
    for accumulation in (2, 4):
        assert_same_weights(runs[1][0], runs[accumulation][0], atol=1e-6)
        for one, other in zip(runs[1][1], runs[accumulation][1], strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_batch_rows_that_cannot_be_split_up_are_refused(tmp_path, new_accelerator):
    training = make_training(gradient_accumulation=3)
    with pytest.raises(ValueError, match=r"batch_rows 8 must be a multiple of gradient_accumulation x processes, 3"):
        train(tmp_path, new_accelerator(gradient_accumulation=3), training)


# ---- going on ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: folder, model and log."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, *train(folder, make_accelerator())


@pytest.mark.parametrize(
    "interruptions",
    [
        pytest.param([], id="not at all"),
        pytest.param([1], id="before the first checkpoint"),
        pytest.param([2], id="before the first checkpoint with an entry in the log already"),
        pytest.param([5], id="mid-epoch with an entry in the log after the checkpoint"),
        pytest.param([7, 2], id="twice"),
    ],
)
def test_a_resumed_run_equals_a_straight_one(tmp_path, new_accelerator, straight, interruptions):
    for forwards in interruptions:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, new_accelerator(), interrupt_after=forwards)
    model, log = train(tmp_path, new_accelerator())
    straight_folder, straight_model, straight_log = straight
    assert_same_weights(model, straight_model)
    assert log == straight_log
    assert (tmp_path / "log.jsonl").read_text() == (straight_folder / "log.jsonl").read_text()


def test_a_run_interrupted_between_micro_batches_equals_a_straight_one(tmp_path, new_accelerator):
    training = make_training(gradient_accumulation=2)
    straight_model, _ = train(tmp_path / "straight", new_accelerator(gradient_accumulation=2), training)
    accelerator = new_accelerator(gradient_accumulation=2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", accelerator, training, interrupt_after=9)  # the second half of step 5
    model, _ = train(tmp_path / "resumed", new_accelerator(gradient_accumulation=2), training)
    assert_same_weights(model, straight_model)


def test_dropout_is_on_in_training(straight, tmp_path, new_accelerator):
    without, _ = train(tmp_path, new_accelerator(), model=make_small_model())
    assert not torch.equal(without.lm_head.weight, straight[1].lm_head.weight)


def test_a_finished_run_is_not_trained_again(straight, new_accelerator):
    folder, straight_model, straight_log = straight
    model, log = train(folder, new_accelerator(), interrupt_after=0)
    assert log == straight_log
    assert log[-1]["step"] == STEPS
    assert_same_weights(model, straight_model)


@pytest.mark.parametrize("differing", ["training", "model", "rows"])
def test_a_checkpoint_of_other_settings_is_refused(straight, new_accelerator, differing):
    changes = {
        "training": {"training": make_training(learning_rate=1e-3)},
        "model": {"model": make_small_model(hidden_size=16, attention_dropout=0.1)},
        "rows": {"rows": make_rows(60, seed=0, codes=CODES[::-1])},
    }
    assert all_rows(changes["rows"]["rows"]).num_targets == all_rows(TRAIN).num_targets, (
        "as if another tokenizer had been trained"
    )
    with pytest.raises(
        ValueError, match=r"step-00000009 is of a training with other settings .*; .* delete .*checkpoints"
    ):
        train(straight[0], new_accelerator(), **changes[differing])
    assert (straight[0] / "log.jsonl").read_text(), "the log of the other training stays"
