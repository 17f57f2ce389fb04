"""Copies of a model's weights beside it: their moving average, or the best so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from recbase_hf.training import zero

__all__ = ["ShadowWeights", "is_sharded"]


class ShadowWeights:
    """Float32 copies of the parameters that are trained, on every process and sharded as they are.

    All methods that take a model take the same one, unwrapped and outside of forward and backward.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 1.0)
    >>> average = ShadowWeights(model)
    >>> _ = torch.nn.init.constant_(model.weight, 2.0)
    >>> average.follow(model, decay=0.75)
    >>> with average.applied(model):
    ...     model.weight.item()
    1.25
    >>> model.weight.item()
    2.0
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights = {name: value.detach().float().clone() for name, value in _parameters(model)}

    @torch.no_grad()
    def follow(self, model: torch.nn.Module, *, decay: float = 0.0) -> None:
        """Keep `decay` of what is there and take the rest from the model."""
        for name, value in _parameters(model):
            if decay:
                self._weights[name].lerp_(value.float(), 1 - decay)
            else:
                self._weights[name].copy_(value)

    @torch.no_grad()
    def copy_to(self, model: torch.nn.Module) -> None:
        """Let the model have these weights."""
        for name, value in _parameters(model):
            value.copy_(self._weights[name])
        _update(model)

    @contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[None]:
        """Within the block the model has these weights, afterwards its own again."""
        own = [value.detach().clone() for _, value in _parameters(model)]
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for (_, value), before in zip(_parameters(model), own, strict=True):
                    value.copy_(before)
                _update(model)

    def whole(self, model: torch.nn.Module) -> dict[str, Tensor]:
        """All of it on the CPU by the names of the parameters, for a checkpoint. Call on every process."""
        if not zero.is_zero(model):
            return {name: _whole(value).cpu() for name, value in self._weights.items()}
        with self.applied(model):
            weights = zero.whole_weights(model)
        return {name: weights[name] for name, _ in model.named_parameters() if name in weights}

    @torch.no_grad()
    def restore(self, model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
        """Take what `whole` gave. Call on every process."""
        if not zero.is_zero(model):
            for name, value in self._weights.items():
                value.copy_(_like(weights[name], value))
            return
        own = ShadowWeights(model)
        zero.load_weights(model, weights)
        self.follow(model)
        own.copy_to(model)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether this process has only parts of the parameters, or its exact weights beside the model."""
    return zero.is_zero(model) or any(hasattr(value, "full_tensor") for value in model.parameters())


def _parameters(model: torch.nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Names and parameters, the shards where they are sharded: after a forward FSDP may have them whole."""
    if zero.is_zero(model):
        return [(str(number), flat) for number, flat in enumerate(zero.flat_parts(model))]
    for module in model.modules():
        reshard: Any = getattr(module, "reshard", None)
        if reshard is not None:
            reshard()
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _update(model: torch.nn.Module) -> None:
    if zero.is_zero(model):
        zero.update_model(model)


def _whole(value: Any) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _like(weights: Tensor, value: Any) -> Tensor:
    """Whole weights as a part of them like `value`, where that is one."""
    weights = weights.to(value.device)
    if not hasattr(value, "full_tensor"):
        return weights
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(weights, value.device_mesh, value.placements)
