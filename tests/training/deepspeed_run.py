"""What each process of a DeepSpeed launch does: `deepspeed_run.py FOLDER`."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from recbase_hf.training.checkpoints import whole_weights
from recbase_hf.training.launch import make_accelerator
from recbase_hf.training.settings import Pretraining
from training import small_runs
from training.conftest import forget_accelerate
from training.small_runs import make_small_model, make_training

TRAINING = make_training(
    learning_rate=1e-3,
    level_weights=(2.0, 0.5),
    history_dropout=0.3,
    ema_decay=0.8,
    patience=4,
    clip_norm=0.1,
    evaluate_every=3,
    probe_data=("somewhere",),
    probe_every=4,
    gradient_checkpointing=True,
    loss_chunk=16,
)


class SumOfWeights:
    """A probe that only a whole model passes."""

    def measure(self, model: torch.nn.Module) -> dict[str, float]:
        assert all(value.numel() for value in model.parameters())
        return {"probe_gauc_joint/sum": sum(value.detach().double().abs().sum().item() for value in model.parameters())}


def train(
    folder: Path, accelerator: Any, *, training: Pretraining = TRAINING, **options: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """On one process or several, with everything on."""
    return small_runs.train(folder, accelerator, training, model=make_small_model(), probes=[SumOfWeights()], **options)


def new_accelerator(training: Pretraining, precision: str) -> Any:
    """For DeepSpeed, on two processes."""
    forget_accelerate()
    accelerator = make_accelerator(mixed_precision=precision, gradient_accumulation=training.gradient_accumulation)
    assert accelerator.num_processes == 2
    assert accelerator.deepspeed_plugin is not None
    return accelerator


def keep(out: Path, name: str, *, training: Pretraining = TRAINING, precision: str = "no") -> None:
    """Train in the folder `name`, and leave the weights beside it."""
    accelerator = new_accelerator(training, precision)
    weights = whole_weights(train(out / name, accelerator, training=training)[0])
    if accelerator.is_main_process:
        save_file({key: value.clone() for key, value in weights.items()}, out / f"{name}.safetensors")
    accelerator.wait_for_everyone()


def interrupt(out: Path, name: str, *, precision: str = "no") -> None:
    """Stop in the sixth step."""
    with suppress(KeyboardInterrupt):
        train(out / name, new_accelerator(TRAINING, precision), interrupt_after=5)


def run(out: Path) -> None:
    """Straight, interrupted and resumed, in micro-batches, in bf16, and on from what one process has begun."""
    keep(out, "straight")
    keep(out, "joined")
    keep(out, "micro-batches", training=replace(TRAINING, gradient_accumulation=2))
    interrupt(out, "left")
    interrupt(out, "resumed")
    keep(out, "resumed")
    keep(out, "bf16", precision="bf16")
    interrupt(out, "bf16-resumed", precision="bf16")
    keep(out, "bf16-resumed", precision="bf16")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
