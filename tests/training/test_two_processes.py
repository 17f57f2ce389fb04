"""Two processes train as one does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from training import small_runs
from training.small_runs import assert_same_weights, make_small_model
from training.two_processes import needs_cpu_only, run_twice

pytestmark = needs_cpu_only

TRAININGS = ("plain", "straight", "resumed")


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


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left their weights."""
    out = tmp_path_factory.mktemp("launched")
    run_twice(run_everything, out)
    return out


def weights(launched: Path, name: str, rank: int = 0) -> Mapping[str, torch.Tensor]:
    return load_file(launched / f"{name}-{rank}.safetensors")


def test_two_processes_equal_one_at_the_same_global_batch(launched, tmp_path, new_accelerator):
    alone, log = small_runs.train(tmp_path, new_accelerator(), model=make_small_model())
    assert_same_weights(dict(alone.named_parameters()), weights(launched, "plain"), atol=1e-5)
    assert len((launched / "plain" / "log.jsonl").read_text().splitlines()) == len(log), "one process writes"


def test_two_resumed_processes_equal_two_straight_ones(launched):
    assert_same_weights(weights(launched, "straight"), weights(launched, "resumed"))
    logs = [(launched / name / "log.jsonl").read_text() for name in ("straight", "resumed")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_end_with_the_same_weights(launched, name):
    assert_same_weights(weights(launched, name, rank=0), weights(launched, name, rank=1))
