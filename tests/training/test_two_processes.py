"""Two processes train as one does."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbase_hf.files import read_json, write_json
from recbase_hf.training.launch import make_accelerator
from training import small_runs
from training.conftest import forget_accelerate
from training.small_runs import assert_same_weights, make_small_model, make_training
from training.two_processes import needs_cpu_only, run_twice

pytestmark = needs_cpu_only

RESUMED = {"straight": "resumed", "everything": "everything-resumed", "bf16": "bf16-resumed"}
TRAININGS = ("plain", "weighted", "joined-later", *RESUMED, *RESUMED.values())
WEIGHTED = make_training(level_weights=(2.0, 0.5), learning_rate=1e-3, loss_chunk=16)
EVERYTHING = make_training(history_dropout=0.3, ema_decay=0.8, patience=4, evaluate_every=1, probe_every=4)


class ProcessNumber:
    """A probe that says which process has measured it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def measure(self, _model: torch.nn.Module) -> dict[str, float]:
        return {"probe_gauc_joint/number": float(self.number)}


def run_everything(accelerator: Any, out: Path) -> None:
    """What each of the two processes does; each writes the weights that it ends up with."""

    def keep(name: str, model: torch.nn.Module) -> None:
        weights = {key: value.detach().clone() for key, value in model.named_parameters()}
        save_file(weights, out / f"{name}-{accelerator.process_index}.safetensors")

    keep("plain", small_runs.train(out / "plain", accelerator, model=make_small_model())[0])
    keep("straight", small_runs.train(out / "straight", accelerator)[0])
    with suppress(KeyboardInterrupt):
        small_runs.train(out / "resumed", accelerator, interrupt_after=5)
    keep("resumed", small_runs.train(out / "resumed", accelerator)[0])
    keep("weighted", small_runs.train(out / "weighted", accelerator, WEIGHTED, model=make_small_model())[0])
    probes = [ProcessNumber(accelerator.process_index)]
    model, log = small_runs.train(out / "everything", accelerator, EVERYTHING, probes=probes)
    keep("everything", model)
    write_json(out / f"everything-{accelerator.process_index}.json", log)
    with suppress(KeyboardInterrupt):
        small_runs.train(out / "everything-resumed", accelerator, EVERYTHING, interrupt_after=5, probes=probes)
    keep("everything-resumed", small_runs.train(out / "everything-resumed", accelerator, EVERYTHING, probes=probes)[0])
    with suppress(KeyboardInterrupt):
        small_runs.train(out / "left-later", accelerator, model=make_small_model(), interrupt_after=7)
    keep("joined-later", small_runs.train(out / "joined-later", accelerator, model=make_small_model())[0])
    forget_accelerate()
    rounding = make_accelerator(mixed_precision="bf16")
    assert (rounding.num_processes, rounding.mixed_precision) == (2, "bf16")
    keep("bf16", small_runs.train(out / "bf16", rounding)[0])
    with suppress(KeyboardInterrupt):
        small_runs.train(out / "bf16-resumed", rounding, interrupt_after=5)
    keep("bf16-resumed", small_runs.train(out / "bf16-resumed", rounding)[0])


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left their weights."""
    out = tmp_path_factory.mktemp("launched")
    with pytest.raises(KeyboardInterrupt):
        small_runs.train(out / "joined-later", make_accelerator(), model=make_small_model(), interrupt_after=7)
    run_twice(run_everything, out)
    return out


def weights(launched: Path, name: str, rank: int = 0) -> Mapping[str, torch.Tensor]:
    return load_file(launched / f"{name}-{rank}.safetensors")


def test_two_processes_equal_one_at_the_same_global_batch(launched, tmp_path, new_accelerator):
    alone, log = small_runs.train(tmp_path, new_accelerator(), model=make_small_model())
    assert_same_weights(dict(alone.named_parameters()), weights(launched, "plain"), atol=1e-5)
    assert len((launched / "plain" / "log.jsonl").read_text().splitlines()) == len(log), "one process writes"


def test_weighted_levels_are_normalized_over_both_processes(launched, tmp_path, new_accelerator):
    alone, _ = small_runs.train(tmp_path, new_accelerator(), WEIGHTED, model=make_small_model())
    assert_same_weights(dict(alone.named_parameters()), weights(launched, "weighted"), atol=1e-6)


@pytest.mark.parametrize(("straight", "resumed"), RESUMED.items())
def test_two_resumed_processes_equal_two_straight_ones(launched, straight, resumed):
    assert_same_weights(weights(launched, straight), weights(launched, resumed))
    logs = [(launched / name / "log.jsonl").read_text() for name in (straight, resumed)]
    assert logs[0] == logs[1]


def test_bf16_is_another_training_than_float32(launched):
    key = "model.embed_tokens.weight"
    assert not torch.equal(weights(launched, "bf16")[key], weights(launched, "straight")[key])


def test_the_main_process_probes_for_all(launched):
    logs = [read_json(launched / f"everything-{rank}.json") for rank in (0, 1)]
    assert logs[0] == logs[1]
    probed = {
        entry["step"]: entry["probe_gauc_joint/number"] for entry in logs[0] if "probe_gauc_joint/number" in entry
    }
    assert probed == {4: 0.0, 8: 0.0, 9: 0.0}


def test_a_run_goes_on_on_more_processes(launched, tmp_path, new_accelerator):
    alone, log = small_runs.train(tmp_path, new_accelerator(), model=make_small_model())
    assert_same_weights(dict(alone.named_parameters()), weights(launched, "joined-later"), atol=1e-5)
    lines = (launched / "joined-later" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [entry["step"] for entry in log]


def test_a_run_goes_on_on_fewer_processes_and_says_what_changes(launched, tmp_path, new_accelerator, caplog):
    alone, _ = small_runs.train(tmp_path, new_accelerator(), model=make_small_model())
    with caplog.at_level(logging.WARNING, logger="recbase_hf"):
        left, _ = small_runs.train(launched / "left-later", new_accelerator(), model=make_small_model())
    assert_same_weights(left, alone, atol=1e-5)
    assert "1 processes now, 2 before" in caplog.text
    assert "batches stay the same; dropout of activations differs" in caplog.text


@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_end_with_the_same_weights(launched, name):
    assert_same_weights(weights(launched, name, rank=0), weights(launched, name, rank=1))
