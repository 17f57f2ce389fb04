"""Under DeepSpeed's ZeRO a model trains as on one process, and its checkpoints are like all others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from recbase_hf.errors import LaunchError
from recbase_hf.training.launch import make_accelerator
from recbase_hf.training.zero import tell_deepspeed
from training.deepspeed_run import train
from training.small_runs import assert_same_weights
from training.two_processes import needs_cpu_only

CONFIGS = Path(__file__).parents[2] / "recbase_hf" / "launch_configs"


@pytest.fixture(scope="module", params=[2, 3])
def launched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left their weights."""
    out = tmp_path_factory.mktemp(f"zero-{request.param}")
    with pytest.raises(KeyboardInterrupt):
        train(out / "joined", make_accelerator(), interrupt_after=5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--mixed_precision", "no"]
    command += ["--config_file", str(CONFIGS / f"deepspeed-zero{request.param}.yaml"), "--main_process_port", port]
    command += [str(Path(__file__).with_name("deepspeed_run.py")), str(out)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return out


def weights(launched: Path, name: str) -> dict[str, Any]:
    return load_file(launched / f"{name}.safetensors")


needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@needs_cpu_only
@needs_deepspeed
def test_zero_trains_resumes_and_changes_hands_as_one_process_does(launched, tmp_path, new_accelerator):
    alone, log = train(tmp_path, new_accelerator())
    for name in ("straight", "micro-batches", "joined"):
        assert_same_weights(weights(launched, name), alone.state_dict(), atol=1e-5)
    lines = (launched / "straight" / "log.jsonl").read_text().splitlines()
    for line, entry in zip(lines, log, strict=True):
        assert json.loads(line) == pytest.approx(entry, rel=1e-5)
    left, _ = train(launched / "left", new_accelerator())
    assert_same_weights(left, alone, atol=1e-5)

    for straight, resumed in (("straight", "resumed"), ("bf16", "bf16-resumed")):
        assert_same_weights(weights(launched, straight), weights(launched, resumed))
    assert_same_weights(weights(launched, "bf16"), alone.state_dict(), atol=0.02)


def make_plugin(**changes: Any) -> Any:
    zero = {"stage": 2, "offload_optimizer": {"device": "none"}, **changes.pop("zero", {})}
    return SimpleNamespace(deepspeed_config={"zero_optimization": zero, **changes})


def tell(plugin: Any) -> dict[str, Any]:
    tell_deepspeed(plugin, micro_batch_rows=4, gradient_accumulation=2, clip_norm=0.5)
    return plugin.deepspeed_config


def test_deepspeed_is_told_what_the_training_has_settled():
    config = tell(make_plugin(gradient_clipping=1.0, gradient_accumulation_steps=1, bf16={"enabled": True}))
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 2
    assert config["gradient_clipping"] == 0.5
    assert config["bf16"]["check_grad_overflow"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zero": {"stage": 0}}, "zero_stage 0: set it to 1, 2 or 3"),
        ({"zero": {"offload_optimizer": {"device": "cpu"}}}, "offload_optimizer: .* would not be saved"),
        ({"zero": {"stage": 3, "offload_param": {"device": "nvme"}}}, "Set offload_param_device to none"),
        ({"fp16": {"enabled": True}}, "set mixed_precision to bf16"),
    ],
)
def test_what_would_not_be_saved_is_refused(changes, message):
    with pytest.raises(LaunchError, match=message):
        tell(make_plugin(**changes))
