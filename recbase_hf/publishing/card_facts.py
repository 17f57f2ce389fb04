"""What the card templates are filled with, read from the folder that is published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbase_hf.bundle import bundle_file
from recbase_hf.files import read_json
from recbase_hf.publishing.kinds import Kind

__all__ = ["base_of", "facts_of", "fingerprint_of", "is_trained", "is_tuned", "quoted_settings", "training_time"]

_NOT_SETTINGS = {
    *("data", "items", "rows", "tokenizer", "tokenizer_data", "tokenizer_items", "vector_files"),
    *("base", "base_data", "trust_remote_code"),
}


def facts_of(kind: Kind, folder: Path) -> dict[str, Any]:
    """Variables of the kind's template.

    Raises:
        ValueError: a file is damaged.
    """
    readers = {
        "tokenizer": _tokenizer,
        "adapter": _adapter,
        "catalog": _catalog,
        "data set": _data_set,
        "bundle": _bundle,
    }
    return readers[kind.name](folder)


def fingerprint_of(folder: str | Path) -> str | None:
    """Of the tokenizer that is in a folder, or that it was made with; None where it does not say."""
    folder = Path(folder)
    recorded = base_of(folder).get("fingerprint")
    if recorded and (folder / "adapter_config.json").is_file():
        return str(recorded)
    for name in ("catalog.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name).get("fingerprint")
            return None if value is None else str(value)
    return None


def base_of(folder: str | Path) -> dict[str, Any]:
    """What `training.json` says of the bundle that was fine-tuned, if any: `name`, `fingerprint` and `weights`."""
    record = Path(folder) / "training.json"
    return (read_json(record).get("base") or {}) if record.is_file() else {}


def is_tuned(folder: str | Path) -> bool:
    """Whether a bundle's weights are those of another one that was fine-tuned, or merged with an adapter."""
    record = Path(folder) / "training.json"
    return record.is_file() and not {"base", "merged"}.isdisjoint(read_json(record))


def is_trained(name_or_path: str | Path) -> bool:
    """Whether a bundle's weights have learned from anything, by its `training.json`: in their own training, or before.

    Args:
        name_or_path: of the bundle: a folder, a Hub id, or one that comes with the package.

    Raises:
        OSError: there is no such folder.
    """
    path = bundle_file(name_or_path, "training.json")
    if path is None:
        return False
    record = read_json(path)
    # Records of early versions count no targets; they are of trainings, which say nothing of a base.
    return bool(record.get("base_trained") or record.get("trained_targets", "base_trained" not in record))


def quoted_settings(settings: Mapping[str, Any]) -> str:
    """The settings of a training as the YAML that `--config` reads; what names data or is a hash is left out."""
    import yaml

    kept = {
        name: value
        for name, value in settings.items()
        if name not in _NOT_SETTINGS and not isinstance(value, Mapping) and value not in (None, [], ())
    }
    return str(yaml.safe_dump(kept, sort_keys=True, default_flow_style=None)).strip()


def training_time(folder: Path, run: Path | None, *, watts: float | None, hardware: str | None) -> str:
    """Sentences on time and energy of a training.

    Args:
        folder: the bundle.
        run: where the trainer left `speed.jsonl`; by default where `recbase pretrain` leaves it beside the bundle.
        watts: what all machines together drew, as whoever trained states it.
        hardware: what it ran on, in words.
    """
    import numpy as np

    path = (run or folder.parent / "training" / folder.name) / "speed.jsonl"
    record = read_json(folder / "training.json") if (folder / "training.json").is_file() else {}
    # All that was trained on, also after the step whose weights were kept.
    targets = max((entry.get("trained_targets", 0) for entry in record.get("log", [])), default=0)
    targets = targets or record.get("trained_targets")
    if not path.is_file() or not targets:
        return "Neither was recorded with these weights."
    entries = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.endswith("}"):  # an interrupted run may leave half a line
            entry = json.loads(line)
            entries[entry["step"]] = entry
    speeds = [entry["tokens_per_second"] for entry in entries.values() if "tokens_per_second" in entry]
    if not speeds:
        return "Neither was recorded with these weights."
    speed = float(np.median(speeds))
    hours = targets / speed / 3600
    on = f" on {hardware}" if hardware else ""
    words = (
        f"About {_hours(hours)} of training{on}: {targets:,} predicted tokens at {speed:,.0f} a second, the median of "
        "the log."
    )
    if watts is None:
        return f"{words} The power was not measured."
    return f"{words} At {watts:g} W, as stated by whoever trained, that is about {_energy(hours * watts)}."


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"


