"""The report of evaluations, from receipts alone: no data, no model; as Markdown, or as one HTML file with plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recbase_hf.evaluation.comparison import EvaluatedSet, Group, group_sets, is_lower_better, require_metric
from recbase_hf.evaluation.report_plot import plot_rankers
from recbase_hf.evaluation.report_tables import (
    SEEN,
    Cell,
    Table,
    circumstances_of,
    difference_table,
    markdown_table,
    metric_title,
    one_line,
    overview_table,
    set_table,
)
from recbase_hf.pages import Plot, render_page
from recbase_hf.version import __version__

__all__ = ["render_html", "render_markdown"]

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class _SetReport:
    """Of one receipt."""

    title: str
    table: Table
    circumstances: dict[str, str]
    plot: Plot


@dataclass(frozen=True)
class _GroupReport:
    """Of receipts that may be averaged; the tables across them are there where there are two or more."""

    title: str
    overview: Table | None
    differences: Table | None
    has_seen: bool
    sets: list[_SetReport]


def render_markdown(sets: Sequence[EvaluatedSet], metric: str = "gauc") -> str:
    """The report as Markdown that also reads well as plain text.

    Args:
        sets: from `read_sets`.
        metric: by which data sets are compared.

    Raises:
        DataError: a data set comes twice under one protocol and seed.
        ValueError: a receipt lacks the metric.
    """
    lines = ["# Evaluation report", "", _how_to_read(metric)]
    for group in _groups(sets, metric):
        lines += ["", f"## {one_line(group.title)}"]
        if group.overview is not None:
            lines += ["", f"### {metric_title(metric)} by data set", "", *_markdown(group.overview)]
        if group.differences is not None:
            lines += ["", f"### {metric_title(metric)}, difference to the bar", "", *_markdown(group.differences)]
        if group.has_seen:
            lines += ["", _seen_note()]
        for each in group.sets:
            lines += ["", f"### {one_line(each.title)}", "", *_markdown(each.table), ""]
            lines += [f"- {name}: {one_line(text)}" for name, text in each.circumstances.items()]
    return "\n".join(lines)


def render_html(sets: Sequence[EvaluatedSet], metric: str = "gauc") -> str:
    """The report as an HTML document, with a plot for each receipt.

    Args:
        sets: from `read_sets`.
        metric: by which data sets are compared, and that is plotted.

    Raises:
        DataError: a data set comes twice under one protocol and seed.
        ValueError: a receipt lacks the metric.
    """
    return render_page(
        "recbase_hf.evaluation",
        TEMPLATE,
        version=__version__,
        metric=metric_title(metric),
        how_to_read=_how_to_read(metric),
        seen_note=_seen_note(),
        num_receipts=len(sets),
        groups=_groups(sets, metric),
    )


def _groups(sets: Sequence[EvaluatedSet], metric: str) -> list[_GroupReport]:
    require_metric(sets, metric)
    return [_group(group, metric) for group in group_sets(sets)]


def _group(group: Group, metric: str) -> _GroupReport:
    several = len(group.sets) > 1
    return _GroupReport(
        title=group.title,
        overview=overview_table(group, metric) if several else None,
        differences=difference_table(group, metric) if several else None,
        has_seen=several and len(group.unseen) < len(group.sets),
        sets=[
            _SetReport(_title(each, label), set_table(each, metric), circumstances_of(each), plot_rankers(each, metric))
            for each, label in zip(group.sets, group.labels(), strict=True)
        ],
    )


def _title(each: EvaluatedSet, label: str) -> str:
    users = {row["users"] for row in each.receipt["rankers"]}
    return f"{label}: {' or '.join(f'{count:,}' for count in sorted(users))} users"


def _how_to_read(metric: str) -> str:
    better = ", of which less is better" if is_lower_better(metric) else ""
    return (
        "Figures stand with their 95 % bootstrap intervals over users. The bar is the best text similarity of a data "
        f"set by {metric_title(metric)}{better}: what a zero-shot model has to beat, chosen when all were known. "
        "Rankers of the name (target set) were fitted on interactions of the set itself."
    )


def _seen_note() -> str:
    return f"{SEEN.strip()} NOT zero-shot, or a mean with such figures: the model or its calibration saw the data set."


def _markdown(table: Table) -> list[str]:
    has_notes = any(row.notes for row in table.rows)
    lines = [["", *table.columns, *([""] if has_notes else [])]]
    for row in table.rows:
        lines.append([row.name, *map(_text, row.cells), *([", ".join(row.notes)] if has_notes else [])])
    return markdown_table(lines, flush_right=[False, *(True for _ in table.columns), *([False] if has_notes else [])])


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.small}".strip()
