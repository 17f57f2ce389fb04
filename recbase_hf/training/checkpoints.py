"""Training state without pickles: weights and optimizer moments in safetensors, everything else in JSON.

The random state needs no saving, because every step seeds its generators from (seed, step, process).
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from recbase_hf.files import atomic_folder, read_json, write_json
from recbase_hf.progress import is_main_process

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint"]

# `flatten_optimizer_state_dict` would spare us the flattening, but torch 2.13 cannot load a full state dict made so.
_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save_checkpoint(
    folder: str | Path,
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    settings: dict[str, Any] | None = None,
    keep: int = 2,
) -> None:
    """Write `folder/step-00000042` whole or not at all, then drop all but the `keep` newest. Call on every process.

    Args:
        state: JSON content to come back as it is (data position, history).
        settings: JSON content that a resuming run must agree with.
    """
    from safetensors.torch import save_file

    full_state: Any = get_state_dict(model, optimizer, options=_OPTIONS)
    weights, moments = full_state
    if is_main_process():
        arrays = {
            f"{parameter}/{name}": value.contiguous()
            for parameter, values in moments["state"].items()
            for name, value in values.items()
        }
        with atomic_folder(Path(folder) / f"step-{step:08d}") as temporary:
            # Tied weights share memory, which safetensors refuses: a copy of each costs little at this point.
            save_file(
                {key: value.detach().clone().contiguous() for key, value in weights.items()},
                temporary / "model.safetensors",
            )
            save_file(arrays, temporary / "optimizer.safetensors")
            facts = {"step": step, "settings": settings, "param_groups": moments["param_groups"], "state": state}
            write_json(temporary / "state.json", facts)
        for old in _checkpoints(folder)[:-keep]:
            shutil.rmtree(old)


def load_checkpoint(
    checkpoint: str | Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    settings: dict[str, Any] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Restore model and optimizer in place; returns (step, state) as saved.

    Raises:
        ValueError: saved with other `settings`; model and optimizer are as they were.
    """
    from safetensors.torch import load_file

    checkpoint = Path(checkpoint)
    saved = read_json(checkpoint / "state.json")
    differing = _differences(saved["settings"], json.loads(json.dumps(settings)))
    if differing:
        raise ValueError(
            f"{checkpoint} is of a training with other settings ({', '.join(differing)}); "
            f"use another output folder, or delete {checkpoint.parent}"
        )
    moments: dict[str, Any] = defaultdict(dict)
    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        parameter, name = key.rsplit("/", 1)
        moments[parameter][name] = value
    set_state_dict(
        model,
        optimizer,
        model_state_dict=dict(load_file(checkpoint / "model.safetensors")),
        optim_state_dict={"state": moments, "param_groups": saved["param_groups"]},
        options=_OPTIONS,
    )
    return saved["step"], saved["state"]


def _differences(old: Any, new: Any, name: str = "settings") -> list[str]:
    """What differs, as `name: old, now new`; long values (hashes of the data) by their name alone."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [part for key in keys for part in _differences(old.get(key), new.get(key), key)]
    if old == new:
        return []
    texts = [str(value) for value in (old, new)]
    return [name if max(map(len, texts)) > 30 else f"{name}: {texts[0]}, now {texts[1]}"]


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in `folder`, if there is one."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def _checkpoints(folder: str | Path) -> list[Path]:
    return sorted(path for path in Path(folder).glob("step-*") if (path / "state.json").exists())
