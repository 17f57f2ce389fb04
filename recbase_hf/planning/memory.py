"""What training keeps in the memory of one GPU, by part.

Sources, for N parameters on G GPUs:

* Weights, gradients and AdamW's two moments are 4, 4 and 8 bytes a parameter: under Accelerate's bf16 the weights stay
  float32 and autocast multiplies with bf16 copies of the matrices, 2 bytes each, which the backward pass needs again.
* DDP adds buckets as large as the gradients (torch, `DistributedDataParallel`, `gradient_as_bucket_view`).
* FSDP2 divides weights, gradients and moments by G. Whole in the lower precision are the outer unit (embeddings) and
  two layers, the one at work and the next, each with its gradient on the way out (torch, `fully_shard`). While micro-
  batches accumulate, Accelerate does not reduce gradients, which FSDP2 keeps whole, in the lower precision, until then.
* ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054): 2 bytes of weights and 2 of gradients, 12 of float32 master weights
  and moments; stage 2 divides all but the weights by G, stage 3 all. There are master weights in float32, too.
  DeepSpeed's defaults add buckets of 5e8 elements for gradients and weights, and keep up to 1e9 gathered weights in
  stage 3.
* Activations are the tensors that autograd saves in `Qwen2DecoderLayer` of transformers, counted one by one below
  (compare Korthikanti et al. 2022, arXiv:2205.05198, for a layer of another kind).

Everything is counted as if it were there at once, which holds but for a few percent at the start of a backward pass
that accumulates gradients, and is an upper bound otherwise: in the first micro-batch of a step gradients come as
activations go, and a checkpointed layer is computed again when the logits are gone. What the CUDA context, NCCL,
fragmentation and the gradients of one layer's activations take is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from recbase_hf.language_model import count_layer_parameters, count_parameters

__all__ = ["GIB", "STRATEGIES", "MemorySetup", "activation_bytes", "memory_by_part"]

Strategy = Literal["ddp", "fsdp", "zero2", "zero3"]

GIB = 2**30
STRATEGIES: tuple[str, ...] = ("ddp", "fsdp", "zero2", "zero3")

_BUCKET, _MOST_GATHERED = 500_000_000, 1_000_000_000  # elements; DeepSpeed's defaults


@dataclass(frozen=True)
class MemorySetup:
    """What the memory of a GPU depends on, besides the model.

    Attributes:
        gpus: processes, one a GPU.
        rows: of a micro-batch, on one GPU.
        row_length: tokens a row.
        strategy: one of `STRATEGIES`.
        mixed_precision: no, bf16 or fp16.
        gradient_checkpointing: whether layers are computed again in the backward pass.
        attention: sdpa, eager or flash_attention_2, as transformers names them.
        loss_chunk: tokens whose logits are there at once; 0 for all.
        gradient_accumulation: micro-batches a step.
        shadows: float32 copies of the weights that are kept beside them: a moving average, the best so far.
    """

    gpus: int
    rows: int
    row_length: int
    strategy: str = "ddp"
    mixed_precision: str = "bf16"
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    loss_chunk: int = 0
    gradient_accumulation: int = 1
    shadows: int = 0

    @property
    def tokens(self) -> int:
        """Of a micro-batch, on one GPU."""
        return self.rows * self.row_length

    @property
    def width(self) -> int:
        """Bytes of a number in matrix products."""
        return 4 if self.mixed_precision == "no" else 2

    @property
    def stream_width(self) -> int:
        """Bytes of a number between layers: autocast leaves it float32; FSDP and DeepSpeed run the model in bf16."""
        return 4 if self.strategy == "ddp" else self.width


def memory_by_part(config: Any, setup: MemorySetup) -> dict[str, int]:
    """Bytes on one GPU by part, in the order in which one would tell them.

    Args:
        config: a `Qwen2Config`.
        setup: how it is trained.
    """
    shadows = 4 * setup.shadows * count_parameters(config)
    if setup.strategy != "ddp":
        shadows = -(-shadows // setup.gpus)
    return {
        **_state_bytes(config, setup),
        **({"moving average, best weights": shadows} if shadows else {}),
        "activations": activation_bytes(config, setup),
        "logits and loss": _loss_bytes(config, setup),
    }


def activation_bytes(config: Any, setup: MemorySetup) -> int:
    """Bytes that the body of the model keeps for its backward pass.

    With gradient checkpointing these are the inputs of the layers and all of the one layer that is computed again.
    """
    head = _head(config)
    each_token = _norm_bytes(config, setup)
    if setup.width < setup.stream_width:
        each_token += config.hidden_size * setup.width  # autocast's copy for the output embedding
    each_token += 2 * head * setup.stream_width + 8  # cosines and sines; token ids
    if setup.gradient_checkpointing:
        each_token += (config.num_hidden_layers - 1) * config.hidden_size * setup.stream_width
        each_token += _layer_bytes(config, setup)
    else:
        each_token += config.num_hidden_layers * _layer_bytes(config, setup)
    return setup.tokens * each_token


# ---- a part each -----------------------------------------------------------------------------------------------------


def _state_bytes(config: Any, setup: MemorySetup) -> dict[str, int]:
    """Weights, gradients, optimizer, and the buffers that the strategy needs for them."""
    count, shards = count_parameters(config), setup.gpus
    strategy = cast(Strategy, setup.strategy)
    if strategy == "ddp":
        parts = {"weights": 4 * count}
        if setup.mixed_precision != "no":
            parts["half-precision copies of weights"] = 2 * _matrix_parameters(config)
        parts |= {"gradients": 4 * count, "AdamW moments": 8 * count}
        return parts | ({"communication buffers": 4 * count} if shards > 1 else {})
    share = -(-count // shards)
    if strategy == "fsdp":
        layers = min(2, config.num_hidden_layers) * count_layer_parameters(config)
        outer = count - config.num_hidden_layers * count_layer_parameters(config)
        buffers = 2 * setup.width * (outer + layers)
        accumulated = setup.width * count if setup.gradient_accumulation > 1 else 0
        return {
            "weights": 4 * share,
            "gradients": max(4 * share, accumulated),
            "AdamW moments": 8 * share,
            "communication buffers": buffers,
        }
    width = setup.width
    parts = {
        "weights": width * (share if strategy == "zero3" else count),
        "gradients": width * share,
        "float32 master weights": 4 * share,
    }
    gathered = min(count, _MOST_GATHERED if strategy == "zero3" else _BUCKET)
    buffers = width * (gathered + min(count, _BUCKET))
    return parts | {"AdamW moments": 8 * share, "communication buffers": buffers}


def _layer_bytes(config: Any, setup: MemorySetup) -> int:
    """What one decoder layer saves for one token.

    Its residual stream and norms; the inputs of seven matrix products (under autocast each product of one input has
    a copy of its own); queries, keys, values and output of attention; gate, activated gate, up and their product.
    """
    hidden, head, width = config.hidden_size, _head(config), setup.width
    queries, keys = head * config.num_attention_heads, head * config.num_key_value_heads
    cast_copies = 5 * hidden * width if width < setup.stream_width else 0
    # Packed rows need a mask, and with a mask sdpa cannot share keys and values among heads.
    keys_and_values = 2 * (keys if setup.attention == "flash_attention_2" else queries)
    attention = (2 * queries + keys_and_values) * width
    heads, row = config.num_attention_heads, setup.row_length
    if setup.attention == "sdpa":
        attention += 4 * heads + row * width  # normalizers, and the mask as numbers
    elif setup.attention == "flash_attention_2":
        attention += 4 * heads
    else:
        attention += heads * row * (4 + (width if width < 4 else 0))  # float32 shares, and their copy
    return 2 * _norm_bytes(config, setup) + cast_copies + attention + 4 * config.intermediate_size * width


def _norm_bytes(config: Any, setup: MemorySetup) -> int:
    """What an RMSNorm saves for one token: its input in float32, the normed input, a float32 scale, and its output."""
    hidden = config.hidden_size
    output = hidden * setup.stream_width if setup.width == setup.stream_width else 0  # else the casts save theirs
    return 4 * hidden + hidden * setup.stream_width + 4 + output


def _loss_bytes(config: Any, setup: MemorySetup) -> int:
    """When the backward pass begins: log-probabilities, the gradient of these, and that of the logits, in float32."""
    chunk = min(setup.loss_chunk or setup.tokens, setup.tokens)
    return chunk * config.vocab_size * 12


def _matrix_parameters(config: Any) -> int:
    """Parameters of which autocast makes copies: all but norms and biases."""
    vectors = 2 * config.hidden_size + _head(config) * (config.num_attention_heads + 2 * config.num_key_value_heads)
    return count_parameters(config) - config.num_hidden_layers * vectors - config.hidden_size


def _head(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
