"""The table of one receipt, for the terminal."""

from __future__ import annotations

from typing import Any

from recbase_hf.evaluation.comparison import is_lower_better
from recbase_hf.evaluation.report_tables import markdown_table, metric_title

__all__ = ["render_table"]


def render_table(receipt: dict[str, Any]) -> str:
    """The figures as a Markdown table that also reads well as plain text; `*` marks the best of the first metric.

    Args:
        receipt: from `write_receipt` or `read_receipt`.
    """
    rankers = receipt["rankers"]
    metrics = _main_metrics(receipt)
    values = [row["metrics"][metrics[0]]["value"] for row in rankers]
    better = min if is_lower_better(metrics[0]) else max
    best = better((value for value in values if value is not None), default=None)
    table = [["", f"{metric_title(metrics[0])} [95 % interval]", *map(metric_title, metrics[1:])]]
    for row in rankers:
        first, *others = (row["metrics"].get(metric, {}) for metric in metrics)
        mark = "*" if best is not None and first.get("value") == best else " "
        low, high = _number(first.get("low")), _number(first.get("high"))
        cells = [f"{_number(first.get('value'))}{mark} [{low}, {high}]"]
        table.append([row["name"], *cells, *(_number(figure.get("value")) for figure in others)])
    return "\n".join([_caption(receipt), "", *markdown_table(table, [False] + [True] * (len(table[0]) - 1))])


def _main_metrics(receipt: dict[str, Any]) -> list[str]:
    there = receipt["rankers"][0]["metrics"] if receipt["rankers"] else {}
    deepest = max(receipt["protocol"].get("ks", [1]))
    if "auc" in there:
        wanted = ["gauc", "auc", "mrr", "ndcg@3", "ndcg@5", "hit@1"]
    else:
        wanted = [
            f"ndcg@{deepest}",
            *(f"hit@{k}" for k in receipt["protocol"].get("ks", [])),
            "gauc",
            f"coverage@{deepest}",
        ]
    return [metric for metric in wanted if metric in there]


def _caption(receipt: dict[str, Any]) -> str:
    protocol, rankers, model = receipt["protocol"], receipt["rankers"], receipt["model"]
    users = f"{rankers[0]['users']:,}" if rankers else "no"
    competitors = f"{protocol['num_items']:,} items"
    if "num_candidates" in protocol:
        competitors = f"{protocol['num_candidates']} candidates"
    elif "num_rows" in protocol:
        competitors = f"{protocol['num_rows'] / max(protocol['num_users'], 1):.1f} candidates"
    seen = model is not None and model["was_trained_on_this_data"]
    return (
        f"{receipt['dataset']['name']}: {users} users, {competitors} each, protocol {protocol['name']}, "
        f"seed {protocol['seed']}" + (" (NOT zero-shot: the model was trained on this data set)" if seen else "")
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
