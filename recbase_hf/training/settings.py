"""How the language model is trained: the options of `recbase pretrain` that belong to the training itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from recbase_hf.config import option, require_positive
from recbase_hf.training.schedule import SCHEDULES

__all__ = ["Pretraining"]

_FREE = (
    *("gradient_accumulation", "gradient_checkpointing", "compile", "loss_chunk", "evaluate_every", "save_every"),
    *("probe_data", "probe_every", "peak_tflops"),
)
"""What may change from one start of a run to the next: the mathematics stay the same."""


@dataclass(frozen=True)
class Pretraining:
    """How the language model is trained."""

    few_steps: ClassVar[int] = 100
    """Fewer teach a new model next to nothing."""
    verb: ClassVar[str] = "pretrain"
    """Before the progress bar."""

    epochs: float = option(3.0, help="passes over the packed rows")
    temperature: float = option(
        1.0, help="of mixing data sets: 1 takes them as large as they are, higher takes small ones more often"
    )
    batch_rows: int = option(16, help="rows a step, over all processes and micro-batches")
    gradient_accumulation: int = option(1, help="micro-batches a step")
    learning_rate: float = option(2e-3, help="of AdamW, at its peak")
    schedule: str = option(
        "cosine",
        help="of the learning rate after the warm-up: cosine lowers it to a tenth; wsd keeps it and lowers it to zero "
        "at the end",
        choices=SCHEDULES,
    )
    warm_up_share: float = option(0.05, help="of the steps, in which the learning rate rises")
    decay_share: float = option(0.2, help="of the steps, the last ones, in which wsd lowers the learning rate")
    weight_decay: float = option(0.1, help="on matrices, not on norms and biases")
    clip_norm: float = option(1.0, help="largest norm of the gradient")
    level_weights: tuple[float, ...] = option((), help="weight of each level in the loss; default 1 each")
    history_dropout: float = option(0.0, help="probability that an item of a history is left out in a step")
    ema_decay: float = option(
        0.0, help="of the moving average of the weights that is evaluated and saved; 0 is the weights themselves"
    )
    patience: int = option(
        0, help="evaluations without a better validation loss after which to stop, keeping the best; 0 never stops"
    )
    gradient_checkpointing: bool = option(False, help="compute activations twice instead of keeping them")
    compile: bool = option(False, help="compile the layers with torch.compile")
    loss_chunk: int = option(1024, help="positions whose logits are in memory at a time")
    evaluate_every: int = option(100, help="steps between evaluations on the validation rows")
    validation_rows: int = option(
        2000, help="validation rows that are evaluated, from all parts of the data sets; 0 takes all there are"
    )
    save_every: int = option(100, help="steps between checkpoints")
    probe_data: tuple[str, ...] = option(
        (), help="folders of data sets that are not trained on, whose zero-shot GAUC is measured on the way"
    )
    probe_every: int = option(500, help="steps between these measurements")
    peak_tflops: float | None = option(
        None, help="peak TFLOP/s of one accelerator, for the MFU; default the data sheet's, where it is known"
    )
    seed: int = option(0, help="of initialization, order and dropout")

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_rows", "gradient_accumulation", "clip_norm", "loss_chunk")
        require_positive(self, "evaluate_every", "save_every", "probe_every")
        if not self.temperature >= 1:
            raise ValueError(
                f"temperature is {self.temperature}; 1 takes data sets as large as they are, higher evens out"
            )
        for name in ("history_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to below 1")
        if not 0 < self.decay_share <= 1:
            raise ValueError(f"decay_share is {self.decay_share}; it must be above 0 and at most 1")
        if self.validation_rows < 0:
            raise ValueError(f"validation_rows is {self.validation_rows}; give 0 for all rows, or a number")
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience}; it must be 0 (never stop) or more")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; it must be one of {', '.join(SCHEDULES)}")
        if self.level_weights and not (min(self.level_weights) >= 0 < max(self.level_weights)):
            raise ValueError(f"level_weights are {self.level_weights}; none may be below 0, and one must be above")

    def badness(self, entry: Mapping[str, float]) -> float | None:
        """What early stopping wants low, out of an entry of the log; None where the entry does not have it."""
        return entry.get("validation_loss")

    def binding(self) -> dict[str, Any]:
        """What a resumed run must agree with: all that changes what is learned."""
        return {key: value for key, value in asdict(self).items() if key not in _FREE}
