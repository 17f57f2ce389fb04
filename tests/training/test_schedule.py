"""Learning rates follow from the step and the number of steps alone."""

from __future__ import annotations

import math

import pytest

from recbase_hf.training.schedule import SCHEDULES, learning_rate_share


def shares(schedule: str, total: int = 100, **options: float) -> list[float]:
    return [learning_rate_share(schedule, step, total, **options) for step in range(total)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_rates_rise_to_the_peak_and_never_rise_again(schedule, total):
    found = shares(schedule, total, warm_up_share=0.1)
    peak = found.index(max(found))
    assert max(found) == 1
    assert min(found) > 0
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)


def test_cosine_ends_near_a_tenth():
    found = shares("cosine", warm_up_share=0.05)
    assert found[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert found[5] == 1
    assert found[-1] == pytest.approx(0.1, abs=1e-3)
    assert found[52] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 47 / 95)))


def test_wsd_is_at_its_peak_until_the_decay():
    found = shares("wsd", warm_up_share=0.05, decay_share=0.3)
    assert set(found[5:71]) == {1.0}
    assert found[71] < 1
    assert found[85] == pytest.approx(1 - math.sqrt(0.5))
    assert found[-1] < 0.02


def test_a_longer_wsd_run_has_the_same_rates_up_to_the_decay():
    warm_up = 10
    short, long = (shares("wsd", total, warm_up_share=warm_up / total) for total in (100, 200))
    assert short[:80] == long[:80]
