"""An interrupted fit that goes on equals one that was not interrupted, bit for bit."""

from __future__ import annotations

import pytest

from quantizers.small_quantizers import clustered_vectors, fit, fit_and_interrupt, small_config
from training.small_runs import assert_same_weights

STEPS = {"max_steps_per_level": 12, "evaluate_every": 4, "save_every": 5}


@pytest.fixture(scope="module", params=["cl-vae", "product", "fsq"])
def straight(request):
    """A kind, and what an uninterrupted fit of it gives."""
    return request.param, *fit(request.param, **STEPS)


@pytest.mark.parametrize(
    "interruptions",
    [
        pytest.param([3], id="before the first checkpoint"),
        pytest.param([9], id="within the first level"),
        pytest.param([21, 12], id="twice"),
    ],
)
def test_a_resumed_fit_equals_a_straight_one(tmp_path, new_accelerator, straight, interruptions):
    kind, quantizer, reports = straight
    options = {"checkpoints": tmp_path, **STEPS}
    for steps in interruptions:
        fit_and_interrupt(kind, steps=steps, accelerator=new_accelerator(), **options)
    resumed, resumed_reports = fit(kind, accelerator=new_accelerator(), **options)
    assert_same_weights(resumed, quantizer)
    assert resumed_reports == reports


@pytest.mark.parametrize(("save_every", "steps"), [(12, 14), (13, 15)])
def test_a_checkpoint_where_a_level_opens_is_resumed_exactly(tmp_path, new_accelerator, straight, save_every, steps):
    kind, quantizer, _ = straight
    options = {"checkpoints": tmp_path, **STEPS, "save_every": save_every}
    fit_and_interrupt(kind, steps=steps, accelerator=new_accelerator(), **options)
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{save_every:08d}"]
    assert_same_weights(fit(kind, accelerator=new_accelerator(), **options)[0], quantizer)


def test_a_fit_that_was_done_is_not_trained_again(tmp_path, new_accelerator, straight):
    kind, quantizer, reports = straight
    options = {"checkpoints": tmp_path, **STEPS, "save_every": 36}
    fit(kind, accelerator=new_accelerator(), **options)
    again, same_reports = fit(kind, accelerator=new_accelerator(), **options)
    assert_same_weights(again, quantizer)
    assert same_reports == reports


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"learning_rate": 1e-4}, id="training"),
        pytest.param({"kind": small_config("cl-vae", latent_dim=4)}, id="shape"),
        pytest.param({"kind": small_config("cl-vae", kl_weight=0.5)}, id="loss"),
        pytest.param({"kind": "product"}, id="kind"),
        pytest.param({"domains": {"first": clustered_vectors(600, seed=5)}}, id="vectors"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, new_accelerator, changes):
    fit_and_interrupt("cl-vae", steps=6, checkpoints=tmp_path, accelerator=new_accelerator(), **STEPS)
    with pytest.raises(ValueError, match="step-00000005 is of a training with other settings"):
        fit(**{"kind": "cl-vae", **STEPS, **changes}, checkpoints=tmp_path, accelerator=new_accelerator())
