"""The JSON receipt that says how figures came about."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recbase_hf.errors import DataError
from recbase_hf.evaluation.run import RankerFigures
from recbase_hf.files import read_json, write_json
from recbase_hf.version import __version__

__all__ = ["circumstances", "read_receipt", "without_folder", "write_receipt"]

FORMAT_VERSION = 2
_PACKAGES = ("torch", "transformers", "datasets", "pyarrow", "sentence-transformers", "numpy", "scipy")


def write_receipt(
    path: str | Path,
    *,
    rankers: Sequence[RankerFigures],
    dataset: dict[str, Any],
    protocol: dict[str, Any],
    model: dict[str, Any] | None,
    options: dict[str, Any],
    command: str,
    seconds: float,
) -> dict[str, Any]:
    """Write a receipt: the figures, and all that is needed to judge and remake them.

    Args:
        path: of the JSON file.
        rankers: in the order of the table.
        dataset: its `name`, hashes and counts.
        protocol: the settings of the task.
        model: its fingerprints, what it was trained and calibrated on; None where only baselines were evaluated.
        options: of the command; absolute paths in them are cut down to names, because where files lie on one machine
            is nobody else's business.
        command: what was run, `shlex.join(sys.argv)`; likewise.
        seconds: how long it took.

    Returns:
        What `read_receipt` will read.
    """
    receipt = {
        "format_version": FORMAT_VERSION,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "dataset": dataset,
        "protocol": protocol,
        "model": model,
        "rankers": [{**ranker.figures.to_json(), "seconds": round(ranker.seconds, 3)} for ranker in rankers],
        "options": {name: without_folder(value) for name, value in options.items()},
        **circumstances(command, seconds),
    }
    write_json(path, receipt)
    return read_receipt(path)


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


def read_receipt(path: str | Path) -> dict[str, Any]:
    """Read a receipt back.

    Raises:
        DataError: it is not a receipt, or another recbase-hf wrote it.
        ValueError: it is not JSON.
    """
    receipt = read_json(path)
    if not isinstance(receipt, dict) or not isinstance(receipt.get("format_version"), int):
        raise DataError(f"{path} is not a receipt: format_version is missing; make it again with recbase evaluate")
    if receipt["format_version"] > FORMAT_VERSION:
        raise DataError(f"{path} was written by a newer recbase-hf; upgrade with: pip install -U recbase-hf")
    if receipt["format_version"] < FORMAT_VERSION or "rankers" not in receipt:
        raise DataError(f"{path} was written by an older recbase-hf; make it again with recbase evaluate")
    return receipt


def without_folder(value: Any) -> Any:
    """An option as receipts hold it: of an absolute path its name."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


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
