"""`recbase merge`: an adapter and its base to one bundle."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbase_hf.bundle import bundle_file
from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import settings_of_training
from recbase_hf.config import option
from recbase_hf.files import read_json, require_writable
from recbase_hf.publishing.card_facts import is_trained

__all__ = ["COMMAND", "Merge", "merge"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merge:
    """Work an adapter into the weights of its base, and write a bundle that needs no adapter."""

    adapter: str = option(help="adapter: a folder that recbase finetune left, or a Hub id")
    output: str = option(help="folder for the bundle")
    model: str | None = option(
        None, help="the base: a bundle, folder or Hub id; default the one that the adapter names"
    )


def merge(options: Merge) -> Path:
    """Merge and save; returns the folder.

    Raises:
        FileExistsError: the folder holds something.
        FingerprintMismatchError: the adapter belongs to another base.
        FileNotFoundError: there is no such adapter, or no such base.
        ValueError: a file is damaged.
    """
    from recbase_hf.adapters import merged_bundle
    from recbase_hf.bundle import save_bundle

    folder = Path(options.output)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something already; name another --output, or delete it")
    require_writable(folder)
    model, tokenizer, base = merged_bundle(options.adapter, options.model)
    save_bundle(folder, model, tokenizer, record=_record(options.adapter, base))
    return folder


def _record(adapter: str, base: str) -> dict[str, Any]:
    """How the merged weights came about: all that base and adapter have learned from."""
    from recbase_hf.adapters import RECORD

    path = bundle_file(adapter, RECORD)
    record = {} if path is None else read_json(path)
    settings, before = dict(record.get("settings") or {}), settings_of_training(base)
    for name in ("data", "items"):
        settings[name] = {**(before.get(name) or {}), **(settings.get(name) or {})}
    for name in ("tokenizer_data", "tokenizer_items"):
        settings.setdefault(name, before.get(name) or {})
    settings.setdefault("base_data", before.get("data") or {})
    return {**record, "settings": settings, "base_trained": is_trained(base), "merged": True}


def run(options: Merge) -> Answer:
    """Merge, and say where the bundle is."""
    folder = merge(options)
    text = f"bundle in {folder}; it has no calibration, which recbase calibrate fits"
    return Answer(text, {"bundle": str(folder)})


COMMAND = Command("merge", Merge, run)
