"""The language model: a stock `Qwen2ForCausalLM` over semantic-ID tokens, in a few named sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbase_hf.modeling.token_layout import TokenLayout

__all__ = [
    "MODEL_SIZES",
    "RESERVED_TOKENS",
    "count_layer_parameters",
    "count_parameters",
    "new_language_model",
    "qwen2_config",
    "start_from_code_vectors",
]

# hidden, intermediate, layers, heads, key-value heads. `base` has the intermediate width that gives the paper's 0.3B
# parameters; `base-paper` has the one that is printed there, which gives 0.18B. `1.5b` is the body of Qwen2-1.5B.
MODEL_SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "tiny": (128, 512, 2, 4, 2),
    "mini": (256, 1024, 4, 4, 2),
    "base": (1024, 2816, 24, 16, 16),
    "base-paper": (1024, 1024, 24, 16, 16),
    "1.5b": (1536, 8960, 28, 12, 2),
}

RESERVED_TOKENS = 64
"""Spare vocabulary rows, so that fine-tuning can add tokens without resizing the embeddings."""


def qwen2_config(size: str, layout: TokenLayout, *, max_items: int = 255, **overrides: Any) -> Any:
    """A `Qwen2Config` for a named size.

    Args:
        size: a key of `MODEL_SIZES`.
        layout: of the tokenizer; the vocabulary is padded beyond it to a multiple of 64, reserved rows included.
        max_items: items that the context holds, candidate included.
        **overrides: fields of `Qwen2Config` that replace the size's.

    Raises:
        ValueError: the size is unknown.
    """
    from transformers import Qwen2Config

    if size not in MODEL_SIZES:
        raise ValueError(f"size is {size!r}; it must be one of {', '.join(MODEL_SIZES)}")
    hidden, intermediate, layers, heads, key_value_heads = MODEL_SIZES[size]
    settings: dict[str, Any] = {
        "vocab_size": -(-(layout.num_tokens + RESERVED_TOKENS) // 64) * 64,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "max_position_embeddings": 1 + layout.num_levels * max_items,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "pad_token_id": layout.pad,
        "bos_token_id": layout.bos,
        "eos_token_id": layout.bos + 1,
    }
    return Qwen2Config(**{**settings, **overrides})


def count_parameters(config: Any) -> int:
    """How many parameters a `Qwen2ForCausalLM` of this configuration has, tied weights once; none is allocated.

    Raises:
        ValueError: a configuration of another architecture.

    >>> count_parameters(qwen2_config("base", TokenLayout(num_levels=4, codebook_size=1024)))
    312730624
    """
    if config.model_type != "qwen2":
        raise ValueError(f"the parameters of a {config.model_type} model cannot be counted here, only those of a qwen2")
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return embeddings + config.num_hidden_layers * count_layer_parameters(config) + config.hidden_size


def count_layer_parameters(config: Any) -> int:
    """Parameters of one decoder layer: attention with biases on its inputs, gated feed-forward, two norms."""
    hidden = config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys_and_values = head * config.num_attention_heads, 2 * head * config.num_key_value_heads
    attention = (hidden + 1) * (queries + keys_and_values) + queries * hidden
    return attention + 3 * hidden * config.intermediate_size + 2 * hidden


def new_language_model(config: Any, *, seed: int) -> Any:
    """A freshly initialized `Qwen2ForCausalLM`, the same for the same seed."""
    import torch
    from transformers import Qwen2ForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


KERNEL_WIDTH = 3.0
"""In distances of a code vector to its nearest neighbor, at the median: some ten codes are like each other."""

EMBEDDING_SCALE = 0.05
"""Standard deviation of the embeddings of codes: near codes start with logits that differ from those of far ones."""


def start_from_code_vectors(model: Any, layout: TokenLayout, vectors: np.ndarray, *, seed: int) -> None:
    """Set the embeddings of all codes so that near codes have like embeddings, in place.

    The inner product of two codes' embeddings is a Gaussian kernel of the distance of their code vectors (random
    Fourier features, Rahimi and Recht 2007), turned at random for each level. The head is tied to the embeddings, so a
    model that repeats an item of the history predicts its neighbors too, before it has learned anything.

    Args:
        model: a `Qwen2ForCausalLM` with tied embeddings.
        layout: of the tokens.
        vectors: (levels, codebook_size, width) of `recbase_hf.quantizers.geometry.code_vectors`.
        seed: of the features.
    """
    import torch

    hidden = model.config.hidden_size
    generator = np.random.default_rng(seed)
    for level, points in enumerate(vectors.astype(np.float64)):
        squares = (points**2).sum(axis=1)
        distances = np.sqrt(np.maximum(squares[:, None] - 2 * points @ points.T + squares, 0.0))
        np.fill_diagonal(distances, np.inf)
        width = KERNEL_WIDTH * np.median(distances.min(axis=1))
        phases = points @ generator.normal(size=(points.shape[1], hidden // 2)) / max(width, 1e-12)
        features = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
        features -= features.mean(axis=0)
        turn, _ = np.linalg.qr(generator.normal(size=(hidden, hidden)))
        embeddings = features @ turn[: features.shape[1]] * (EMBEDDING_SCALE / max(features.std(), 1e-12))
        with torch.no_grad():
            model.get_input_embeddings().weight[layout.level_ids(level)] = torch.from_numpy(embeddings).float()
