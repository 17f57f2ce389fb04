"""When to stop because the loss on held-out users no longer falls, and the weights from when it was lowest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from recbase_hf.training.shadow import ShadowWeights

__all__ = ["EarlyStop"]


class EarlyStop:
    """Keeps the best weights and counts the evaluations since.

    Args:
        patience: evaluations without a lower loss after which to stop.
        model: a copy of its weights is kept; unwrapped.

    Attributes:
        facts: JSON content for a checkpoint: `loss` and `step` of the best evaluation, and how many `waited` since.
        best: its weights.
    """

    def __init__(self, patience: int, model: torch.nn.Module) -> None:
        self.patience = patience
        self.facts: dict[str, Any] = {"loss": None, "step": 0, "waited": 0}
        self.best = ShadowWeights(model)

    @property
    def stops(self) -> bool:
        """Whether it is time."""
        return self.facts["waited"] >= self.patience

    def evaluated(self, model: torch.nn.Module, step: int, loss: float) -> None:
        """Take note of an evaluation of the weights that the model has now; the same on every process."""
        lowest = self.facts["loss"]
        if loss < (math.inf if lowest is None else lowest):
            self.facts = {"loss": loss, "step": step, "waited": 0}
            self.best.follow(model)
        else:
            self.facts["waited"] += 1

    def restore(self, model: torch.nn.Module, facts: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Go on from what a checkpoint has."""
        self.facts = dict(facts)
        self.best.restore(model, weights)
