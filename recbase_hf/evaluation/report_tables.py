"""The tables of an evaluation report: what stands in each cell, whatever they are rendered as."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbase_hf.evaluation.comparison import BAR, FITTED, MODEL, EvaluatedSet, Group, is_bar, is_lower_better, shown
from recbase_hf.evaluation.figures import Figure

__all__ = [
    "Cell",
    "Row",
    "Table",
    "circumstances_of",
    "difference_table",
    "family",
    "markdown_table",
    "metric_title",
    "one_line",
    "overview_table",
    "set_table",
]

ABSENT = "–"
SEEN = " †"
"""Marks figures that are not zero-shot among those that are."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Cell:
    """A figure; `small` is its 95 % interval, or what else is said in small print."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; `notes` are said of all of it, `family` is the kind of ranker."""

    name: str
    cells: list[Cell]
    notes: list[str] = field(default_factory=list)
    family: str = ""


@dataclass(frozen=True)
class Table:
    """Rows, and the titles of their cells."""

    columns: list[str]
    rows: list[Row]


def set_table(each: EvaluatedSet, metric: str) -> Table:
    """The main metrics of all rankers on one data set, with the bar and the best zero-shot row by `metric` marked."""
    metrics = _main_metrics(each, metric)
    rows = []
    for content in each.receipt["rankers"]:
        ranker = content["name"]
        first, *others = (_figure_cell(each.figure(ranker, name)) for name in metrics)
        gap = Cell(_signed(each.to_the_bar(ranker, metric)))
        cells = [first, gap, *others, Cell(f"{content['seconds']:,.1f}")]
        rows.append(Row(ranker, cells, _notes(each, ranker, metric), family(ranker)))
    return Table([metric_title(metrics[0]), "to the bar", *map(metric_title, metrics[1:]), "seconds"], rows)


def overview_table(group: Group, metric: str) -> Table:
    """One metric of all rankers: its means over the data sets, and on each of them."""
    rows = []
    for ranker in group.rankers:
        figures = {each.place: each.figure(ranker, metric) for each in group.sets}
        values = {place: figure and figure.value for place, figure in figures.items()}
        means = [Cell(_number(_mean(values, sets), _mark(sets, ranker))) for sets in _averaged(group).values()]
        cells = [_figure_cell(figures[each.place], _mark([each], ranker)) for each in group.sets]
        rows.append(Row(ranker, [*means, *cells], family=family(ranker)))
    return Table([*_averaged(group), *group.labels()], rows)


def difference_table(group: Group, metric: str) -> Table | None:
    """The bar, and how far each RecBase row is from it: means, and on each data set; None without either."""
    rankers = [ranker for ranker in group.rankers if ranker.startswith(MODEL)]
    bars = {each.place: each.bar(metric) for each in group.sets}
    if not rankers or not any(bars.values()):
        return None
    rows = [_bar_row(group, metric, bars)]
    sign = -1 if is_lower_better(metric) else 1
    for ranker in rankers:
        gaps = {each.place: each.to_the_bar(ranker, metric) for each in group.sets}
        known = [gap for gap in gaps.values() if gap is not None]
        better = Cell(f"{sum(sign * gap > _ROUNDING for gap in known)} of {len(known)}")
        means = [Cell(_signed(_mean(gaps, sets), _mark(sets, ranker))) for sets in _averaged(group).values()]
        cells = [Cell(_signed(gaps[each.place], _mark([each], ranker))) for each in group.sets]
        rows.append(Row(ranker, [*means, better, *cells], family=family(ranker)))
    return Table([*_averaged(group), "better than the bar", *group.labels()], rows)


def circumstances_of(each: EvaluatedSet) -> dict[str, str]:
    """All that a receipt says of how its figures came about, by what it is about."""
    receipt = each.receipt
    data, model = receipt["dataset"], receipt["model"]
    facts = {
        "receipt": f"{Path(each.place).name}, {receipt['date']}",  # a report is shown to people elsewhere
        "data": _pairs(data),
        "seed": shown(receipt["protocol"]["seed"]),
        "protocol": _pairs({name: value for name, value in receipt["protocol"].items() if name != "seed"}),
        "model": "none, baselines alone",
    }
    if model is not None:
        facts["model"] = _pairs({part: model.get(part) for part in ("name", "fingerprint", "weights")})
        facts["tokenizer from"] = _pairs(model.get("tokenizer_data") or {})
        facts["trained on"] = _pairs(model.get("training_data") or {})
        calibration = dict(model.get("calibration") or {})
        fitted_on = calibration.pop("fitted_on", {})
        facts["calibration"] = f"{_pairs(calibration)}; fitted on {_pairs(fitted_on)}" if calibration else "none"
    return {
        **facts,
        "versions": _pairs(receipt["versions"]),
        "hardware": _pairs(receipt["hardware"]),
        "command": receipt["command"],
        "seconds": f"{receipt['seconds']:,.1f}",
    }


