"""The formula is what torch counts, and devices that are not known have no peak."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recbase_hf.training.flops import model_flops_utilization, peak_flops, training_flops_per_token
from tiny_world import make_model
from training.small_runs import LAYOUT


def test_the_formula_is_what_torch_counts():
    model = make_model(LAYOUT, num_hidden_layers=3, attn_implementation="eager")
    config, length = model.config, 12
    ids = torch.randint(1, LAYOUT.num_codes, (2, length))
    with FlopCounterMode(display=False) as counter:
        states = model.model(input_ids=ids).last_hidden_state
        model.lm_head(states[:, :-1]).sum().backward()
    queries = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    masked = 12 * config.num_hidden_layers * queries * (length - (length + 1) / 2)  # which eager computes too
    assert counter.get_total_flops() / ids.numel() == pytest.approx(
        training_flops_per_token(config, length) + masked, rel=1e-3
    )


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 990),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 990),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name, tflops):
    assert peak_flops(name) == tflops * 1e12


@pytest.mark.parametrize("name", ["", "NVIDIA H100", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A1000", "cpu"])
def test_there_is_no_guess(name):
    assert peak_flops(name) is None


def test_mfu_is_the_share_of_all_devices():
    config = make_model(LAYOUT).config
    cost = training_flops_per_token(config, 9.0)
    speed = {"tokens_per_second": 1000.0, "document_length": 9.0}
    assert model_flops_utilization(config, **speed, peak=4000 * cost, devices=2) == pytest.approx(0.125)
    assert model_flops_utilization(config, **speed, peak=None) is None
