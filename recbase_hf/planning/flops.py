"""Floating-point operations of training, and how many a device can do.

The count is that of Kaplan et al. 2020 (arXiv:2001.08361, table 1) and Chowdhery et al. 2022 (arXiv:2204.02311,
appendix B): two for each weight that multiplies a token, and the two products of attention; the backward pass costs
twice the forward pass. Recomputation by gradient checkpointing is not counted, as model FLOPs utilization wants it.
"""

from __future__ import annotations

from typing import Any

from recbase_hf.language_model import count_layer_parameters

__all__ = ["flops_per_token", "peak_flops"]

# Dense bf16, without sparsity, in FLOP/s, from the vendors' data sheets; the first name that a device's contains.
_PEAKS = {
    "H200": 989.5e12,
    "H100 PCIe": 756e12,
    "H100": 989.5e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


def flops_per_token(config: Any, mean_document_length: float) -> float:
    """Floating-point operations that training spends on one token, forward and backward.

    Args:
        config: a `Qwen2Config`.
        mean_document_length: tokens that attend to each other, a user's packed history; a token sees half of them on
            average, itself included.
    """
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries = head * config.num_attention_heads
    # Biases and norms multiply nothing worth counting; the input embedding is a look-up, the output one a product.
    not_products = 2 * config.hidden_size + queries + 2 * head * config.num_key_value_heads
    matrices = config.num_hidden_layers * (count_layer_parameters(config) - not_products)
    products = 2 * (matrices + config.vocab_size * config.hidden_size)
    attention = config.num_hidden_layers * 4 * queries * (mean_document_length + 1) / 2
    return 3.0 * (products + attention)


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a GPU by the name that torch gives it; None for one that is not known.

    >>> peak_flops("NVIDIA H200"), peak_flops("abacus")
    (989500000000000.0, None)
    """
    return next((peak for name, peak in _PEAKS.items() if name.lower() in device_name.lower()), None)
