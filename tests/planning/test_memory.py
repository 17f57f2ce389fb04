"""The memory plan is checked against what a model, its optimizer and autograd really hold."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from recbase_hf.modeling.token_layout import TokenLayout
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbase_hf.language_model import MODEL_SIZES, count_parameters, new_language_model, qwen2_config
from recbase_hf.planning.memory import MemorySetup, activation_bytes, memory_by_part

LAYOUT = TokenLayout(num_levels=4, codebook_size=16)
ONE = MemorySetup(gpus=1, rows=2, row_length=64, mixed_precision="no")


def small_config(attention="sdpa", **overrides):
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, **overrides}
    return qwen2_config("tiny", LAYOUT, attn_implementation=attention, **sizes)


def saved_bytes(config, setup, *, dtype=torch.float32):
    """Bytes of the tensors that autograd keeps of the body of a model, its weights and their copies left out."""
    model = new_language_model(config, seed=0).to(dtype).train()
    if setup.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    weights = {shape for parameter in model.parameters() for shape in (parameter.shape, parameter.shape[::-1])}
    kept = {}

    def pack(tensor):
        if tensor.shape not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    input_ids = torch.randint(1, 60, (setup.rows, setup.row_length))
    positions = (torch.arange(setup.row_length) % 16).repeat(setup.rows, 1)  # packed rows
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=setup.strategy == "ddp" and setup.width == 2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        model(input_ids=input_ids, position_ids=positions, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


class LiveTensors(TorchDispatchMode):
    """Most bytes that the results of operations took at the same time."""

    def __init__(self):
        super().__init__()
        self.most, self._storages = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        made = [part.untyped_storage() for part in tree_leaves(results) if isinstance(part, torch.Tensor)]
        self._storages += [weakref.ref(storage) for storage in made]
        alive = {storage.data_ptr(): storage.nbytes() for one in self._storages if (storage := one()) is not None}
        self.most = max(self.most, sum(alive.values()))
        return results


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.parametrize("key_value_heads", [2, 4])
def test_activations_are_what_autograd_saves(attention, mixed_precision, key_value_heads):
    config = small_config(attention, num_key_value_heads=key_value_heads)
    setup = replace(ONE, attention=attention, mixed_precision=mixed_precision)
    assert activation_bytes(config, setup) == pytest.approx(saved_bytes(config, setup), rel=0.02)


def test_a_model_that_is_sharded_runs_in_bf16_from_end_to_end():
    config, setup = small_config(), replace(ONE, strategy="fsdp", mixed_precision="bf16")
    assert activation_bytes(config, setup) == pytest.approx(saved_bytes(config, setup, dtype=torch.bfloat16), rel=0.02)


@pytest.mark.filterwarnings("ignore:.*activation_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_keeps_inputs_of_layers_and_one_whole_layer():
    one_layer, two_layers = (saved_bytes(small_config(num_hidden_layers=count), ONE) for count in (1, 2))
    setup = replace(ONE, gradient_checkpointing=True)
    measured = saved_bytes(small_config(), setup) + two_layers - one_layer
    assert activation_bytes(small_config(), setup) == pytest.approx(measured, rel=0.1)


def test_weights_gradients_and_moments_are_exact():
    config = small_config()
    model = new_language_model(config, seed=0)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    parameters = list(model.parameters())
    moments = [state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    parts = memory_by_part(config, ONE)
    assert parts["weights"] == sum(parameter.nbytes for parameter in parameters)
    assert parts["gradients"] == sum(parameter.grad.nbytes for parameter in parameters)
    assert parts["AdamW moments"] == sum(moments)


def test_autocast_copies_all_matrices():
    config, setup = small_config(), replace(ONE, mixed_precision="bf16")
    matrices = sum(
        parameter.numel() for parameter in new_language_model(config, seed=0).parameters() if parameter.ndim == 2
    )
    assert memory_by_part(config, setup)["half-precision copies of weights"] == 2 * matrices


def test_zero_takes_the_bytes_of_its_paper():
    config = qwen2_config("base", LAYOUT)
    count, setup = count_parameters(config), replace(ONE, gpus=8, mixed_precision="bf16")
    states = ("weights", "gradients", "AdamW moments", "float32 master weights")
    for strategy, expected in (("zero2", 2 + 14 / 8), ("zero3", 16 / 8)):
        parts = memory_by_part(config, replace(setup, strategy=strategy))
        assert sum(parts[name] for name in states) == pytest.approx(expected * count, rel=1e-6)
    in_float32 = memory_by_part(config, replace(setup, strategy="zero3", mixed_precision="no"))
    assert in_float32["float32 master weights"] == in_float32["weights"]


def test_fsdp_keeps_whole_gradients_while_micro_batches_accumulate():
    config = qwen2_config("base", LAYOUT)
    setup = replace(ONE, gpus=8, strategy="fsdp", mixed_precision="bf16")
    once, twice = (memory_by_part(config, replace(setup, gradient_accumulation=steps)) for steps in (1, 2))
    assert once["gradients"] == -(-4 * count_parameters(config) // 8)
    assert twice["gradients"] == 2 * count_parameters(config)


def test_shadows_are_shared_out_with_the_float32_weights():
    config = qwen2_config("base", LAYOUT)
    for strategy in ("fsdp", "zero2", "zero3"):
        parts = memory_by_part(config, replace(ONE, gpus=8, strategy=strategy, shadows=2))
        assert parts["moving average, best weights"] == count_parameters(config)


def test_the_loss_takes_three_float32_numbers_a_logit():
    """The biggest sum of what a chunk of logits leaves behind and of what its backward pass makes."""
    logits = torch.randn(64, 128, requires_grad=True)
    targets = torch.randint(128, (64,))
    with LiveTensors() as live:
        torch.nn.functional.cross_entropy(logits, targets, reduction="none").sum().backward()
    assert live.most == pytest.approx(12 * logits.numel(), rel=0.05)


def test_sharing_out_takes_less_on_more_gpus_and_ddp_the_same():
    config = qwen2_config("1.5b", LAYOUT)
    for strategy in ("fsdp", "zero2", "zero3"):
        totals = [
            sum(memory_by_part(config, replace(ONE, gpus=gpus, strategy=strategy)).values()) for gpus in (1, 2, 8, 64)
        ]
        assert totals == sorted(totals, reverse=True)
    two, eight = (memory_by_part(config, replace(ONE, gpus=gpus)) for gpus in (2, 8))
    assert two == eight
    assert two["communication buffers"] == two["gradients"]


def test_chunks_of_the_loss_bound_the_logits_and_shadows_are_float32_weights():
    config = small_config()
    whole, chunked = (memory_by_part(config, replace(ONE, loss_chunk=chunk)) for chunk in (0, 32))
    assert whole["logits and loss"] == 4 * chunked["logits and loss"] == 128 * config.vocab_size * 12
    shadowed = memory_by_part(config, replace(ONE, shadows=2))
    assert shadowed["moving average, best weights"] == 2 * shadowed["weights"]


@pytest.mark.parametrize("size", MODEL_SIZES)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_without_allocating_any(size, tied):
    from transformers import Qwen2ForCausalLM

    config = qwen2_config(size, LAYOUT, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    assert count_parameters(config) == sum(parameter.numel() for parameter in model.parameters())


def test_other_architectures_are_not_counted():
    from transformers import LlamaConfig

    with pytest.raises(ValueError, match="a llama model cannot be counted"):
        count_parameters(LlamaConfig())


def test_the_paper_sizes_have_the_parameters_that_it_names():
    layout = TokenLayout(num_levels=4, codebook_size=1024)
    counts = {size: count_parameters(qwen2_config(size, layout)) / 1e9 for size in MODEL_SIZES}
    assert counts["base"] == pytest.approx(0.31, abs=0.005)
    assert counts["base-paper"] == pytest.approx(0.18, abs=0.005)
    assert counts["1.5b"] == pytest.approx(1.32, abs=0.005)
