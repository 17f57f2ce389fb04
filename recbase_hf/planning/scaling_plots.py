"""Plots of a scaling law: losses of the runs and the curves of the law, over tokens and over parameters."""

from __future__ import annotations

import math

import numpy as np

from recbase_hf.pages import SERIES, Bar, Label, Line, Plot, polyline, scale
from recbase_hf.planning.scaling_law import ScalingFit, TrainedRun

__all__ = ["plot_law", "short"]

LEFT, RIGHT, TOP, BOTTOM = 52, 396, 14, 206
_WORDS = {"D": "tokens", "N": "parameters"}


def plot_law(fit: ScalingFit, letter: str, target: tuple[float, float] | None = None) -> Plot:
    """Losses over one size, a color for each value of the other one.

    Args:
        fit: of which law.
        letter: N for parameters, D for tokens.
        target: parameters and tokens to which the law is extended, drawn as a hollow point.
    """
    other = "N" if letter == "D" else "D"
    sizes = [_size(run, letter) for run in fit.runs] + ([target[letter == "D"]] if target else [])
    groups = _groups(fit, other)
    low, high = math.log10(min(sizes)), math.log10(max(sizes))
    margin = 0.06 * max(high - low, 0.1)
    x = scale(low - margin, high + margin, LEFT, RIGHT)
    ends = 10 ** np.linspace(low - margin, high + margin, 60)
    shown = [run.loss for run in fit.runs] + ([fit.predict(*target)[0]] if target else [])
    ticks = _ticks(min(shown), max(shown))
    y = scale(ticks[0], ticks[-1], BOTTOM, TOP)
    plot = Plot(
        f"Loss over {_WORDS[letter]}",
        "Held-out loss in nats a token; squares are runs, lines the law"
        + (f", a color for each number of {_WORDS[other]}" if len(groups) > 1 else "")
        + (". The pale square is where the law is extended to." if target else "."),
    )
    for tick in ticks:
        plot.lines.append(Line(polyline([(LEFT, y(tick)), (RIGHT, y(tick))]), "grid"))
        plot.labels.append(Label(LEFT - 7, y(tick) + 4, f"{tick:g}", "end"))
    for size in _decades(10 ** (low - margin), 10 ** (high + margin)):
        plot.labels.append(Label(x(math.log10(size)), BOTTOM + 18, short(size)))
    plot.labels.append(Label((LEFT + RIGHT) / 2, plot.height - 8, _WORDS[letter]))
    for number, (value, runs) in enumerate(groups.items()):
        color = f"series-{number % SERIES}"
        losses = fit.law.loss(*((value, ends) if letter == "D" else (ends, value)))
        points = [(x(math.log10(size)), y(loss)) for size, loss in zip(ends, losses, strict=True)]
        plot.lines.append(Line(polyline(point for point in points if TOP <= point[1] <= BOTTOM), color))
        for run in runs:
            title = f"{run.name}: {run.loss:.4f}"
            plot.bars.append(_square(x(math.log10(_size(run, letter))), y(run.loss), title, color))
        if len(groups) > 1 and number < SERIES:
            plot.labels.append(Label(RIGHT - 4, TOP + 12 + 15 * number, short(value), "end", f"name {color}"))
    if target:
        loss, _ = fit.predict(*target)
        place = x(math.log10(target[letter == "D"]))
        plot.bars.append(_square(place, y(loss), f"extended: {loss:.4f}", "bar", strength=0.4))
    return plot


def short(size: float) -> str:
    """A size as one says it.

    >>> short(312_730_624), short(2e4), short(50)
    ('313M', '20k', '50')
    """
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= 0.9995 * limit:
            return f"{size / limit:.3g}{letter}"
    return f"{size:.3g}"


def _groups(fit: ScalingFit, other: str) -> dict[float, list[TrainedRun]]:
    """Runs by their other size where the law has a term for it; else all in one, at its mean."""
    if other not in fit.law.terms():
        return {_size(fit.runs[0], other): list(fit.runs)}
    values = sorted({_size(run, other) for run in fit.runs})
    return {value: [run for run in fit.runs if _size(run, other) == value] for value in values}


def _size(run: TrainedRun, letter: str) -> float:
    return float(run.parameters if letter == "N" else run.tokens)


def _square(x: float, y: float, title: str, kind: str, strength: float = 1.0) -> Bar:
    return Bar(round(x - 3.5, 2), round(y - 3.5, 2), 7, 7, title, strength, kind)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around the values.

    >>> _ticks(2.13, 3.41)
    [2.0, 2.5, 3.0, 3.5]
    """
    width = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(width))
    step = next(part * power for part in (0.2, 0.5, 1, 2, 5) if width / (part * power) <= 5)
    return [round(number * step, 10) for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between the two, with steps of 1, 2 and 5 where these are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    return [size for power in powers for step in steps if low <= (size := step * 10.0**power) <= high]
