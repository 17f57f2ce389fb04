"""A plan says whether a run fits, what would make it fit, and how long it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recbase_hf.modeling.token_layout import TokenLayout

from recbase_hf.language_model import count_parameters, qwen2_config
from recbase_hf.planning.memory import GIB
from recbase_hf.planning.plan import make_plan
from recbase_hf.planning.planned_run import PlannedRun, planned_memory
from recbase_hf.training.settings import Pretraining

LAYOUT = TokenLayout(num_levels=4, codebook_size=1024)
EIGHT = PlannedRun(gpus=8, batch_rows=64, row_length=1024)


@pytest.fixture(scope="module")
def large():
    return qwen2_config("1.5b", LAYOUT)


def settings_of(flags: str) -> dict:
    """The changes that a remedy names."""
    changes = {}
    for part in flags.removeprefix("--").split(" --"):
        name, _, value = part.partition(" ")
        changes[name.replace("-", "_")] = True if not value else int(value) if value.isdigit() else value
    return changes


def test_speed_hours_and_cost_follow_from_the_utilization(large):
    plan = make_plan(large, replace(EIGHT, tokens=20e9, mfu=0.5, gpu_hour_price=2.0))
    assert plan.tokens_per_second == pytest.approx(0.5 * 990e12 * 8 / plan.flops_per_token)
    assert plan.hours == pytest.approx(20e9 / plan.tokens_per_second / 3600)
    assert plan.cost == pytest.approx(plan.hours * 8 * 2.0)
    assert plan.seconds_per_step == pytest.approx(64 * 1024 / plan.tokens_per_second)
    # Six a parameter is the rule of thumb; attention over whole rows adds some percent.
    assert 1.0 < plan.flops_per_token / (6 * count_parameters(large)) < 1.1


def test_short_histories_take_less_attention_and_the_default_budget_is_twenty_a_parameter(large):
    short = make_plan(large, replace(EIGHT, document_length=41))
    assert short.flops_per_token < make_plan(large, EIGHT).flops_per_token
    assert short.tokens == 20 * count_parameters(large)


def test_a_plan_that_fits_needs_no_remedy(large):
    plan = make_plan(large, EIGHT)
    assert plan.fits
    assert plan.total_memory == sum(plan.memory.values()) <= 80 * GIB
    assert plan.remedies == {}
    assert plan.activations[0] == plan.memory["activations"] > 5 * plan.activations[1]


@pytest.mark.parametrize(
    ("run", "kinds"),
    [
        (replace(EIGHT, gpu_memory=48), {"gradient_accumulation", "gradient_checkpointing", "strategy"}),
        (replace(EIGHT, gpu_memory=24, mixed_precision="no"), None),
        (replace(EIGHT, gpu_memory=16), {"gradient_accumulation gradient_checkpointing strategy"}),
        (
            PlannedRun(gpu_memory=16, batch_rows=8, row_length=1024),
            {"gpus strategy gradient_checkpointing"},
        ),
    ],
)
def test_every_remedy_makes_it_fit(large, run, kinds):
    plan = make_plan(large, run)
    assert not plan.fits
    assert plan.remedies
    for flags, size in plan.remedies.items():
        better = make_plan(large, replace(run, **settings_of(flags)))
        assert better.fits
        assert better.total_memory == size
    if kinds is not None:
        assert {" ".join(settings_of(flags)) for flags in plan.remedies} == kinds


def test_where_nothing_helps_there_is_no_remedy(large):
    plan = make_plan(large, replace(EIGHT, gpu_memory=1))
    assert not plan.fits
    assert plan.remedies == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 0}, "gpus is 0; it must be above 0"),
        ({"mfu": 40.0}, "mfu is 40.0; it is a share"),
        ({"gpus": 7}, "batch_rows 16 must be a multiple of gpus x gradient_accumulation, 7 here; 21 is the next"),
        ({"strategy": "zero2", "mixed_precision": "fp16"}, "zero2 does not go with mixed_precision fp16; choose bf16"),
        ({"tokens": -1.0}, "tokens is -1.0"),
        ({"reserve": -1.0}, "reserve is -1.0; it must not be negative"),
        ({"strategy": "zero9"}, "strategy is 'zero9'; it must be one of ddp, fsdp"),
    ],
)
def test_impossible_runs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PlannedRun(**{"row_length": 802, **changes})


def test_what_is_not_said_is_as_the_training_has_it():
    planned = PlannedRun(row_length=802)
    for name in (
        "batch_rows",
        "gradient_accumulation",
        "gradient_checkpointing",
        "loss_chunk",
        "ema_decay",
        "patience",
    ):
        assert getattr(planned, name) == getattr(Pretraining(), name)


def test_the_numbers_say_what_they_rest_on(large):
    written = make_plan(large, EIGHT).to_dict()
    assert written["speed_basis"].startswith("calculated, not measured: mfu x peak_tflops")
    assert (written["run"]["mfu"], written["run"]["peak_tflops"]) == (0.4, 990.0)


def test_a_remedy_under_fsdp_drops_what_keeps_whole_gradients(large):
    """More micro-batches are a remedy elsewhere; here they cost more than the activations that they save."""
    run = replace(EIGHT, gpus=64, strategy="fsdp", gpu_memory=4.0)
    split = replace(run, gpus=32, gradient_accumulation=2)
    assert planned_memory(large, split)["gradients"] == 2 * count_parameters(large)
    plan = make_plan(large, run)
    assert list(plan.remedies) == ["--gradient-checkpointing"]
