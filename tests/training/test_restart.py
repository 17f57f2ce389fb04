"""A run goes on exactly where it stopped with every option on, and nothing that happens during a save loses it."""

from __future__ import annotations

import errno
import shutil

import pytest
import torch
from safetensors import SafetensorError

from recbase_hf.files import read_json
from recbase_hf.training.checkpoints import latest_checkpoint, save_checkpoint
from training.small_runs import assert_same_weights, make_small_model, make_training, train

EVERYTHING = {
    "history_dropout": 0.3,
    "ema_decay": 0.8,
    "patience": 4,
    "level_weights": (1.0, 0.5),
    "schedule": "wsd",
    "loss_chunk": 32,
    "evaluate_every": 1,
}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulation": 2, "gradient_checkpointing": True}, EVERYTHING],
    ids=["plain", "two micro-batches", "everything"],
)
def test_a_resumed_run_equals_a_straight_one_bit_by_bit(tmp_path, new_accelerator, precision, options):
    training = make_training(**options)
    accumulation = training.gradient_accumulation

    def start(name, **more):
        accelerator = new_accelerator(mixed_precision=precision, gradient_accumulation=accumulation)
        return train(tmp_path / name, accelerator, training, **more)

    straight, log = start("straight")
    for interruption in (5 * accumulation, 2 * accumulation + accumulation // 2):
        with pytest.raises(KeyboardInterrupt):
            start("resumed", interrupt_after=interruption)
    resumed, log_of_resumed = start("resumed")
    assert_same_weights(resumed, straight)
    assert log_of_resumed == log
    texts = [(tmp_path / name / "log.jsonl").read_text() for name in ("straight", "resumed")]
    assert texts[0] == texts[1]


def test_bf16_computes_in_bf16_and_keeps_float32_weights(tmp_path, new_accelerator):
    options = {"training": make_training(learning_rate=1e-3)}
    exact, _ = train(tmp_path / "a", new_accelerator(), model=make_small_model(), **options)
    rounded, _ = train(tmp_path / "b", new_accelerator(mixed_precision="bf16"), model=make_small_model(), **options)
    assert {weights.dtype for weights in rounded.parameters()} == {torch.float32}
    assert not torch.equal(rounded.lm_head.weight, exact.lm_head.weight)
    assert_same_weights(rounded, exact, atol=0.02)


def test_an_early_stop_is_remembered(tmp_path, new_accelerator):
    """The best weights, and how long it was waited already, are in the checkpoint."""
    training = make_training(epochs=200, evaluate_every=2, patience=4, learning_rate=3e-2, save_every=1)
    straight, log = train(tmp_path / "straight", new_accelerator(), training)
    last = log[-1]["step"]
    with pytest.raises(KeyboardInterrupt):  # when the best weights are some steps back
        train(tmp_path / "resumed", new_accelerator(), training, interrupt_after=last - 1)
    resumed, log_of_resumed = train(tmp_path / "resumed", new_accelerator(), training)
    assert log_of_resumed == log
    assert_same_weights(resumed, straight)


@pytest.mark.parametrize(
    "change", [{"gradient_accumulation": 4}, {"loss_chunk": 5}, {"gradient_checkpointing": True}, {"evaluate_every": 4}]
)
def test_what_changes_no_mathematics_may_change_on_the_way(tmp_path, new_accelerator, change):
    straight, _ = train(tmp_path / "straight", new_accelerator(), model=make_small_model())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", new_accelerator(), model=make_small_model(), interrupt_after=4)
    training = make_training(**change)
    accelerator = new_accelerator(gradient_accumulation=training.gradient_accumulation)
    resumed, _ = train(tmp_path / "resumed", accelerator, training, model=make_small_model())
    assert_same_weights(resumed, straight, atol=1e-5)


@pytest.mark.parametrize("change", [{"ema_decay": 0.5}, {"history_dropout": 0.1}, {"level_weights": (1.0, 2.0)}])
def test_what_changes_the_mathematics_may_not(tmp_path, new_accelerator, change):
    train(tmp_path, new_accelerator())
    with pytest.raises(ValueError, match=rf"other settings \({next(iter(change))}: "):
        train(tmp_path, new_accelerator(), make_training(**change))


# ---- what may happen during a save -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("IoError: No space left on device")]
)
@pytest.mark.parametrize("saves_before", [0, 1])
def test_a_full_disk_names_the_folder_and_leaves_the_last_good_checkpoint(
    tmp_path, new_accelerator, monkeypatch, error, saves_before
):
    import safetensors.torch

    save_file, calls = safetensors.torch.save_file, iter(range(100))

    def fill_up(tensors, path):
        if next(calls) == 2 * saves_before + 1:  # two files a checkpoint: the second of the next one
            path.write_bytes(b"half")
            raise error
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", fill_up)
        good = "step-00000003" if saves_before else "none yet"
        with pytest.raises(
            OSError, match=rf"cannot be written to .*checkpoints .*No space left.*; .* is {good}\. Make"
        ):
            train(tmp_path, new_accelerator())
    left = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert left == ["step-00000003"][:saves_before]
    model, _ = train(tmp_path, new_accelerator())
    assert_same_weights(model, train(tmp_path / "straight", new_accelerator())[0])


def interrupted(folder, new_accelerator) -> list[str]:
    """Checkpoints of steps 3 and 6 in `folder`."""
    with pytest.raises(KeyboardInterrupt):
        train(folder, new_accelerator(), interrupt_after=7)
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_process_killed_while_it_wrote_loses_nothing(tmp_path, new_accelerator):
    straight, _ = train(tmp_path / "straight", new_accelerator())
    folder = tmp_path / "killed" / "checkpoints"
    assert interrupted(tmp_path / "killed", new_accelerator) == ["step-00000003", "step-00000006"]
    half = folder / ".step-00000009.4711.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    shutil.copytree(folder / "step-00000003", folder / "step-00000008")
    (folder / "step-00000008" / "state.json").unlink()  # as if it had been killed when it dropped an old one
    assert latest_checkpoint(folder).name == "step-00000006"
    resumed, _ = train(tmp_path / "killed", new_accelerator())
    assert_same_weights(resumed, straight)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000006", "step-00000009"], "the rest is tidied up"


def test_a_process_killed_between_the_two_renames_loses_nothing(tmp_path, new_accelerator):
    straight, _ = train(tmp_path / "straight", new_accelerator())
    interrupted(tmp_path / "killed", new_accelerator)
    folder = tmp_path / "killed" / "checkpoints"
    (folder / "step-00000006").rename(folder / ".step-00000006.previous")
    (folder / ".step-00000006.4711.partial").mkdir()
    assert latest_checkpoint(folder).name == ".step-00000006.previous"
    resumed, log = train(tmp_path / "killed", new_accelerator())
    assert log[-1]["step"] == 9
    assert_same_weights(resumed, straight)


def test_an_old_checkpoint_aside_does_not_hide_a_newer_one(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (1, 2):
        save_checkpoint(tmp_path, step, model, optimizer, {})
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.previous")
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000002"
    assert read_json(latest_checkpoint(tmp_path) / "state.json")["step"] == 2
