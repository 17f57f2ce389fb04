"""The Accelerator of a training run, checked to be the one that was launched."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from recbase_hf.errors import LaunchError

__all__ = ["launched", "make_accelerator", "told_to_launcher"]


def make_accelerator(
    *, gradient_accumulation: int = 1, mixed_precision: str = "auto", trackers: tuple[str, ...] = (), folder: str = "."
) -> Any:
    """An `Accelerator` for this launch.

    Args:
        gradient_accumulation: micro-batches a step.
        mixed_precision: `auto` is what the launcher was told, else bf16 on an accelerator that has it and float32 on
            the CPU, where bf16 is several times slower.
        trackers: names of Accelerate's trackers (`tensorboard`, `wandb`, `trackio`, ...).
        folder: where trackers write.

    Raises:
        LaunchError: the launcher started another number of processes than Accelerate sees, who would race each other.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, is_bf16_available

    on_cpu = not torch.accelerator.is_available()
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if mixed_precision == "auto":
        mixed_precision = "no" if on_cpu or not is_bf16_available() else "bf16"
        if (launched_with := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
            mixed_precision = launched_with
    # The others wait while the first process encodes all texts, which may take longer than the usual ten minutes.
    group = InitProcessGroupKwargs(timeout=timedelta(hours=24))
    if on_cpu and deepspeed:  # which Accelerate takes for something that only GPUs have
        group.backend = "gloo"
    accelerator = Accelerator(
        cpu=on_cpu and not deepspeed,
        # The last step of a run takes as many micro-batches as the others.
        gradient_accumulation_plugin=GradientAccumulationPlugin(gradient_accumulation, sync_with_dataloader=False),
        mixed_precision=mixed_precision,
        log_with=list(trackers) or None,
        project_dir=folder,
        kwargs_handlers=[group],
    )
    launched = os.environ.get("WORLD_SIZE", "1")
    # `accelerate launch --cpu --num_processes 2` announces a group of processes, then starts one that is not in it.
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        launched = "several"
    if launched != str(accelerator.num_processes):
        raise LaunchError(
            f"{launched} processes were asked for but Accelerate sees {accelerator.num_processes}; on a machine "
            f"without GPU start several with: accelerate launch --multi_gpu --num_processes 2 {sys.argv[0]}"
        )
    return accelerator


@contextmanager
def launched(options: Any) -> Iterator[Any]:
    """The `Accelerator` of a training command, whose errors in the block are told to the launcher.

    Args:
        options: with `gradient_accumulation`, `mixed_precision`, `trackers` and `output`.
    """
    with told_to_launcher():
        yield make_accelerator(
            gradient_accumulation=options.gradient_accumulation,
            mixed_precision=options.mixed_precision,
            trackers=options.trackers,
            folder=options.output,
        )


@contextmanager
def told_to_launcher() -> Iterator[None]:
    """Let `accelerate launch` end with the message of an error in the block, which its own traceback would bury.

    Errors of torch are left out: they mostly come from a process whose partner has failed.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError, LaunchError) as error:
        file = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if file:
            Path(file).write_text(json.dumps({"message": str(error), "timestamp": int(time.time())}), encoding="utf-8")
        raise
