"""How much arithmetic training takes, and how much a device could do: what the MFU is made of."""

from __future__ import annotations

from typing import Any

__all__ = ["model_flops_utilization", "peak_flops", "training_flops_per_token"]

# Dense bf16 of the vendor's data sheets, in TFLOP/s, without sparsity. The first entry whose words are all in the
# device's name counts, so variants stand before what they are variants of.
_PEAK_TFLOPS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("H200", "NVL"), 835),
    (("GH200",), 990),
    (("H200",), 990),
    (("H100", "PCIe"), 756),
    (("H100", "NVL"), 835),
    (("H100", "HBM3"), 990),
    (("A100",), 312),
    (("L40S",), 362),
    (("L4",), 121),
    (("A10",), 125),
)


def peak_flops(device_name: str) -> float | None:
    """FLOP/s of a device in dense bf16, or None where that is not known; a part of a device (MIG) is not.

    Args:
        device_name: what `torch.cuda.get_device_name` says.

    >>> peak_flops("NVIDIA H200") / 1e12, peak_flops("NVIDIA A100-SXM4-80GB") / 1e12, peak_flops("TITAN of 2041")
    (990.0, 312.0, None)
    """
    words = device_name.replace("-", " ").split()
    if "MIG" in words:
        return None
    return next((tflops * 1e12 for named, tflops in _PEAK_TFLOPS if set(named) <= set(words)), None)


def training_flops_per_token(config: Any, document_length: float) -> float:
    """FLOPs of forward and backward a token: three times the forward, which has two for each multiplication.

    - Layers: 6 a weight; norms and biases are left out.
    - Attention: 12 a layer and head width, over (document_length + 1) / 2 positions, those that a token of a document
      attends to on average. Attention across documents that a kernel computes and masks does not count.
    - Head: 6 x width x vocabulary for each position with a target: all but the last of a document.

    What is computed twice (gradient checkpointing, the logits of a chunked loss) counts once, as in the PaLM paper's
    definition of model FLOPs (arXiv 2204.02311, appendix B).

    Args:
        config: a `Qwen2Config`.
        document_length: mean tokens of a window, `<bos>` included; not the length of the rows that they are packed in.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, key_values = config.num_attention_heads * head, config.num_key_value_heads * head
    matrices = hidden * (queries + 2 * key_values) + queries * hidden + 3 * hidden * config.intermediate_size
    attention = 12 * queries * (document_length + 1) / 2
    with_target = max(0.0, 1 - 1 / document_length)
    return layers * (6 * matrices + attention) + 6 * hidden * config.vocab_size * with_target


def model_flops_utilization(
    config: Any, *, tokens_per_second: float, document_length: float, peak: float | None, devices: int = 1
) -> float | None:
    """The share of what the devices could do at their peak that went into the model; None without a known peak."""
    if not peak or not document_length:
        return None
    return tokens_per_second * training_flops_per_token(config, document_length) / (peak * devices)
