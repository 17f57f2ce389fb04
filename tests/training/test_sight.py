"""What a run says of itself: losses of levels and domains, speed, MFU, to files and trackers alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recbase_hf.training.flops import training_flops_per_token
from recbase_hf.training.rows import RowReader
from recbase_hf.training.sight import Speed, mean_losses
from tiny_world import make_model
from training.small_runs import LAYOUT, join, make_rows, make_small_model, make_training, train

TRAIN = join(books=make_rows(30, seed=0), games=make_rows(20, seed=1))
VALIDATION = join(books=make_rows(6, seed=2), games=make_rows(4, seed=3))


def run(folder, accelerator, **options):
    """Weights stay as they are."""
    training = make_training(learning_rate=0.0, epochs=2, **options)
    return train(folder, accelerator, training, rows=TRAIN, validation=VALIDATION, model=make_small_model())


def test_losses_of_levels_and_domains_are_those_of_their_targets(tmp_path, new_accelerator):
    model, log = run(tmp_path, new_accelerator(), evaluate_every=99)
    (entry,) = log
    for name, rows in (("train", TRAIN), ("validation", VALIDATION)):
        batch = RowReader(rows).read(range(len(rows)))
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1)[batch.places], batch.targets, reduction="none")
        domain, level = batch.groups // 2, batch.groups % 2
        parts = {f"{name}_loss/books": domain == 0, f"{name}_loss/games": domain == 1}
        parts |= {f"{name}_loss_level_1": level == 0, f"{name}_loss_level_2": level == 1, f"{name}_loss": level >= 0}
        for key, chosen in parts.items():
            # two epochs do not end with a step, so that some rows come a third time
            tolerance = {"abs": 1e-5} if name == "validation" else {"rel": 0.02}
            assert entry[key] == pytest.approx(float(losses[chosen].mean()), **tolerance)


def test_an_entry_is_of_the_steps_since_the_one_before(tmp_path, new_accelerator):
    _, each = run(tmp_path / "each", new_accelerator(), evaluate_every=1)
    _, every_second = run(tmp_path / "second", new_accelerator(), evaluate_every=2)
    means = [entry["train_loss"] for entry in each]
    for entry in every_second[:-1]:
        step = entry["step"]
        assert min(means[step - 2 : step]) <= entry["train_loss"] <= max(means[step - 2 : step])


def test_a_domain_without_targets_is_left_out():
    found = mean_losses("train", np.array([[2.0, 4.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0]]), ["books", "games"])
    assert found == {
        "train_loss": 2.0,
        "train_loss_level_1": 1.0,
        "train_loss_level_2": 4.0,
        "train_loss/books": 2.0,
    }


def test_trackers_get_what_the_files_say(tmp_path, new_accelerator):
    accelerator, told = new_accelerator(), []
    accelerator.log = lambda values, step: told.append({"step": step, **values})
    _, log = run(tmp_path, accelerator, evaluate_every=3, peak_tflops=0.001)
    speed = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert told == [{**entry, **of_step} for entry, of_step in zip(log, speed, strict=True)]
    for line in speed:
        assert line["tokens_per_second"] > 0
        assert line["mfu"] > 0
        assert line["learning_rate"] == 0


def test_there_is_no_mfu_without_a_known_peak(tmp_path, new_accelerator):
    run(tmp_path, new_accelerator())
    lines = (tmp_path / "speed.jsonl").read_text().splitlines()
    if not torch.cuda.is_available():
        assert all("mfu" not in json.loads(line) for line in lines)


def test_speed_counts_tokens_of_windows_and_not_padding(monkeypatch):
    config = make_model(LAYOUT).config
    now = iter([0.0, 2.0, 10.0, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    speed = Speed(config, peak=training_flops_per_token(config, 9.0) * 1000, devices=2)
    assert speed.figures() == {}
    for _ in range(2):
        with speed.timed():
            pass
        speed.count(900.0, 100.0)
    assert speed.figures() == {"tokens_per_second": 450.0, "mfu": pytest.approx(450 / 1000 / 2)}
    speed.restart()
    assert speed.figures() == {}


def test_the_bar_shows_loss_learning_rate_and_speed(tmp_path, new_accelerator, monkeypatch):
    shown = []

    class Bar:
        def update(self):
            pass

        def set_postfix(self, values):
            shown.append(values)

        def close(self):
            pass

    monkeypatch.setattr("recbase_hf.training.sight.progress", lambda **_options: Bar())
    run(tmp_path, new_accelerator(), peak_tflops=1.0)
    assert all(list(values) == ["loss", "lr", "tokens/s", "MFU"] for values in shown)
