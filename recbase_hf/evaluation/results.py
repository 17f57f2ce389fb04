"""The JSON receipt that says how figures came about, and the table that is printed from it."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from recbase_hf.errors import DataError
from recbase_hf.evaluation.figures import Figures
from recbase_hf.files import read_json, write_json
from recbase_hf.version import __version__

__all__ = ["circumstances", "read_results", "render_table", "write_results"]

FORMAT_VERSION = 1
_PACKAGES = ("torch", "transformers", "datasets", "sentence-transformers", "numpy")


def write_results(
    path: str | Path,
    *,
    figures: Sequence[Figures],
    dataset: dict[str, Any],
    protocol: dict[str, Any],
    model: dict[str, Any],
    command: str,
    seconds: float,
) -> dict[str, Any]:
    """Write a receipt: the figures, and all that is needed to judge and remake them.

    Args:
        path: of the JSON file.
        figures: in the order of the table.
        dataset: its `name`, hash and counts.
        protocol: `candidate_set.settings`.
        model: its fingerprint and what it was trained on.
        command: what was run, `shlex.join(sys.argv)`; absolute paths in it are cut down to names, because where files
            lie on one machine is nobody else's business.
        seconds: how long it took.

    Returns:
        What `read_results` will read: keys are strings, figures that do not exist (nan) are None.
    """
    results: dict[str, Any] = _to_json(
        {
            "format_version": FORMAT_VERSION,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "dataset": dataset,
            "protocol": protocol,
            "model": model,
            "figures": [asdict(row) for row in figures],
            **circumstances(command, seconds),
        }
    )
    write_json(path, results)
    return results


def circumstances(command: str, seconds: float) -> dict[str, Any]:
    """What a receipt says about the run itself: command, seconds, versions and hardware.

    Args:
        command: `shlex.join(sys.argv)`; absolute paths in it are cut down to names.
        seconds: how long it took.
    """
    return {
        "command": _without_folders(command),
        "seconds": round(seconds, 3),
        "versions": _versions(),
        "hardware": _hardware(),
    }


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a receipt back.

    Raises:
        DataError: it is not a receipt, or a newer recbase-hf wrote it.
        ValueError: it is not JSON.
    """
    results = read_json(path)
    if not isinstance(results, dict) or not isinstance(results.get("format_version"), int) or "figures" not in results:
        raise DataError(f"{path} is not a results file: format_version or figures is missing; make it again")
    if results["format_version"] > FORMAT_VERSION:
        raise DataError(f"{path} was written by a newer recbase-hf; upgrade with: pip install -U recbase-hf")
    return results


def render_table(results: dict[str, Any]) -> str:
    """The figures as a Markdown table that also reads well as plain text; `*` marks the best GAUC.

    Args:
        results: from `write_results` or `read_results`.
    """
    figures = results["figures"]
    deepest = max((int(k) for row in figures for k in row["ndcg"]), default=1)
    shallowest = min((int(k) for row in figures for k in row["recall"]), default=1)
    best = max((row["gauc"] for row in figures if row["gauc"] is not None), default=None)
    table = [["", "AUC", "GAUC [95 % interval]", "MRR", f"NDCG@{deepest}", f"Recall@{shallowest}"]]
    for row in figures:
        low, high = (_number(end) for end in row["gauc_interval"])
        mark = "*" if row["gauc"] is not None and row["gauc"] == best else " "
        gauc = f"{_number(row['gauc'])}{mark} [{low}, {high}]"
        ndcg, recall = row["ndcg"].get(str(deepest)), row["recall"].get(str(shallowest))
        table.append([row["name"], _number(row["auc"]), gauc, _number(row["mrr"]), _number(ndcg), _number(recall)])
    return "\n".join([_caption(results), "", *_markdown(table)])


def _caption(results: dict[str, Any]) -> str:
    protocol, figures = results["protocol"], results["figures"]
    users = f"{figures[0]['scored_users']:,}" if figures else "no"
    seen = results["model"].get("was_trained_on_this_data")
    return (
        f"{results['dataset'].get('name', 'unnamed data set')}: {users} users, "
        f"{protocol.get('num_candidates', 'unknown number of')} candidates each, "
        f"protocol {protocol.get('name', 'unnamed')}, seed {protocol.get('seed', 'unknown')}"
        + (" (NOT zero-shot: the model was trained on this data set)" if seen else "")
    )


def _markdown(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    header, *rows = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in table
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return [header, rule, *rows]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _to_json(value: Any) -> Any:
    """`value` as JSON would give it back; JSON knows neither NaN nor NumPy's numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _to_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_folders(command: str) -> str:
    words = []
    for word in shlex.split(command):
        flag, equals, value = word.rpartition("=")
        words.append(flag + equals + (Path(value).name or value if Path(value).is_absolute() else value))
    return shlex.join(words)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "recbase-hf": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    return {"processor": _processor(), "cpus": os.cpu_count(), "accelerator": _accelerator()}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # on Linux, platform.processor() knows the architecture at best
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    torch: Any = sys.modules.get("torch")  # without torch nothing ran on one
    if torch is None or not torch.accelerator.is_available():
        return None
    kind = torch.accelerator.current_accelerator().type
    name_of = getattr(getattr(torch, kind), "get_device_name", lambda: kind)
    return str(name_of())
