"""Finished runs as points of a scaling law, from the `training.json` that a bundle holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbase_hf.errors import DataError
from recbase_hf.files import read_json
from recbase_hf.planning.scaling_law import TrainedRun

__all__ = ["COUNTS", "read_runs"]

COUNTS = ("tokens", "data", "parameters")
"""By what runs differ: tokens trained on (every epoch counts), distinct tokens of the data, or parameters alone."""


def read_runs(folders: Sequence[str | Path], *, by: str = "tokens") -> list[TrainedRun]:
    """Read the runs, smallest first.

    The loss is that of the weights in the bundle: the last validation loss, or the best where the run kept the best.

    Args:
        folders: bundles, output folders of `recbase pretrain`, or `training.json` files.
        by: one of `COUNTS`.

    Raises:
        DataError: a folder is not of a finished language model, or lacks a validation loss; the tokenizers differ, so
            that losses cannot be compared; with `by="parameters"`, runs differ in tokens.
    """
    records = {path: _read(path) for path in map(_record_file, map(Path, folders))}
    tokenizers = {record["settings"].get("tokenizer") for record in records.values()}
    if len(tokenizers) > 1:
        raise DataError(
            f"the runs have {len(tokenizers)} different tokenizers, so their losses cannot be compared; "
            "name one tokenizer for all with recbase pretrain --tokenizer"
        )
    runs = [_run(path, record, by) for path, record in records.items()]
    tokens = [run.tokens for run in runs]
    if by == "parameters" and max(tokens) > 1.02 * min(tokens):
        raise DataError(
            f"the runs were trained on {min(tokens):,.0f} to {max(tokens):,.0f} tokens; a law in parameters alone "
            "needs the same for all: leave --by out, or leave runs out"
        )
    return sorted(runs, key=lambda run: (run.parameters, run.tokens))


def _record_file(path: Path) -> Path:
    candidates = [path] if path.is_file() else [path / "training.json", path / "model" / "training.json"]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise DataError(f"{path} holds no training.json; name the output folders of finished recbase pretrain runs")
    return found


def _read(path: Path) -> dict[str, Any]:
    record = read_json(path)
    missing = [name for name in ("settings", "parameters", "targets", "log") if name not in record]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it is not of a language model that recbase pretrain made")
    if not any("validation_loss" in entry for entry in record["log"]):
        raise DataError(f"{path} has no validation loss; train with a --validation-share above 0, or leave the run out")
    return record


def _run(path: Path, record: dict[str, Any], by: str) -> TrainedRun:
    settings = record["settings"]
    losses = [entry["validation_loss"] for entry in record["log"] if "validation_loss" in entry]
    return TrainedRun(
        name=_name(path),
        parameters=record["parameters"],
        tokens=record["targets"] if by == "data" else _tokens_trained_on(path, record),
        loss=min(losses) if settings.get("patience") else losses[-1],
    )


def _tokens_trained_on(path: Path, record: dict[str, Any]) -> float:
    settings = record["settings"]
    if "trained_targets" in record:
        return record["trained_targets"]
    if settings.get("patience"):
        raise DataError(f"{path} may have stopped early and does not say after how many tokens; use --by data")
    return record["targets"] * settings["epochs"]


def _name(path: Path) -> str:
    """The folder that the user gave the run."""
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "model" else folder.name
