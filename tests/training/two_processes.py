"""Runs a function in two processes that know of each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbase_hf.training.launch import make_accelerator
from training.conftest import forget_accelerate

__all__ = ["needs_cpu_only", "run_twice"]

needs_cpu_only = pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes on what may be one GPU")


def run_twice(function: Callable[[Any, Path], None], out: Path) -> None:
    """Call `function` with an accelerator for two processes and the folder `out`, once in each of two processes.

    They are forks, which spares them all imports; `accelerate launch` itself is tested with the commands.
    """
    from accelerate import debug_launcher

    def in_one_process() -> None:
        os.environ["RANK"] = str(torch.distributed.get_rank())  # as the launchers of real trainings do
        accelerator = make_accelerator()
        assert accelerator.num_processes == 2
        function(accelerator, out)
        accelerator.end_training()

    forget_accelerate()
    debug_launcher(in_one_process, num_processes=2)
