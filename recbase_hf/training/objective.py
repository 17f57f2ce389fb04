"""What a step may learn from beside next tokens, or instead of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Objective", "ObjectiveBatch"]


class ObjectiveBatch(Protocol):
    """A micro-batch, on the device."""

    @property
    def sizes(self) -> Tensor:
        """(3,) float32: its losses, tokens and windows."""


class Objective(Protocol):
    """A loss of its own over batches of its own; what it draws for a step follows from seed and step alone.

    Attributes:
        name: in the log, as `train_NAME_loss`.
        weight: of the mean of its losses, where the mean loss of next tokens counts 1.
        replaces_next_tokens: whether next tokens are not learned beside it.
        steps_an_epoch: steps in which everything comes once.
    """

    name: str
    weight: float
    replaces_next_tokens: bool
    steps_an_epoch: float

    def prepare(self, model: Any) -> None:
        """Give the model what the losses need, to be trained with it."""

    def release(self, model: Any) -> None:
        """Take that away again."""

    def micro_batches(
        self, accelerator: Any, *, accumulation: int, start: int, stop: int
    ) -> Iterator[Sequence[ObjectiveBatch]]:
        """For each of the steps `start` to `stop` this process's micro-batches."""

    def losses(self, model: Any, batch: Any) -> Tensor:
        """(n,) losses of a batch, within the model's forward."""
