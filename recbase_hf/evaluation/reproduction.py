"""Whether an evaluation that was run once more gives what its receipt says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from recbase_hf.evaluation.comparison import EvaluatedSet
from recbase_hf.evaluation.figures import Figure
from recbase_hf.evaluation.report_tables import markdown_table, metric_title

__all__ = ["EQUAL", "INSIDE", "NEAR", "OUTSIDE", "Comparison", "compare", "render_comparisons"]

EQUAL, INSIDE, NEAR, OUTSIDE = "equal", "inside the interval", "within 1 %", "OUTSIDE"


@dataclass(frozen=True)
class Comparison:
    """One figure of a receipt, and the same of a rerun.

    Attributes:
        ranker: its name.
        metric: as receipts call it.
        before: what the receipt says; None where it has no number.
        after: what came out now; None where nothing did.
    """

    ranker: str
    metric: str
    before: Figure | None
    after: float | None

    @property
    def verdict(self) -> str:
        """`EQUAL` but for rounding, `INSIDE` the receipt's interval, `NEAR` a figure without one, or `OUTSIDE`.

        >>> Comparison("random", "gauc", Figure(0.5, 0.49, 0.51), 0.505).verdict
        'inside the interval'
        """
        if self.before is None or self.after is None:
            return EQUAL if self.before is None and self.after is None else OUTSIDE
        if math.isclose(self.after, self.before.value, rel_tol=1e-9, abs_tol=1e-12):
            return EQUAL
        if self.before.low is None or self.before.high is None:
            return NEAR if math.isclose(self.after, self.before.value, rel_tol=0.01) else OUTSIDE
        return INSIDE if self.before.low <= self.after <= self.before.high else OUTSIDE


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[Comparison]:
    """Every figure of a receipt against that of its rerun; what only the rerun has is left out.

    Args:
        before: a receipt.
        after: another of the same data set.
    """
    first, second = EvaluatedSet("", before), EvaluatedSet("", after)
    found = []
    for row in before["rankers"]:
        for metric in row["metrics"]:
            figure = second.figure(row["name"], metric)
            found.append(Comparison(row["name"], metric, first.figure(row["name"], metric), figure and figure.value))
    return found


def render_comparisons(comparisons: list[Comparison]) -> str:
    """A Markdown table with a line for each figure."""
    lines = [["", "metric", "receipt [95 % interval]", "now", ""]]
    for each in comparisons:
        lines.append([each.ranker, metric_title(each.metric), _figure(each.before), _number(each.after), each.verdict])
    return "\n".join(markdown_table(lines, flush_right=[False, False, True, True, False]))


def _figure(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return _number(figure and figure.value)
    return f"{_number(figure.value)} [{_number(figure.low)}, {_number(figure.high)}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}"
