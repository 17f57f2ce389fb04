"""Two processes train as one does; this file is also the script that `accelerate launch` starts twice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbase_hf.training.launch import make_accelerator
from training import small_quantizers, small_runs
from training.small_runs import assert_same_weights, make_small_model

pytestmark = pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes on what may be one GPU")

TRAININGS = ("plain", "straight", "resumed", "straight-quantizer", "resumed-quantizer")


def run_everything(out: Path) -> None:
    """What each of the two processes does; each writes the weights that it ends up with."""
    accelerator = make_accelerator()
    assert accelerator.num_processes == 2

    def keep(name: str, model: torch.nn.Module) -> None:
        weights = {key: value.detach().clone() for key, value in model.named_parameters()}
        save_file(weights, out / f"{name}-{accelerator.process_index}.safetensors")

    keep("plain", small_runs.train(out / "plain", accelerator, model=make_small_model())[0])
    keep("straight", small_runs.train(out / "straight", accelerator)[0])
    with suppress(KeyboardInterrupt):
        small_runs.train(out / "resumed", accelerator, interrupt_after=5)
    keep("resumed", small_runs.train(out / "resumed", accelerator)[0])

    keep("straight-quantizer", small_quantizers.train(accelerator)[0])
    small_quantizers.train_and_interrupt(accelerator, 80, out / "quantizer")
    keep("resumed-quantizer", small_quantizers.train(accelerator, checkpoints=out / "quantizer")[0])
    accelerator.end_training()


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left their weights."""
    out = tmp_path_factory.mktemp("launched")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "training.test_two_processes", str(out)]
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for _ in range(3):  # a free port may be taken by somebody else before the launcher binds it
        port = ["--main_process_port", str(_free_port())]
        run = [*command[:3], *port, *command[3:]]
        done = subprocess.run(run, cwd=tests, env=environment, capture_output=True, text=True, timeout=240)
        if "EADDRINUSE" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return out


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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


def test_a_quantizer_resumed_on_two_processes_equals_a_straight_one(launched):
    assert_same_weights(weights(launched, "straight-quantizer"), weights(launched, "resumed-quantizer"))


@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_end_with_the_same_weights(launched, name):
    assert_same_weights(weights(launched, name, rank=0), weights(launched, name, rank=1))


if __name__ == "__main__":
    run_everything(Path(sys.argv[1]))
