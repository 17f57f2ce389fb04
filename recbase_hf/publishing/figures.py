"""Figures of a card, from receipts alone: a table with intervals, and the Hub's `model-index`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbase_hf.errors import PublishingError
from recbase_hf.evaluation.comparison import MODEL, EvaluatedSet
from recbase_hf.evaluation.figures import Figure
from recbase_hf.evaluation.receipts import read_receipt

__all__ = ["figures_in_words", "model_index", "read_receipts", "receipt_name"]

WHOLE_LISTS = ("gauc", "auc", "mrr")
AT_A_CUT_OFF = ("ndcg", "recall")
RANDOM, POPULARITY, ADAPTED = "random", "popularity", "text similarity and popularity, adapted"


def read_receipts(places: Sequence[str | Path], *, fingerprint: str, weights: str) -> list[EvaluatedSet]:
    """Receipts of evaluations of one model.

    Args:
        places: files, or folders of them.
        fingerprint: of the model's tokenizer.
        weights: of the model, by `recbase_hf.bundle.hash_of_weights`.

    Raises:
        PublishingError: a receipt is of another model, or a figure is missing; says which.
        DataError: a file is not a receipt.
    """
    files = [file for place in places for file in _files(Path(place))]
    sets = [EvaluatedSet(str(file), read_receipt(file)) for file in files]
    for each in sets:
        model = each.receipt["model"] or {}
        if model.get("fingerprint") != fingerprint or model.get("weights") != weights:
            raise PublishingError(
                f"{each.place} is a receipt of another model (fingerprint {model.get('fingerprint')}, weights "
                f"{model.get('weights')}) than this one (fingerprint {fingerprint}, weights {weights}); evaluate this "
                "one with recbase evaluate"
            )
        for ranker in _own_rankers(each):
            for metric in _metrics(each):
                _required_figure(each, ranker, metric)
    return sets


def receipt_name(each: EvaluatedSet) -> str:
    """What the receipt is called in a repository."""
    protocol = each.receipt["protocol"]
    name = f"{each.name}-{protocol['name']}-seed-{protocol.get('seed', 0)}"
    return re.sub(r"[^\w.-]+", "-", name) + ".json"


def figures_in_words(sets: Sequence[EvaluatedSet]) -> str:
    """Markdown: a table for each receipt, the model beside what it is held against."""
    return "\n\n".join(_section(each) for each in sets)


def model_index(name: str, sets: Sequence[EvaluatedSet], *, repo_id: str | None) -> list[dict[str, Any]]:
    """The figures of the model's own rows as the Hub has them in a card's metadata, each with its interval.

    Args:
        name: of the model.
        sets: what was evaluated.
        repo_id: of the repository that will hold the receipts.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = []
    for each in sets:
        protocol = each.receipt["protocol"]
        source: dict[str, Any] = {}
        if repo_id is not None:
            url = f"https://huggingface.co/{repo_id}/blob/main/receipts/{receipt_name(each)}"
            source = {"source_name": "receipt", "source_url": url}
        for ranker in _own_rankers(each):
            for metric in _metrics(each):
                value, low, high = _required_figure(each, ranker, metric)
                results.append(
                    EvalResult(
                        task_type="recommendation",
                        task_name=f"{protocol['name']}, {_named(each, ranker)}",
                        dataset_type=each.name,
                        dataset_name=each.name,
                        dataset_config=f"{ranker}, seed {protocol.get('seed', 0)}",
                        dataset_revision=each.hash,
                        metric_type=metric,
                        metric_name=_shown_metric(metric),
                        metric_value=round(value, 6),
                        metric_args={"interval_95": [round(low, 6), round(high, 6)]},
                        **source,
                    )
                )
    return eval_results_to_model_index(name, results) if results else []


# ---- parts -----------------------------------------------------------------------------------------------------------


def _section(each: EvaluatedSet) -> str:
    metrics, protocol = _metrics(each), each.receipt["protocol"]
    rows = [*_own_rankers(each)]
    bar = each.bar(metrics[0])
    # What needs no model stands beside the model's rows, also where it is better than they are.
    rows += [ranker for ranker in each.rankers if ranker in (bar, ADAPTED) or ranker.startswith((RANDOM, POPULARITY))]
    ranked = protocol.get("num_candidates") or protocol["num_items"]
    lines = [
        f"**{each.name}**, protocol {protocol['name']}, {protocol['num_users']:,} users, "
        f"{ranked:,} items to rank each, seed {protocol.get('seed', 0)} "
        f"([receipt](receipts/{receipt_name(each)})); in brackets the 95 % interval, bootstrapped over users:",
        "",
        "| | " + " | ".join(map(_shown_metric, metrics)) + " |",
        "|---|" + "---|" * len(metrics),
    ]
    for ranker in rows:
        cells = [_cell(each.figure(ranker, metric)) for metric in metrics]
        lines.append(f"| {_named(each, ranker)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _named(each: EvaluatedSet, ranker: str) -> str:
    """A row of the model with what speaks against calling it zero-shot."""
    objection = each.objection(ranker) if ranker.startswith(MODEL) else None
    return f"{ranker} ({objection})" if objection else ranker


def _files(place: Path) -> list[Path]:
    return sorted(place.glob("*.json")) if place.is_dir() else [place]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "not measured"
    interval = "" if figure.low is None or figure.high is None else f" [{figure.low:.4f}, {figure.high:.4f}]"
    return f"{figure.value:.4f}{interval}"


def _own_rankers(each: EvaluatedSet) -> list[str]:
    return [ranker for ranker in each.rankers if ranker.startswith(MODEL)]


def _metrics(each: EvaluatedSet) -> list[str]:
    """Those that are shown: over whole lists, and at the protocol's largest cut-off."""
    names = {name for row in each.receipt["rankers"] if row["name"].startswith(MODEL) for name in row["metrics"]}
    ks = [int(name.partition("@")[2]) for name in names if name.startswith("ndcg@")]
    wanted = [*WHOLE_LISTS, *(f"{name}@{max(ks)}" for name in AT_A_CUT_OFF if ks)]
    return [name for name in wanted if name in names or name == WHOLE_LISTS[0]]


def _required_figure(each: EvaluatedSet, ranker: str, metric: str) -> tuple[float, float, float]:
    figure = each.figure(ranker, metric)
    if figure is None or figure.low is None or figure.high is None:
        what = "figure" if figure is None else "interval"
        raise PublishingError(
            f"{each.place}: the {what} {_shown_metric(metric)} of {ranker!r} is missing; evaluate again with recbase "
            "evaluate, or leave this receipt out"
        )
    return figure.value, figure.low, figure.high


def _shown_metric(metric: str) -> str:
    name, at, cut_off = metric.partition("@")
    return (name if name == "recall" else name.upper()) + at + cut_off
