"""A training on paper: does it fit into the GPUs, how fast does it go, how long does it take and what does it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from recbase_hf.language_model import count_parameters
from recbase_hf.planning.memory import GIB, activation_bytes
from recbase_hf.planning.planned_run import PlannedRun, planned_memory
from recbase_hf.planning.remedies import find_remedies
from recbase_hf.training.flops import training_flops_per_token

__all__ = ["SPEED_BASIS", "TOKENS_PER_PARAMETER", "Plan", "make_plan"]

TOKENS_PER_PARAMETER = 20
"""The budget of least loss for the compute, of Hoffmann et al. 2022 (arXiv:2203.15556), for text."""

SPEED_BASIS = "calculated, not measured: mfu x peak_tflops x gpus / flops_per_token; time and cost follow from it"
"""What stands behind the speed of a plan."""


@dataclass(frozen=True)
class Plan:
    """What becomes of a planned run.

    Attributes:
        run: what was planned.
        parameters: of the model, tied weights once.
        memory: bytes on one GPU, by part, the reserve included.
        activations: bytes of activations (without, with) gradient checkpointing.
        fits: whether the memory is enough.
        remedies: option settings with which it would fit, with the bytes that they take; none where it fits, or
            where nothing helps.
        tokens: the budget.
        flops_per_token: of training, recomputation not counted.
        tokens_per_second: of all GPUs, if they reach the `mfu` of the run; see `SPEED_BASIS`.
        seconds_per_step: of one optimizer step.
        hours: until the budget is spent.
        cost: of these hours on all GPUs.
    """

    run: PlannedRun
    parameters: int
    memory: dict[str, int]
    activations: tuple[int, int]
    fits: bool
    remedies: dict[str, int]
    tokens: float
    flops_per_token: float
    tokens_per_second: float
    seconds_per_step: float
    hours: float
    cost: float

    @property
    def total_memory(self) -> int:
        """Bytes on one GPU."""
        return sum(self.memory.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "total_memory": self.total_memory, "speed_basis": SPEED_BASIS}


def make_plan(config: Any, run: PlannedRun) -> Plan:
    """Plan the training of a model.

    Args:
        config: a `Qwen2Config`.
        run: how, on what.
    """
    parameters = count_parameters(config)
    memory = planned_memory(config, run)
    fits = sum(memory.values()) <= run.gpu_memory * GIB
    setups = [replace(run.memory_setup(), gradient_checkpointing=checkpointing) for checkpointing in (False, True)]
    each_token = training_flops_per_token(config, run.document_length or run.row_length)
    tokens = run.tokens or TOKENS_PER_PARAMETER * parameters
    speed = run.mfu * run.peak_tflops * 1e12 * run.gpus / each_token
    return Plan(
        run=run,
        parameters=parameters,
        memory=memory,
        activations=(activation_bytes(config, setups[0]), activation_bytes(config, setups[1])),
        fits=fits,
        remedies={} if fits else find_remedies(config, run),
        tokens=tokens,
        flops_per_token=each_token,
        tokens_per_second=speed,
        seconds_per_step=run.batch_rows * run.row_length / speed,
        hours=tokens / speed / 3600,
        cost=tokens / speed / 3600 * run.gpus * run.gpu_hour_price,
    )
