"""What is decided about a run before it is planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbase_hf.config import require_positive
from recbase_hf.planning.memory import GIB, STRATEGIES, MemorySetup, memory_by_part
from recbase_hf.training.settings import Pretraining

__all__ = ["PlannedRun", "planned_memory"]


@dataclass(frozen=True)
class PlannedRun:
    """The run that is planned, apart from the model. What is an option of the training, too, has its default.

    Attributes:
        row_length: tokens a row.
        gpus: in all.
        gpu_memory: GiB of each.
        batch_rows: rows a step, over all GPUs and micro-batches.
        gradient_accumulation: micro-batches a step.
        strategy: one of `recbase_hf.planning.memory.STRATEGIES`.
        mixed_precision: no, bf16 or fp16.
        gradient_checkpointing: whether layers are computed again in the backward pass.
        attention: sdpa, eager or flash_attention_2.
        loss_chunk: tokens whose logits are there at once; 0 for all of a micro-batch.
        ema_decay: of the moving average of the weights; 0 for none.
        patience: evaluations without a better loss after which to stop, which keeps the best weights; 0 for never.
        reserve: GiB of each GPU for what is not planned: CUDA context, NCCL, fragmentation, passing tensors.
        document_length: tokens that attend to each other, on average; None for whole rows, which is the upper bound.
        tokens: the budget; None for 20 a parameter.
        mfu: share of `peak_tflops` that goes into the model.
        peak_tflops: dense TFLOP/s of a GPU.
        gpu_hour_price: of one GPU.

    Raises:
        ValueError: a number is out of its range, or the rows of a step cannot be shared out.
    """

    row_length: int
    gpus: int = 1
    gpu_memory: float = 80.0
    batch_rows: int = Pretraining.batch_rows
    gradient_accumulation: int = Pretraining.gradient_accumulation
    strategy: str = "ddp"
    mixed_precision: str = "bf16"
    gradient_checkpointing: bool = Pretraining.gradient_checkpointing
    attention: str = "sdpa"
    loss_chunk: int = Pretraining.loss_chunk
    ema_decay: float = Pretraining.ema_decay
    patience: int = Pretraining.patience
    reserve: float = 2.0
    document_length: float | None = None
    tokens: float | None = None
    mfu: float = 0.4
    peak_tflops: float = 990.0
    gpu_hour_price: float = 2.5

    def __post_init__(self) -> None:
        require_positive(self, "gpus", "gpu_memory", "batch_rows", "row_length", "gradient_accumulation")
        require_positive(self, "mfu", "peak_tflops")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy is {self.strategy!r}; it must be one of {', '.join(STRATEGIES)}")
        if self.strategy.startswith("zero") and self.mixed_precision == "fp16":
            raise ValueError(f"strategy {self.strategy} does not go with mixed_precision fp16; choose bf16")
        require_positive(self, *(name for name in ("document_length", "tokens") if getattr(self, name) is not None))
        for name in ("loss_chunk", "ema_decay", "patience", "reserve", "gpu_hour_price"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.mfu > 1:
            raise ValueError(f"mfu is {self.mfu}; it is a share of the peak, at most 1")
        micro_batches = self.gpus * self.gradient_accumulation
        if self.batch_rows % micro_batches:
            raise ValueError(
                f"batch_rows {self.batch_rows} must be a multiple of gpus x gradient_accumulation, {micro_batches} "
                f"here; {-(-self.batch_rows // micro_batches) * micro_batches} is the next"
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
            gradient_accumulation=self.gradient_accumulation,
            shadows=(self.ema_decay > 0) + (self.patience > 0),
        )


def planned_memory(config: Any, run: PlannedRun) -> dict[str, int]:
    """Bytes on one GPU by part, the reserve last."""
    return memory_by_part(config, run.memory_setup()) | {"reserve": round(run.reserve * GIB)}
