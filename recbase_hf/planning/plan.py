"""A training on paper: does it fit into the GPUs, how fast does it go, how long does it take and what does it cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from recbase_hf.config import require_positive
from recbase_hf.language_model import count_parameters
from recbase_hf.planning.flops import flops_per_token
from recbase_hf.planning.memory import GIB, MemorySetup, activation_bytes, memory_by_part

__all__ = ["Plan", "PlannedRun", "make_plan"]

TOKENS_PER_PARAMETER = 20
"""The budget of least loss for the compute, of Hoffmann et al. 2022 (arXiv:2203.15556), for text."""

_MOST_GPUS = 1024
_CHUNK = 1024


@dataclass(frozen=True)
class PlannedRun:
    """The run that is planned, apart from the model.

    Attributes:
        gpus: in all.
        gpu_memory: GiB of each.
        batch_rows: rows a step, over all GPUs and micro-batches.
        row_length: tokens a row.
        gradient_accumulation: micro-batches a step.
        strategy: one of `recbase_hf.planning.memory.STRATEGIES`.
        mixed_precision: no, bf16 or fp16.
        gradient_checkpointing: whether layers are computed again in the backward pass.
        attention: sdpa, eager or flash_attention_2.
        loss_chunk: tokens whose logits are there at once; 0 for all of a micro-batch.
        reserve: GiB of each GPU for the CUDA context, NCCL and fragmentation.
        document_length: tokens that attend to each other, on average; None for whole rows, which is the upper bound.
        tokens: the budget; None for 20 a parameter.
        mfu: share of `peak_tflops` that goes into the model.
        peak_tflops: dense TFLOP/s of a GPU.
        gpu_hour_price: of one GPU.

    Raises:
        ValueError: a number is out of its range, or the rows of a step cannot be shared out.
    """

    gpus: int = 1
    gpu_memory: float = 80.0
    batch_rows: int = 64
    row_length: int = 1024
    gradient_accumulation: int = 1
    strategy: str = "ddp"
    mixed_precision: str = "bf16"
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    loss_chunk: int = _CHUNK
    reserve: float = 2.0
    document_length: float | None = None
    tokens: float | None = None
    mfu: float = 0.4
    peak_tflops: float = 990.0
    gpu_hour_price: float = 2.5

    def __post_init__(self) -> None:
        require_positive(self, "gpus", "gpu_memory", "batch_rows", "row_length", "gradient_accumulation")
        require_positive(self, "mfu", "peak_tflops")
        require_positive(self, *(name for name in ("document_length", "tokens") if getattr(self, name) is not None))
        for name in ("loss_chunk", "reserve", "gpu_hour_price"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.mfu > 1:
            raise ValueError(f"mfu is {self.mfu}; it is a share of the peak, at most 1")
        micro_batches = self.gpus * self.gradient_accumulation
        if self.batch_rows % micro_batches:
            raise ValueError(
                f"batch_rows {self.batch_rows} must be a multiple of gpus x gradient_accumulation, {micro_batches} here"
            )

    def memory_setup(self) -> MemorySetup:
        """The part that decides on memory."""
        return MemorySetup(
            gpus=self.gpus,
            rows=self.batch_rows // (self.gpus * self.gradient_accumulation),
            row_length=self.row_length,
            strategy=self.strategy,
            mixed_precision=self.mixed_precision,
            gradient_checkpointing=self.gradient_checkpointing,
            attention=self.attention,
            loss_chunk=self.loss_chunk,
        )


@dataclass(frozen=True)
class Plan:
    """What becomes of a planned run.

    Attributes:
        parameters: of the model, tied weights once.
        memory: bytes on one GPU, by part, the reserve included.
        activations: bytes of activations (without, with) gradient checkpointing.
        fits: whether the memory is enough.
        remedies: option settings with which it would fit, with the bytes that they take; none where it fits, or
            where nothing helps.
        tokens: the budget.
        flops_per_token: of training, recomputation not counted.
        tokens_per_second: of all GPUs.
        seconds_per_step: of one optimizer step.
        hours: until the budget is spent.
        cost: of these hours on all GPUs.
    """

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
        return {**asdict(self), "total_memory": self.total_memory}


def make_plan(config: Any, run: PlannedRun) -> Plan:
    """Plan the training of a model.

    Args:
        config: a `Qwen2Config`.
        run: how, on what.
    """
    parameters = count_parameters(config)
    memory = memory_by_part(config, run.memory_setup()) | {"reserve": round(run.reserve * GIB)}
    fits = sum(memory.values()) <= run.gpu_memory * GIB
    setups = [replace(run.memory_setup(), gradient_checkpointing=checkpointing) for checkpointing in (False, True)]
    each_token = flops_per_token(config, run.document_length or run.row_length)
    tokens = run.tokens or TOKENS_PER_PARAMETER * parameters
    speed = run.mfu * run.peak_tflops * 1e12 * run.gpus / each_token
    return Plan(
        parameters=parameters,
        memory=memory,
        activations=(activation_bytes(config, setups[0]), activation_bytes(config, setups[1])),
        fits=fits,
        remedies={} if fits else _remedies(config, run),
        tokens=tokens,
        flops_per_token=each_token,
        tokens_per_second=speed,
        seconds_per_step=run.batch_rows * run.row_length / speed,
        hours=tokens / speed / 3600,
        cost=tokens / speed / 3600 * run.gpus * run.gpu_hour_price,
    )


# ---- what would make it fit ------------------------------------------------------------------------------------------


def _remedies(config: Any, run: PlannedRun) -> dict[str, int]:
    """Each option that would do alone; where none does, the first combination that does, then more GPUs."""

    def fitting(changes: dict[str, dict[str, Any]]) -> dict[str, int]:
        sizes = {flags: _total(config, replace(run, **change)) for flags, change in changes.items()}
        return {flags: size for flags, size in sizes.items() if size <= run.gpu_memory * GIB}

    alone = list(_changes(run))
    if found := fitting(_first_of_each_kind(fitting, alone)):
        return found
    together: dict[str, Any] = {}
    flags = ""
    for name, change in _strongest_of_each_kind(alone):
        together, flags = {**together, **change}, f"{flags} {name}".strip()
        if found := fitting({flags: together}):
            return found
    gpus = run.gpus
    while gpus < _MOST_GPUS:
        gpus *= 2
        rows = max(run.batch_rows, gpus)
        shared = {"strategy": "fsdp", "gradient_checkpointing": True, "gpus": gpus, "batch_rows": rows}
        shared["gradient_accumulation"] = rows // gpus
        if found := fitting({_flags(shared): shared}):
            return found
    return {}


def _changes(run: PlannedRun) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Single changes as (kind, flags, change), the cheapest first."""
    if run.loss_chunk == 0 or run.loss_chunk > _CHUNK:
        yield "loss", *_named({"loss_chunk": _CHUNK})
    if run.mixed_precision == "no":
        yield "precision", *_named({"mixed_precision": "bf16"})
    if not run.gradient_checkpointing:
        yield "checkpointing", *_named({"gradient_checkpointing": True})
    rows = run.batch_rows // run.gpus
    for accumulation in range(run.gradient_accumulation + 1, rows + 1):
        if rows % accumulation == 0:
            yield "accumulation", *_named({"gradient_accumulation": accumulation})
    if run.gpus > 1 and run.strategy != "fsdp":
        yield "strategy", *_named({"strategy": "fsdp"})


def _named(change: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return _flags(change), change


def _flags(change: dict[str, Any]) -> str:
    """As one would type them."""
    words = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in change.items()]
    return " ".join(words)


def _first_of_each_kind(fitting: Any, changes: list[tuple[str, str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for kind, flags, change in changes:
        if kind not in first and fitting({flags: change}):
            first[kind] = (flags, change)
    return dict(first.values())


def _strongest_of_each_kind(changes: list[tuple[str, str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    return list({kind: (flags, change) for kind, flags, change in changes}.values())


def _total(config: Any, run: PlannedRun) -> int:
    return sum(memory_by_part(config, run.memory_setup()).values()) + round(run.reserve * GIB)