def _energy(watt_hours: float) -> str:
    return f"{watt_hours / 1000:,.2f} kWh" if watt_hours >= 100 else f"{watt_hours:,.2f} Wh"


# ---- kinds -----------------------------------------------------------------------------------------------------------


def _bundle(folder: Path) -> dict[str, Any]:
    return {"config": read_json(folder / "config.json"), **_tokenizer(folder)}


def _tokenizer(folder: Path) -> dict[str, Any]:
    config, quantizer = read_json(folder / "tokenizer_config.json"), read_json(folder / "quantizer_config.json")
    template = config.get("item_template") or {}
    return {
        "encoder": config.get("text_encoder"),
        "encoder_revision": config.get("text_encoder_revision"),
        "fields": template.get("fields"),
        "collisions": config.get("collisions", "keep"),
        "fingerprint": config.get("fingerprint"),
        "quantizer": quantizer.get("model_type"),
        "levels": quantizer["num_levels"] + (config.get("collisions") == "digit"),
        "codebook_size": _codebook_size(quantizer),
        "width": quantizer["input_dim"],
    }


def _codebook_size(quantizer: Mapping[str, Any]) -> int:
    if "codebook_size" in quantizer:  # all kinds but those whose codes are points of a grid
        return int(quantizer["codebook_size"])
    from recbase_hf.auto import quantizer_config

    settings = {name: value for name, value in quantizer.items() if name not in ("format_version", "model_type")}
    return int(quantizer_config(quantizer["model_type"], **settings).codebook_size)


def _adapter(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "adapter_config.json")
    record = read_json(folder / "training.json") if (folder / "training.json").is_file() else {}
    weights = folder / "adapter_model.safetensors"
    modules = config.get("target_modules") or []
    return {
        "method": config.get("peft_type"),
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "modules": sorted(modules) if isinstance(modules, list) else [modules],
        "new_rows": _count_rows(config.get("trainable_token_indices")),
        "size": f"{weights.stat().st_size / 1e6:,.2f} MB" if weights.is_file() else None,
        "record": record,
    }


def _count_rows(indices: Any) -> int:
    """Of `trainable_token_indices`: a list, or one list a layer."""
    lists = indices.values() if isinstance(indices, dict) else [indices or []]
    return max((len(rows) for rows in lists), default=0)


def _catalog(folder: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    facts = read_json(folder / "catalog.json")
    codes = pq.read_schema(folder / "items.parquet").field("codes").type
    return {
        "items": f"{facts['num_items']:,}",
        "levels": codes.list_size,
        "codebook_size": facts["codebook_size"],
        "encoder": facts.get("text_encoder"),
        "encoder_revision": facts.get("text_encoder_revision"),
        "fingerprint": facts["fingerprint"],
    }


def _data_set(folder: Path) -> dict[str, Any]:
    from recbase_hf.data.table_sources import find_table
    from recbase_hf.data.tables import read_interactions, read_items

    record = read_json(folder / "dataset.json") if (folder / "dataset.json").is_file() else {}
    tables = []
    for name, read in (("items", read_items), ("interactions", read_interactions)):
        table = read(folder)
        path = find_table(folder, name)
        tables.append((name, path.name if path else name, f"{len(table):,}", ", ".join(table.column_names)))
    return {"tables": tables, "record": record}
