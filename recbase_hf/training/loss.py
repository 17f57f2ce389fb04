"""Cross-entropy of the next tokens without the logits of all positions in memory at once.

Level `l` of an item always comes at its own place, so one could take the softmax over the codes of that level alone; it
is taken over the whole vocabulary, as in RecBase, and the model learns which level is due.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

__all__ = ["chunked_cross_entropy", "give_logits_again", "give_losses", "group_counts", "group_sums"]


def chunked_cross_entropy(
    hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], *, chunk: int, at_least: int = 1
) -> Tensor:
    """The cross-entropy of each target, (targets,) float32 (or float64, as the states are), in nats.

    Args:
        hidden: (targets, width), the states that predict.
        targets: (targets,) int64 token ids.
        head: gives logits, (n, width) to (n, vocabulary).
        chunk: positions whose logits are there at a time. All chunks but the last are projected again in the backward
            pass: that of the last comes first, when its logits are still there.
        at_least: calls of the head, some with nothing. Where a head is shared out over processes they wait for each
            other in every call, and have to make the same number.
    """
    parts = list(zip(hidden.split(chunk), targets.split(chunk), strict=True))
    parts = [(hidden[:0], targets[:0])] * (at_least - len(parts)) + parts

    def losses(states: Tensor, wanted: Tensor) -> Tensor:
        logits = head(states)
        return cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), wanted, reduction="none")

    earlier = [checkpoint(losses, *part, use_reentrant=False) for part in parts[:-1]]
    return torch.cat([*earlier, losses(*parts[-1])])


def give_losses(model: Any, *, chunk: int, others: Callable[[Any, Any], Tensor] | None = None) -> None:
    """Let `model(input_ids, position_ids, places, targets)` return the loss of each target instead of logits.

    What wraps a model to distribute it runs its forward, so the loss has to be in there.

    Args:
        model: a `Qwen2ForCausalLM`; only positions that have a target go through its head.
        chunk: see `chunked_cross_entropy`.
        others: the losses of something else, of model and batch. Where the forward gets such a batch as its last
            argument, it gives both losses; without any rows those of next tokens are None.
    """

    def of_rows(self: Any, input_ids: Tensor, position_ids: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        # Without `use_cache=False` transformers does not see the packing, and users attend to each other.
        states = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
        most = -(-input_ids.numel() // chunk)
        return chunked_cross_entropy(states.flatten(0, 1)[places], targets, self.lm_head, chunk=chunk, at_least=most)

    def forward(self: Any, *rows: Any) -> Any:
        if others is None or len(rows) == 4:
            return of_rows(self, *rows)
        return of_rows(self, *rows[:-1]) if len(rows) > 1 else None, others(self, rows[-1])

    model.forward = MethodType(forward, model)


def give_logits_again(model: Any) -> None:
    """Undo `give_losses`, and with it what Accelerate put around that forward."""
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)


def group_sums(losses: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Sums of (targets,) losses by (targets,) group numbers: (num_groups,) float32, without gradient."""
    return torch.zeros(num_groups, device=losses.device).index_add_(0, groups, losses.detach().float())


def group_counts(groups: Tensor, num_groups: int) -> Tensor:
    """Targets of each group, (num_groups,) float32; `bincount` would make an accelerator wait."""
    return group_sums(torch.ones(groups.shape, device=groups.device), groups, num_groups)
