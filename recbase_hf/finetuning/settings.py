"""How a bundle is fine-tuned, and on whom: options of `recbase finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from recbase_hf.config import option, require_positive
from recbase_hf.training.settings import Pretraining

__all__ = ["METHODS", "OBJECTIVES", "TARGETS", "VALIDATION", "FineTuning", "UserSplit"]

METHODS = ("lora", "embeddings", "full")
OBJECTIVES = ("next-item", "ctr", "both")
TARGETS: dict[str, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "all-linear": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
VALIDATION = "validation_gauc"


@dataclass(frozen=True)
class FineTuning(Pretraining):
    """How a bundle is fine-tuned."""

    few_steps: ClassVar[int] = 0
    verb: ClassVar[str] = "finetune"

    method: str = option(
        "lora",
        help="lora: an adapter beside frozen weights; embeddings: one of embedding rows alone; full: all weights",
        choices=METHODS,
    )
    target: str = option("all-linear", help="of lora: the layers that are adapted", choices=tuple(TARGETS))
    rank: int = option(8, help="of lora: width of the matrices that are learned")
    lora_alpha: float = option(16.0, help="of lora: what is learned counts lora_alpha / rank times")
    lora_dropout: float = option(0.0, help="of lora: dropout of what goes into its matrices")
    train_rows: tuple[str, ...] = option(
        (),
        help="embedding rows that are trained too, or alone by embeddings: codes (of all levels), level-1, level-2, "
        "..., reserved (spare rows); by default none, or codes",
    )
    four_bit: bool = option(False, help="QLoRA: keep the frozen weights in 4 bits (needs bitsandbytes)")
    objective: str = option(
        "next-item",
        help="next-item: predict the next item of every history; ctr: tell what was clicked from what was shown, or "
        "from other items where nobody recorded that; both: both",
        choices=OBJECTIVES,
    )
    ctr_weight: float = option(1.0, help="of the ctr loss beside that of the next item")
    ctr_batch: int = option(32, help="of ctr: histories with candidates a step, over all processes and micro-batches")
    sampled_negatives: int = option(2, help="of ctr: other items of the catalog beside each clicked one, at random")
    in_batch_negatives: int = option(2, help="of ctr: what other users of the batch have clicked, beside each")
    shown: int = option(8, help="of ctr: most candidates of an impression, at least one clicked and one not")
    epochs: float = option(10.0, help="passes over the training rows, or, with ctr alone, over users or impressions")
    batch_rows: int = option(4, help="rows a step, over all processes and micro-batches")
    learning_rate: float = option(1e-3, help="of AdamW, at its peak; full fine-tuning wants less")
    weight_decay: float = option(0.0, help="on matrices, not on norms and biases")
    evaluate_every: int = option(50, help="steps between evaluations on the held-out users")
    patience: int = option(
        4, help="evaluations without a better validation GAUC after which to stop, keeping the best; 0 never stops"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "rank", "lora_alpha", "ctr_weight", "ctr_batch")
        for name, choices in (("method", METHODS), ("target", TARGETS), ("objective", OBJECTIVES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}; it must be from 0 to below 1")
        if min(self.sampled_negatives, self.in_batch_negatives) < 0 or not (
            self.sampled_negatives + self.in_batch_negatives
        ):
            raise ValueError(
                f"sampled_negatives is {self.sampled_negatives}, in_batch_negatives {self.in_batch_negatives}; none "
                "may be below 0, and one must be above"
            )
        if self.shown < 2:
            raise ValueError(f"shown is {self.shown}; give at least 2, one candidate clicked and one not")
        if self.method == "full" and self.train_rows:
            raise ValueError("full fine-tuning trains all rows; leave train_rows out")
        if self.four_bit and self.method != "lora":
            raise ValueError(f"four_bit keeps weights frozen, and method {self.method} is no LoRA; use --method lora")

    @property
    def learns_clicks(self) -> bool:
        """Whether the CTR loss is part of it."""
        return self.objective != "next-item"

    def badness(self, entry: Mapping[str, float]) -> float | None:
        """Minus the GAUC of the held-out users' last items, the mean of the data sets."""
        value = validation_gauc(entry)
        return None if value is None else -value


@dataclass(frozen=True)
class UserSplit:
    """Who is learned from, and what of them."""

    max_items: int | None = option(None, help="items a training window; default 100, or as many as the model reads")
    row_length: int | None = option(None, help="tokens a packed row; default two full windows, or 512 tokens")
    max_users: int = option(0, help="users of each data set that are learned from, drawn at random; 0 takes all")
    validation_share: float = option(0.05, help="of the users, held out to be judged by")
    judged_users: int = option(500, help="held-out users of each data set, at most, whose last items are predicted")
    hold_out_last: int = option(
        1,
        help="newest events of every user that are not learned from, so that recbase evaluate on the same data is "
        "honest; 0 for a model that goes live",
    )
    unordered_events: str = option(
        "error",
        help="what to do with events that lack their place in an otherwise ordered history",
        choices=("error", "drop"),
    )
    seed: int = option(0, help="of everything that is drawn")

    def __post_init__(self) -> None:
        for name in ("max_items", "row_length"):
            if getattr(self, name) is not None and getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 2, one item to predict the other")
        for name in ("max_users", "hold_out_last"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; give a share above 0 and below 1")
        if self.judged_users < 1:
            raise ValueError(f"judged_users is {self.judged_users}; give at least 1")


def validation_gauc(entry: Mapping[str, float]) -> float | None:
    """The mean of the data sets' GAUC of the score `joint`, out of an entry of the log; None where it has none.

    >>> validation_gauc({"step": 10, "validation_gauc_joint/a": 0.5, "validation_gauc_joint/b": 0.75})
    0.625
    """
    found = [value for name, value in entry.items() if name.startswith(f"{VALIDATION}_joint/")]
    return sum(found) / len(found) if found else None