def family(ranker: str) -> str:
    """What kind of ranker it is: `model`, `text`, `fitted` or `other`.

    >>> family("RecBase joint"), family("EASE (target set)")
    ('model', 'fitted')
    """
    if ranker.endswith(FITTED):
        return "fitted"
    if ranker.startswith(MODEL):
        return "model"
    return "text" if is_bar(ranker) else "other"


def metric_title(metric: str) -> str:
    """A metric as it is written in tables.

    >>> metric_title("ndcg@3"), metric_title("semantic_id_hit@1"), metric_title("log_loss")
    ('NDCG@3', 'semantic ID hit@1', 'log-loss')
    """
    words = {"gauc": "GAUC", "auc": "AUC", "mrr": "MRR", "ndcg": "NDCG", "log_loss": "log-loss"}
    name, at, cut_off = metric.partition("@")
    of_ids = name.startswith("semantic_id_")
    name = name.removeprefix("semantic_id_")
    return ("semantic ID " if of_ids else "") + words.get(name, name.replace("_", " ")) + at + cut_off


def markdown_table(lines: Sequence[Sequence[str]], flush_right: Sequence[bool]) -> list[str]:
    """A table, the first line its head, that also reads well as plain text.

    Args:
        lines: of cells.
        flush_right: a column each.

    >>> markdown_table([["", "GAUC"], ["random", "0.5"]], [False, True])
    ['|        | GAUC |', '|--------|-----:|', '| random |  0.5 |']
    """
    lines = [[one_line(cell).replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, flush_right, strict=True)]
    header, *rows = [
        " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, flush_right, strict=True)
        )
        for line in lines
    ]
    return [f"| {header} |", f"|{'|'.join(rules)}|", *(f"| {row} |" for row in rows)]


def one_line(text: str) -> str:
    """Names come from users' folders and commands; in Markdown none may break a line or become HTML."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return re.sub(r"<(?=[a-zA-Z/!?])", r"\\<", line)


def _main_metrics(each: EvaluatedSet, metric: str) -> list[str]:
    ks = sorted(each.receipt["protocol"].get("ks", (1,)))
    wanted = ("gauc", "auc", "mrr", f"ndcg@{ks[-1]}", f"hit@{ks[0]}", f"hit@{ks[-1]}", f"coverage@{ks[-1]}")
    there = {name for row in each.receipt["rankers"] for name in row["metrics"]}
    return [metric, *(name for name in dict.fromkeys(wanted) if name in there and name != metric)]


def _notes(each: EvaluatedSet, ranker: str, metric: str) -> list[str]:
    notes = [
        "the bar" if ranker == each.bar(metric) else None,
        "best zero-shot" if ranker == each.best_zero_shot(metric) else None,
        each.objection(ranker),
    ]
    return [note for note in notes if note]


def _bar_row(group: Group, metric: str, bars: dict[str, str | None]) -> Row:
    """The best text similarity of each data set, and which one it is."""
    figures = {each.place: each.figure(bars[each.place] or "", metric) for each in group.sets}
    values = {place: figure and figure.value for place, figure in figures.items()}
    means = [Cell(_number(_mean(values, sets))) for sets in _averaged(group).values()]
    cells = [Cell(_number(value), (bars[place] or "").removeprefix(f"{BAR}: ")) for place, value in values.items()]
    return Row("the bar", [*means, Cell(""), *cells], family="text")


def _averaged(group: Group) -> dict[str, list[EvaluatedSet]]:
    """Over which sets there are means, by the title of the column."""
    averaged = {f"mean of {len(group.sets)}": group.sets}
    if 0 < len(group.unseen) < len(group.sets):
        averaged[f"mean of the {len(group.unseen)} unseen"] = group.unseen
    return averaged


def _mark(sets: Sequence[EvaluatedSet], ranker: str) -> str:
    return SEEN if ranker.startswith(MODEL) and any(each.objection(ranker) for each in sets) else ""


def _mean(values: Mapping[str, float | None], sets: Sequence[EvaluatedSet]) -> float | None:
    """Of the values by place; None where one is missing, because means over different sets do not compare."""
    known = [value for value in (values[each.place] for each in sets) if value is not None]
    return sum(known) / len(known) if len(known) == len(sets) else None


def _figure_cell(figure: Figure | None, mark: str = "") -> Cell:
    if figure is None:
        return Cell(ABSENT)
    has_interval = figure.low is not None and figure.high is not None
    return Cell(_number(figure.value, mark), f"[{figure.low:.4f}, {figure.high:.4f}]" if has_interval else "")


def _number(value: float | None, mark: str = "") -> str:
    return ABSENT if value is None else f"{value:.4f}{mark}"


def _signed(value: float | None, mark: str = "") -> str:
    return ABSENT if value is None else f"{value:+.4f}{mark}"


def _pairs(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in facts.items()) or "unknown"
