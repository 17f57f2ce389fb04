"""The plot of an evaluation report: one metric of all rankers on one data set, with intervals."""

from __future__ import annotations

import math

from recbase_hf.evaluation.comparison import EvaluatedSet
from recbase_hf.evaluation.figures import Figure
from recbase_hf.evaluation.report_tables import family, metric_title
from recbase_hf.pages import Bar, Label, Line, Plot, polyline, scale

__all__ = ["plot_rankers"]

WIDTH, LEFT, RIGHT = 420, 14, 406
TOP, ROW, BELOW = 12, 34, 30
COLORS = {"model": "series-0", "text": "series-1", "fitted": "series-3", "other": "series-5"}


def plot_rankers(each: EvaluatedSet, metric: str) -> Plot:
    """A line a ranker: its figure, and the interval where there is one; the bar is the dashed line."""
    known = [(name, figure) for name in each.rankers if (figure := each.figure(name, metric)) is not None]
    bottom = TOP + ROW * len(known)
    plot = Plot(
        f"{metric_title(metric)} on {each.name}",
        "With 95 % intervals over users. Blue is RecBase, orange text similarity, purple what was fitted on this set; "
        "teal is the rest. The dashed line is the bar.",
        width=WIDTH,
        height=bottom + BELOW,
    )
    ticks = _ticks([end for _, figure in known for end in _ends(figure)])
    x = scale(ticks[0], ticks[-1], LEFT, RIGHT)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0])))
    for tick in ticks:
        plot.lines.append(Line(polyline([(x(tick), TOP), (x(tick), bottom)]), "grid"))
        plot.labels.append(Label(x(tick), bottom + 18, f"{tick:.{digits}f}"))
    bar = each.bar(metric)
    reference = None if bar is None else each.figure(bar, metric)
    if reference is not None:
        plot.lines.append(Line(polyline([(x(reference.value), TOP), (x(reference.value), bottom)]), "reference"))
    for number, (name, figure) in enumerate(known):
        _add_ranker(plot, name, figure, TOP + ROW * number, x(figure.value), [x(end) for end in _ends(figure)])
    return plot


def _add_ranker(plot: Plot, name: str, figure: Figure, top: float, value: float, ends: list[float]) -> None:
    """A line of text with the name and the number, and the interval below it."""
    color, middle = COLORS[family(name)], top + 23
    interval = f" [{figure.low:.4f}, {figure.high:.4f}]" if len(ends) > 1 else ""
    plot.lines.append(Line(polyline([(min(ends), middle), (max(ends), middle)]), color))
    plot.bars.append(
        Bar(round(value - 3.5, 2), middle - 3.5, 7, 7, f"{name}: {figure.value:.4f}{interval}", kind=color)
    )
    shown = name if len(name) <= 50 else name[:49] + "…"
    plot.labels.append(Label(LEFT, top + 12, shown, "start", f"name {color}", title=name))
    plot.labels.append(Label(RIGHT, top + 12, f"{figure.value:.4f}", "end", "value"))


def _ends(figure: Figure) -> list[float]:
    """The ends of the interval, or the figure itself."""
    return [figure.value] if figure.low is None or figure.high is None else [figure.low, figure.high]


def _ticks(values: list[float]) -> list[float]:
    """Four to eight round numbers around the values.

    >>> _ticks([0.512, 0.766])
    [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    width = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(width))
    step = next(part * power for part in (0.2, 0.25, 0.5, 1, 2) if width / (part * power) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
