"""The Accelerator is the one that was launched, in a precision that the machine is fast in."""

from __future__ import annotations

import pytest
import torch

from recbase_hf.training.launch import make_accelerator

needs_cpu_only = pytest.mark.skipif(torch.accelerator.is_available(), reason="for a machine without accelerator")


@needs_cpu_only
def test_the_cpu_trains_in_full_precision():
    accelerator = make_accelerator()
    assert accelerator.mixed_precision == "no"
    assert accelerator.device.type == "cpu"
    assert accelerator.num_processes == 1


def test_a_precision_that_is_asked_for_is_used():
    assert make_accelerator(mixed_precision="bf16").mixed_precision == "bf16"


def test_gradient_accumulation_is_passed_on():
    assert make_accelerator(gradient_accumulation=3).gradient_accumulation_steps == 3


@needs_cpu_only
def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    make_accelerator()  # this process takes itself for the only one
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"2 processes were asked for but Accelerate sees 1.*--multi_gpu"):
        make_accelerator()


def test_a_launch_that_silently_started_one_process_is_refused(monkeypatch):
    # what `accelerate launch --cpu --num_processes 2` leaves in the environment of the one process that it starts
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match=r"several processes were asked for but Accelerate sees 1"):
        make_accelerator()
