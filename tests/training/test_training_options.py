"""What the options of a training do: weights of levels, moving average, early stop, recomputed and compiled layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbase_hf.shards.token_shards import ShardedRows
from recbase_hf.training.batches import SeededBatches
from recbase_hf.training.held_out import spread_rows
from recbase_hf.training.pretrain import Pretraining
from recbase_hf.training.rows import RowReader
from recbase_hf.training.schedule import learning_rate_share
from training.small_runs import (
    STEPS,
    TRAIN,
    VALIDATION,
    assert_same_weights,
    make_small_model,
    make_training,
    train,
)


def recorded(model, seen):
    """Let a model keep a copy of its weights before each forward of training."""

    def keep(module, _inputs):
        if module.training:
            seen.append({name: value.detach().clone() for name, value in module.named_parameters()})

    model.register_forward_pre_hook(keep)
    return model


def plainly(training: Pretraining, level_weights: tuple[float, float]) -> torch.nn.Module:
    """The same training as a loop of its own: one batch a step, unchunked, without Accelerate."""
    from recbase_hf.training.optimizer import make_optimizer

    model = make_small_model().train()
    optimizer = make_optimizer(model, weight_decay=training.weight_decay, device=torch.device("cpu"))
    reader = RowReader(TRAIN)
    for step, rows in enumerate(SeededBatches(sizes=[len(TRAIN)], batch_size=8, stop=STEPS)):
        batch = reader.read(rows)
        logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1)[batch.places], batch.targets, reduction="none")
        weights = torch.tensor(level_weights)[batch.groups % 2]
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * learning_rate_share("cosine", step, STEPS)
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("level_weights", [(), (1.0, 1.0), (3.0, 0.5), (0.0, 1.0)])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_loss_is_the_weighted_mean_over_the_targets_of_the_whole_batch(
    tmp_path, new_accelerator, level_weights, accumulation
):
    training = make_training(
        level_weights=level_weights, gradient_accumulation=accumulation, learning_rate=1e-3, loss_chunk=16
    )
    accelerator = new_accelerator(gradient_accumulation=accumulation)
    model, _ = train(tmp_path, accelerator, training, model=make_small_model())
    assert_same_weights(model, plainly(training, level_weights or (1.0, 1.0)), atol=1e-6)


def test_the_averaged_weights_are_evaluated_and_kept(tmp_path, new_accelerator):
    seen: list[dict[str, torch.Tensor]] = []
    training = make_training(ema_decay=0.4)
    averaged, log = train(tmp_path / "a", new_accelerator(), training, model=recorded(make_small_model(), seen))
    plain, plain_log = train(tmp_path / "b", new_accelerator(), model=make_small_model())

    expected = seen[0]
    for step, weights in enumerate([*seen[1:], dict(plain.named_parameters())]):
        decay = min(0.4, (1 + step) / (10 + step))
        expected = {name: value.lerp(weights[name].detach(), 1 - decay) for name, value in expected.items()}
    assert_same_weights(dict(averaged.named_parameters()), expected, atol=1e-6)
    assert [entry["train_loss"] for entry in log] == [entry["train_loss"] for entry in plain_log]
    again, evaluated = train(tmp_path / "c", new_accelerator(), make_training(learning_rate=0.0), model=averaged)
    assert again is averaged
    assert evaluated[-1]["validation_loss"] == pytest.approx(log[-1]["validation_loss"], abs=1e-6)


def test_an_early_stop_keeps_the_best_weights(tmp_path, new_accelerator):
    training = make_training(epochs=200, evaluate_every=5, patience=3, learning_rate=3e-2)
    model, log = train(tmp_path, new_accelerator(), training)
    losses = [entry["validation_loss"] for entry in log]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 3
    assert log[-1]["step"] < math.ceil(200 * len(TRAIN) / 8)
    _, evaluated = train(tmp_path / "x", new_accelerator(), make_training(learning_rate=0.0), model=model)
    assert evaluated[-1]["validation_loss"] == pytest.approx(losses[best], abs=1e-6)

    again, log_again = train(tmp_path, new_accelerator(), training, interrupt_after=0)
    assert log_again == log, "a stopped run is not trained on"
    assert_same_weights(again, model)


def test_a_sample_of_the_validation_rows_is_evaluated(tmp_path, new_accelerator):
    options = {"learning_rate": 0.0}
    _, some = train(tmp_path / "some", new_accelerator(), make_training(**options, validation_rows=2))
    chosen = spread_rows([len(VALIDATION)], most=2)
    assert len(chosen) == 2
    only = ShardedRows.in_memory(VALIDATION.read(chosen))
    _, expected = train(tmp_path / "only", new_accelerator(), make_training(**options), validation=only)
    _, every = train(tmp_path / "all", new_accelerator(), make_training(**options, validation_rows=0))
    assert some[-1]["validation_loss"] == pytest.approx(expected[-1]["validation_loss"], abs=1e-6)
    assert some[-1]["validation_loss"] != every[-1]["validation_loss"]


@pytest.mark.parametrize("most", [0, 1, 5, 40, 1000])
def test_the_sample_has_rows_of_every_domain_and_none_twice(most):
    sizes = [3, 0, 90, 7]
    chosen = spread_rows(sizes, most)
    assert len(set(chosen.tolist())) == len(chosen)
    domains = np.searchsorted(np.cumsum(sizes), chosen, side="right")
    assert set(domains.tolist()) == {0, 2, 3}
    assert abs(len(chosen) - min(most or 100, 100)) <= 2


def test_the_log_counts_the_targets_that_were_trained_on(tmp_path, new_accelerator):
    training = make_training(evaluate_every=2, batch_rows=8)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, new_accelerator(), training, interrupt_after=5)
    _, log = train(tmp_path, new_accelerator(), training)
    batches = SeededBatches(sizes=[len(TRAIN)], batch_size=8, stop=STEPS)
    expected = np.cumsum([TRAIN.read(rows).num_targets for rows in batches])
    assert [(entry["step"], entry["trained_targets"]) for entry in log] == [
        (entry["step"], expected[entry["step"] - 1]) for entry in log
    ]


def test_patience_without_anyone_to_judge_by_is_refused(tmp_path, new_accelerator):
    nobody = VALIDATION.__class__([], {"rows": 0}, VALIDATION.layout, "")
    with pytest.raises(ValueError, match="patience needs validation rows"):
        train(tmp_path, new_accelerator(), make_training(patience=2), validation=nobody)
    assert not (tmp_path / "checkpoints").exists()


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path, new_accelerator):
    forwards = []
    model = make_small_model(attention_dropout=0.1)
    model.model.layers[0].mlp.register_forward_pre_hook(
        lambda module, _inputs: forwards.append(torch.is_grad_enabled())
    )
    checkpointed, _ = train(
        tmp_path / "a", new_accelerator(), make_training(gradient_checkpointing=True, evaluate_every=99), model=model
    )
    assert sum(forwards) == 2 * STEPS, "each layer runs again in the backward pass"
    plain, _ = train(tmp_path / "b", new_accelerator(), make_training(evaluate_every=99))
    assert_same_weights(checkpointed, plain, atol=1e-6)


def test_compiled_training_is_the_same(tmp_path, new_accelerator, monkeypatch):
    compile_module, compiled = torch.nn.Module.compile, []

    def compile_eagerly(module, *args, **options):
        compiled.append(module)
        compile_module(module, *args, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    model, log = train(tmp_path / "a", new_accelerator(), make_training(compile=True), model=make_small_model())
    assert compiled == list(model.model.layers)
    plain, plain_log = train(tmp_path / "b", new_accelerator(), model=make_small_model())
    assert_same_weights(model, plain, atol=1e-6)
    assert log[-1] == pytest.approx(plain_log[-1], abs=1e-5)


def test_history_dropout_changes_what_is_seen_and_not_what_is_evaluated(tmp_path, new_accelerator):
    options = {"learning_rate": 0.0}
    _, plain = train(tmp_path / "a", new_accelerator(), make_training(**options), model=make_small_model())
    dropped = make_training(**options, history_dropout=0.5)
    _, log = train(tmp_path / "b", new_accelerator(), dropped, model=make_small_model())
    assert [entry["validation_loss"] for entry in log] == [entry["validation_loss"] for entry in plain]
    assert log[0]["train_loss"] != plain[0]["train_loss"]


def test_the_learning_rate_follows_the_schedule(tmp_path, new_accelerator):
    accelerator, rates = new_accelerator(), []
    accelerator.log = lambda values, step: rates.append(values["learning_rate"])
    train(tmp_path, accelerator, make_training(schedule="wsd", decay_share=0.5, evaluate_every=1))
    assert rates == [1e-2 * learning_rate_share("wsd", step, STEPS, decay_share=0.5) for step in range(STEPS)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history_dropout": 1.0}, "history_dropout is 1.0; it must be from 0 to below 1"),
        ({"ema_decay": -0.1}, "ema_decay is -0.1"),
        ({"level_weights": (0.0, 0.0)}, "one must be above"),
        ({"level_weights": (1.0, -1.0)}, "none may be below 0"),
        ({"schedule": "linear"}, "schedule is 'linear'; it must be one of cosine, wsd"),
        ({"decay_share": 0.0}, "decay_share is 0.0"),
        ({"patience": -1}, "patience is -1"),
        ({"validation_rows": -1}, "validation_rows is -1"),
        ({"loss_chunk": 0}, "loss_chunk is 0; it must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_training(**options)


def test_level_weights_for_other_levels_are_refused(tmp_path, new_accelerator):
    with pytest.raises(ValueError, match="level_weights has 3 numbers; the tokenizer has 2 levels"):
        train(tmp_path, new_accelerator(), make_training(level_weights=(1.0, 1.0, 1.0)))


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, new_accelerator):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"output folder .*file/run cannot be written .*choose another"):
        train(tmp_path / "file" / "run", new_accelerator(), interrupt_after=0)
