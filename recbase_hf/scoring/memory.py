"""How many users and nodes go through the model at a time, so that scoring stays within a memory budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from recbase_hf.modeling.token_layout import TokenLayout

__all__ = ["BatchSizes", "batch_sizes"]

MAX_USERS, MAX_NODES = 256, 1024
"""On a CPU more at a time are no faster; on an accelerator the budget alone is the limit."""


@dataclass(frozen=True)
class BatchSizes:
    """What fits."""

    users: int
    """Whose histories are encoded together."""

    nodes: int
    """Trie nodes that go through the model together."""


def batch_sizes(model: Any, layout: TokenLayout, *, budget: int, history_tokens: int, beams: int = 1) -> BatchSizes:
    """Sizes whose keys, values, activations and log-probabilities take at most `budget` bytes.

    Half is for the encoded histories and half for the nodes below them. It is an estimate from above; weights, catalog
    and results are not in it.

    Args:
        model: a `Qwen2ForCausalLM`.
        history_tokens: of the longest history.
        beams: nodes of one user that must go together.

    Raises:
        ValueError: not even one user fits.
    """
    config = model.config
    size = model.dtype.itemsize
    exact_size = max(size, torch.float32.itemsize)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    states = 2 * config.num_hidden_layers * config.num_key_value_heads * head_width * size
    activations = (8 * config.hidden_size + 3 * config.intermediate_size) * exact_size
    attention = 4 * config.num_attention_heads * (history_tokens + layout.num_levels) * exact_size
    log_probabilities = 6 * layout.codebook_size * exact_size
    a_user = history_tokens * (states + activations)
    a_node = layout.num_levels * states + activations + attention + log_probabilities
    sizes = BatchSizes(budget // 2 // a_user, budget // 2 // a_node)
    if model.device.type == "cpu":
        sizes = BatchSizes(min(sizes.users, MAX_USERS), min(sizes.nodes, max(MAX_NODES, beams)))
    if sizes.users < 1 or sizes.nodes < beams:
        raise ValueError(
            f"memory_budget is {budget:,} bytes, too small for one user: a history of {history_tokens} tokens"
            f"{f' with {beams} beams' if beams > 1 else ''} needs {2 * max(a_user, beams * a_node):,}; "
            "give more, or shorten the history"
        )
    return sizes
