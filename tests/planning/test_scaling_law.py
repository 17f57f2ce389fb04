"""A law that made the losses is found again, and what cannot be fitted is refused."""

from __future__ import annotations

import numpy as np
import pytest

from recbase_hf.planning.scaling_law import PowerTerm, ScalingLaw, TrainedRun, fit_scaling_law

CHINCHILLA = ScalingLaw(1.69, PowerTerm(406.4, 0.34), PowerTerm(410.7, 0.28))
PARAMETERS, TOKENS = (1e6, 5e6, 2e7), (2e6, 8e6, 3.2e7, 1.28e8)


def runs_of(law, parameters, tokens, *, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [
        TrainedRun(f"{n:g} {d:g}", n, d, float(law.loss(n, d)) * np.exp(noise * rng.normal()))
        for n in parameters
        for d in tokens
    ]


def test_the_law_of_losses_in_two_sizes_is_found():
    fit = fit_scaling_law(runs_of(CHINCHILLA, PARAMETERS, TOKENS), resamples=2)
    assert fit.law.irreducible == pytest.approx(1.69, abs=1e-3)
    assert fit.law.parameters.exponent == pytest.approx(0.34, abs=1e-3)
    assert fit.law.tokens.exponent == pytest.approx(0.28, abs=1e-3)
    assert np.abs(fit.residuals()).max() < 1e-4
    assert fit.predict(1e9, 1e10)[0] == pytest.approx(float(CHINCHILLA.loss(1e9, 1e10)), rel=1e-3)


@pytest.mark.parametrize("letter", ["N", "D"])
def test_only_the_size_that_differs_has_a_term(letter):
    law = ScalingLaw(2.0, *((PowerTerm(50, 0.3), None) if letter == "N" else (None, PowerTerm(50, 0.3))))
    sizes = ((1e6, 4e6, 1.6e7, 6.4e7), (1e8,)) if letter == "N" else ((1e8,), (1e6, 4e6, 1.6e7, 6.4e7))
    fit = fit_scaling_law(runs_of(law, *sizes), resamples=2)
    assert list(fit.law.terms()) == [letter]
    assert fit.law.terms()[letter].exponent == pytest.approx(0.3, abs=1e-3)
    assert fit.law.formula().startswith("L = 2 + 50 / ")


def test_noise_widens_the_intervals_around_the_truth():
    law = ScalingLaw(2.0, None, PowerTerm(50, 0.3))
    tokens = tuple(np.geomspace(1e6, 1e9, 8))
    clean, noisy = (
        fit_scaling_law(runs_of(law, (1e7,), tokens, noise=noise), resamples=40).intervals() for noise in (0.0, 0.003)
    )
    for name, truth in (("E", 2.0), ("beta", 0.3)):
        low, high = noisy[name]
        assert low < truth < high
        assert high - low > 10 * (clean[name][1] - clean[name][0])


def test_one_run_that_went_wrong_hardly_moves_the_law():
    runs = runs_of(ScalingLaw(2.0, None, PowerTerm(50, 0.3)), (1e7,), tuple(np.geomspace(1e6, 1e9, 8)))
    runs[3] = TrainedRun("diverged", 1e7, runs[3].tokens, runs[3].loss * 1.3)
    fit = fit_scaling_law(runs, resamples=2)
    assert fit.law.tokens.exponent == pytest.approx(0.3, abs=0.01)
    assert fit.residuals()[3] == pytest.approx(0.3, abs=0.01)


def test_the_same_runs_give_the_same_fit():
    runs = runs_of(ScalingLaw(2.0, None, PowerTerm(50, 0.3)), (1e7,), TOKENS, noise=0.01)
    assert fit_scaling_law(runs, resamples=5) == fit_scaling_law(runs, resamples=5)


def test_reach_is_how_far_beyond_the_runs_a_size_lies():
    fit = fit_scaling_law(runs_of(CHINCHILLA, PARAMETERS, TOKENS), resamples=1)
    assert fit.reach(5e6, 1e7) == 1
    assert fit.reach(2e8, 1e7) == pytest.approx(10)
    assert fit.reach(5e6, 1e5) == pytest.approx(20)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((1e6,), (1e6, 2e6, 3e6)), "at least 4 runs, got 3"),
        (((1e6,), (1e6, 1.001e6, 1e6, 1e6)), "all 4 runs have the same parameters and tokens"),
        (((1e6, 2e6), (1e6, 2e6)), "at least 6 for the 5 unknowns of the law, got 4"),
        (((1e6,), (1e6, 1e6, 2e6, 2e6)), "only 2 different numbers of tokens"),
        (((1e6, 2e6), (1e6, 2e6, 3e6)), "only 2 different numbers of parameters"),
    ],
)
def test_too_few_runs_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        fit_scaling_law(runs_of(CHINCHILLA, *sizes))


def test_a_loss_that_is_no_number_is_named():
    runs = [*runs_of(CHINCHILLA, (1e6,), TOKENS), TrainedRun("broken", 1e6, 1e9, float("nan"))]
    with pytest.raises(ValueError, match="broken: the loss is nan"):
        fit_scaling_law(runs)
