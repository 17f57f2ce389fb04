"""Pretraining learns, goes on exactly where it stopped, and does not depend on how a batch is split up."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_model
from recbase_hf.data.histories import Histories
from recbase_hf.data.packing import IGNORED, PackedRows, pack_histories
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.training.pretrain import Pretraining, level_losses, train_language_model

LAYOUT = TokenLayout(num_levels=2, codebook_size=4)
ITEMS = 8
CODES = np.array([[item // 2 % 4, item % 4] for item in range(ITEMS)])


def make_rows(users: int, seed: int) -> PackedRows:
    """Users who buy one item after the other, in windows of different lengths: rows differ in their targets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 8, users)
    items = np.concatenate([(rng.integers(ITEMS) + np.arange(length)) % ITEMS for length in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    histories = Histories(np.arange(users).astype(str).astype(object), offsets, items)
    return pack_histories(histories, CODES, LAYOUT, row_length=17, max_items=8)


TRAIN, VALIDATION = make_rows(60, seed=0), make_rows(12, seed=1)


def make_training(**changes) -> Pretraining:
    """Nine steps, over the border of an epoch; most checkpoints and log entries do not fall together."""
    epochs = 9 * 8 / len(TRAIN)
    defaults = {"epochs": epochs, "batch_rows": 8, "evaluate_every": 2, "save_every": 3, "learning_rate": 1e-2}
    return Pretraining(**{**defaults, **changes})


def make_small_model(**options):
    return make_model(LAYOUT, initializer_range=0.02, num_hidden_layers=1, **options)


def train(folder: Path, accelerator, training: Pretraining | None = None, *, model=None, rows: PackedRows = TRAIN):
    """Train a (new) small model; returns it and the log."""
    model = model or make_small_model(attention_dropout=0.1)
    training = training or make_training()
    return model, train_language_model(model, rows, VALIDATION, LAYOUT, training, accelerator=accelerator, folder=folder)


def interrupt_after(model, forwards: int) -> None:
    """Ctrl-C in the middle of the training forward after so many."""

    def count(module, _inputs):
        count.left -= module.training
        if count.left < 0:
            raise KeyboardInterrupt

    count.left = forwards
    model.register_forward_pre_hook(count)


def assert_same_weights(left, right, atol: float = 0.0) -> None:
    for (name, one), other in zip(left.named_parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def unequal(rows: PackedRows) -> bool:
    return len(set((rows.labels != IGNORED).sum(axis=1).tolist())) > 1


# ---- learning ----------------------------------------------------------------------------------------------------


def test_the_loss_falls_on_unseen_users(tmp_path, new_accelerator):
    training = make_training(epochs=12, evaluate_every=10)
    _, log = train(tmp_path, new_accelerator(), training)
    assert log[0]["validation_loss"] > 1.0
    assert log[-1]["validation_loss"] < 0.75 * log[0]["validation_loss"]
    assert log[-1]["train_loss"] < 0.75 * log[0]["train_loss"]
    assert log[-1]["step"] == math.ceil(12 * len(TRAIN) / 8)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == log


def test_validation_loss_is_that_of_each_user_alone(tmp_path, new_accelerator):
    model, log = train(tmp_path, new_accelerator(), make_training(learning_rate=0.0))
    losses = []
    for row in VALIDATION.input_ids:
        starts = [*np.flatnonzero(row == LAYOUT.bos), int((row != LAYOUT.pad).sum())]
        for start, stop in zip(starts[:-1], starts[1:], strict=True):
            ids = torch.from_numpy(row[start:stop]).long()[None]
            with torch.no_grad():
                logits = model.eval()(input_ids=ids).logits[0, :-1]
            losses += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
    assert len(losses) == VALIDATION.num_targets
    assert log[-1]["validation_loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_level_losses_are_sums_of_cross_entropy_over_the_targets_of_each_level():
    labels = torch.from_numpy(VALIDATION.labels)
    logits = torch.randn(*labels.shape, LAYOUT.num_tokens, generator=torch.Generator().manual_seed(0))
    sums, counts = level_losses(logits, labels, LAYOUT)
    assert sums.shape == counts.shape == (LAYOUT.num_levels,)
    for level in range(LAYOUT.num_levels):
        ids = LAYOUT.level_ids(level)
        of_level = (labels >= ids.start) & (labels < ids.stop)
        expected = torch.nn.functional.cross_entropy(logits[of_level], labels[of_level].long(), reduction="sum")
        assert float(sums[level]) == pytest.approx(float(expected), rel=1e-5)
        assert int(counts[level]) == int(of_level.sum())
    assert int(counts.sum()) == VALIDATION.num_targets


# ---- how a batch is split up -------------------------------------------------------------------------------------


def test_gradient_accumulation_does_not_change_the_training(tmp_path, new_accelerator):
    assert unequal(TRAIN), "otherwise a mean of means would pass"
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
    with pytest.raises(ValueError, match=r"batch_rows 8 must be a multiple of gradient_accumulation x processes = 3"):
        train(tmp_path, new_accelerator(gradient_accumulation=3), training)


# ---- going on ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: folder, model and log."""
    from recbase_hf.training.launch import make_accelerator

    folder = tmp_path_factory.mktemp("straight")
    return folder, *train(folder, make_accelerator())


@pytest.mark.parametrize(
    ("interruptions", "why"),
    [
        ([1], "before the first checkpoint, and before anything is logged"),
        ([2], "before the first checkpoint, with an entry in the log already"),
        ([5], "in the middle of an epoch, with an entry in the log after the checkpoint"),
        ([7, 2], "twice"),
        ([9], "not at all"),
    ],
)
def test_a_resumed_run_equals_a_straight_one(tmp_path, new_accelerator, straight, interruptions, why):
    for forwards in interruptions:
        model = make_small_model(attention_dropout=0.1)
        interrupt_after(model, forwards)
        if forwards < 9:
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, new_accelerator(), model=model)
    model, log = train(tmp_path, new_accelerator())
    straight_folder, straight_model, straight_log = straight
    assert_same_weights(model, straight_model)
    assert log == straight_log
    assert (tmp_path / "log.jsonl").read_text() == (straight_folder / "log.jsonl").read_text()


def test_a_run_interrupted_within_a_step_of_micro_batches_equals_a_straight_one(tmp_path, new_accelerator):
    models = {}
    for name, interruption in (("straight", None), ("resumed", 7)):  # the second micro-batch of the fourth step
        training = make_training(gradient_accumulation=2)
        if interruption:
            model = make_small_model(attention_dropout=0.1)
            interrupt_after(model, interruption)
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path / name, new_accelerator(gradient_accumulation=2), training, model=model)
        models[name], _ = train(tmp_path / name, new_accelerator(gradient_accumulation=2), training)
    assert_same_weights(models["straight"], models["resumed"])


def test_dropout_is_on_in_training(straight, tmp_path, new_accelerator):
    without, _ = train(tmp_path, new_accelerator(), model=make_small_model())
    assert any(not torch.equal(*pair) for pair in zip(without.parameters(), straight[1].parameters(), strict=True))


def test_a_finished_run_is_not_trained_again(straight, new_accelerator):
    folder, straight_model, straight_log = straight
    model = make_small_model(attention_dropout=0.1)
    interrupt_after(model, 0)
    _, log = train(folder, new_accelerator(), model=model)
    assert log == straight_log
    assert_same_weights(model, straight_model)


def another_order() -> PackedRows:
    """Rows of the same shape and number of targets, but other codes, as another tokenizer would give."""
    ids = np.where(TRAIN.input_ids == 1, 2, np.where(TRAIN.input_ids == 2, 1, TRAIN.input_ids))
    labels = np.where(TRAIN.labels == 1, 2, np.where(TRAIN.labels == 2, 1, TRAIN.labels))
    return PackedRows(ids, TRAIN.position_ids, labels)


@pytest.mark.parametrize("differing", ["training", "model", "rows"])
def test_a_checkpoint_of_other_settings_is_refused(straight, new_accelerator, differing):
    changes = {
        "training": {"training": make_training(learning_rate=1e-3)},
        "model": {"model": make_small_model(hidden_size=16, attention_dropout=0.1)},
        "rows": {"rows": another_order()},
    }
    with pytest.raises(ValueError, match=r"step-00000009 is of a training with other settings"):
        train(straight[0], new_accelerator(), **changes[differing])


def test_a_loss_that_is_no_number_names_the_last_checkpoint_and_leaves_it(tmp_path, new_accelerator):
    model = make_small_model()
    calls = iter(range(1_000))

    def spoil(module, _inputs, output):
        if module.training and next(calls) == 4:
            output.logits = output.logits * math.nan
        return output

    model.register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 5; .* step-00000003|step-00000003.*learning_rate"):
        train(tmp_path, new_accelerator(), model=model)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_loss_that_is_no_number_from_the_start_has_no_checkpoint_to_name(tmp_path, new_accelerator):
    model = make_small_model()
    model.lm_head.weight.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"nan at step 1; .*none yet"):
        train(tmp_path, new_accelerator(), model=model)
