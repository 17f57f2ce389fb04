"""QLoRA: the frozen base in 4 bits (Dettmers et al. 2023), by bitsandbytes."""

from __future__ import annotations

from typing import Any

__all__ = ["four_bit_weights", "keep_trainable"]


def four_bit_weights(compute_dtype: Any = None) -> Any:
    """The configuration that `load_bundle` takes as `quantization`: NF4, computed in another type.

    Args:
        compute_dtype: of torch; default bfloat16 on an accelerator, float32 on the CPU.

    Raises:
        ImportError: bitsandbytes is not installed, or does not work here.
    """
    import torch
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f'four_bit needs bitsandbytes, which does not work here ({error}): pip install "recbase-hf[qlora]", or '
            "leave --four-bit out"
        ) from error
    if compute_dtype is None:
        compute_dtype = torch.bfloat16 if torch.accelerator.is_available() else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute_dtype)


def keep_trainable(model: Any) -> None:
    """Let a model in 4 bits go on training after it was evaluated.

    On CPUs with AVX-512 bitsandbytes 0.50 repacks the weights for inference at the first evaluation, and fails in the
    next training step.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
