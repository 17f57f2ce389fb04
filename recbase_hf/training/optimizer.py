"""AdamW as language models use it."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["is_decayed", "make_optimizer"]

_FUSED_ON = ("cuda", "cpu", "xpu", "mps")


def make_optimizer(model: torch.nn.Module, *, weight_decay: float, device: torch.device) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only, in one kernel where the device has it; its learning rate is to be set.

    Frozen parameters are not in it.

    >>> groups = make_optimizer(torch.nn.Linear(2, 3), weight_decay=0.1, device=torch.device("cpu")).param_groups
    >>> [(group["weight_decay"], group["fused"]) for group in groups]
    [(0.1, True), (0.0, True)]
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if is_decayed(parameter)]
    others = [parameter for parameter in trained if not is_decayed(parameter)]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=device.type in _FUSED_ON)


def is_decayed(parameter: torch.Tensor) -> bool:
    """Whether weight decay draws a parameter towards zero: it does matrices, not norms and biases."""
    shape: tuple[int, ...] = getattr(parameter, "ds_shape", parameter.shape)  # DeepSpeed may have cut it up
    return len(shape) >= 2
