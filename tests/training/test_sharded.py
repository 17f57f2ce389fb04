"""Weights sharded over two processes (FSDP2) train as whole ones do, with everything on."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbase_hf.training.checkpoints import whole_weights
from recbase_hf.training.shadow import is_sharded
from training import small_runs
from training.small_runs import assert_same_weights, make_small_model, make_training
from training.two_processes import needs_cpu_only, run_twice

pytestmark = needs_cpu_only

TRAINING = make_training(
    learning_rate=1e-3,
    level_weights=(2.0, 0.5),
    history_dropout=0.3,
    ema_decay=0.8,
    patience=4,
    evaluate_every=3,
    probe_data=("somewhere",),
    probe_every=4,
    gradient_checkpointing=True,
    loss_chunk=16,
)


class SumOfWeights:
    """A probe that only a whole model passes."""

    def measure(self, model: torch.nn.Module) -> dict[str, float]:
        assert not is_sharded(model)
        return {"probe_gauc_joint/sum": sum(value.detach().double().abs().sum().item() for value in model.parameters())}


def train(folder: Path, accelerator: Any, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    return small_runs.train(folder, accelerator, TRAINING, model=make_small_model(), probes=[SumOfWeights()], **options)


def shard_on_cpu(accelerator: Any) -> None:
    """What Accelerate does for FSDP2, which it refuses to do on the CPU."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, clip = init_device_mesh("cpu", (2,)), torch.nn.utils.clip_grad_norm_

    def prepare(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        names = {id(value): name for name, value in model.named_parameters()}
        groups = [[names[id(value)] for value in group["params"]] for group in optimizer.param_groups]
        for module in (*model.model.layers, model):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        shards = dict(model.named_parameters())
        for group, of_group in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = [shards[name] for name in of_group]
        return model, accelerator.prepare_optimizer(optimizer)

    accelerator.prepare = prepare
    accelerator.clip_grad_norm_ = lambda parameters, norm: clip(parameters, norm).full_tensor()


def run_sharded(accelerator: Any, out: Path) -> None:
    shard_on_cpu(accelerator)
    found = {"straight": train(out / "straight", accelerator)[0]}
    with suppress(KeyboardInterrupt):
        train(out / "resumed", accelerator, interrupt_after=5)
    found["resumed"] = train(out / "resumed", accelerator)[0]
    for name, model in found.items():
        assert is_sharded(model)
        weights = whole_weights(model)
        if accelerator.is_main_process:
            save_file({key: weights[key] for key, _ in model.named_parameters()}, out / f"{name}.safetensors")


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sharded")
    run_twice(run_sharded, out)
    return out


def test_sharded_weights_train_as_whole_ones(launched, tmp_path, new_accelerator):
    alone, log = train(tmp_path, new_accelerator())
    assert_same_weights(load_file(launched / "straight.safetensors"), dict(alone.named_parameters()), atol=1e-5)
    lines = (launched / "straight" / "log.jsonl").read_text().splitlines()
    for line, entry in zip(lines, log, strict=True):
        assert json.loads(line) == pytest.approx(entry, rel=1e-5)


def test_a_resumed_sharded_run_equals_a_straight_one(launched):
    assert_same_weights(*(load_file(launched / f"{name}.safetensors") for name in ("straight", "resumed")))
    logs = [(launched / name / "log.jsonl").read_text() for name in ("straight", "resumed")]
    assert logs[0] == logs[1]
