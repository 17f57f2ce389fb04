"""Training state without pickles: weights and optimizer moments in safetensors, everything else in JSON.

The random state needs no saving, because every step seeds its generators from (seed, step, process).
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from recbase_hf.files import atomic_folder, read_json, write_json
from recbase_hf.progress import is_main_process
from recbase_hf.training import zero

__all__ = [
    "latest_checkpoint",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
    "whole_weights",
]

# `flatten_optimizer_state_dict` would spare us the flattening, but torch 2.13 cannot load a full state dict made so.
_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True)
# What is frozen is the same at every step, and lies where it was loaded from.
_TRAINED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)


def save_checkpoint(
    folder: str | Path,
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    settings: dict[str, Any] | None = None,
    more_weights: Mapping[str, Mapping[str, Tensor]] | None = None,
    keep: int = 2,
) -> None:
    """Write `folder/step-00000042` whole or not at all, then drop all but the `keep` newest. Call on every process.

    Of a model with frozen parameters only the others are written.

    Args:
        state: JSON content to come back as it is (data position, history).
        settings: JSON content that a resuming run must agree with.
        more_weights: by name, further sets of tensors for `load_weights`.

    Raises:
        OSError: the folder cannot be written, its disk is full; earlier checkpoints are as they were.
    """
    from safetensors.torch import save_file

    weights, moments = _whole_state(model, optimizer)
    if is_main_process():
        arrays = {
            f"{parameter}/{name}": value.contiguous()
            for parameter, values in moments["state"].items()
            for name, value in values.items()
        }
        with _told_where(Path(folder), step), atomic_folder(Path(folder) / f"step-{step:08d}") as temporary:
            # Tied weights share memory, which safetensors refuses: a copy of each costs little at this point.
            save_file(
                {key: value.detach().clone().contiguous() for key, value in weights.items()},
                temporary / "model.safetensors",
            )
            save_file(arrays, temporary / "optimizer.safetensors")
            for name, tensors in (more_weights or {}).items():
                save_file({key: value.contiguous() for key, value in tensors.items()}, temporary / _file(name))
            facts = {"step": step, "settings": settings, "param_groups": moments["param_groups"], "state": state}
            write_json(temporary / "state.json", facts)
        _tidy(Path(folder), keep)


def _whole_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    if zero.is_zero(model):
        return zero.whole_weights(model), zero.whole_moments(model)
    if not _has_frozen(model):
        return get_state_dict(model, optimizer, options=_OPTIONS)
    weights, moments = get_state_dict(model, optimizer, options=_TRAINED)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: value for name, value in weights.items() if name in trained}, moments


def _has_frozen(model: torch.nn.Module) -> bool:
    return not all(parameter.requires_grad for parameter in model.parameters())


def load_weights(checkpoint: str | Path, name: str) -> dict[str, Tensor]:
    """One of the `more_weights` of a checkpoint."""
    from safetensors.torch import load_file

    return load_file(Path(checkpoint) / _file(name))


def whole_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """All weights on the CPU of the main process, from wherever they are; elsewhere nothing. Call on every process."""
    if zero.is_zero(model):
        return zero.whole_weights(model)
    weights: Any = get_model_state_dict(model, options=_OPTIONS)
    return weights


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
    weights: dict[str, Any] = load_file(checkpoint / "model.safetensors")
    if zero.is_zero(model):
        zero.load_weights(model, weights)
        zero.update_model(model)
        zero.load_moments(model, moments)
        return saved["step"], saved["state"]
    set_state_dict(
        model,
        optimizer,
        model_state_dict=weights,
        optim_state_dict={"state": moments, "param_groups": saved["param_groups"]},
        options=_TRAINED if _has_frozen(model) else _OPTIONS,
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
    """Whole ones, oldest first; one that was being replaced when its process was killed lies aside, and counts."""
    found = {path.name: path for path in Path(folder).glob(".step-*.previous")}
    found = {name.removeprefix(".").removesuffix(".previous"): path for name, path in found.items()}
    found |= {path.name: path for path in Path(folder).glob("step-*") if _is_whole(path)}
    return [found[name] for name in sorted(found) if _is_whole(found[name])]


def _is_whole(checkpoint: Path) -> bool:
    return (checkpoint / "state.json").exists()


def _tidy(folder: Path, keep: int) -> None:
    """Drop all but the newest checkpoints, and what killed processes have left."""
    kept = _checkpoints(folder)[-keep:]
    for path in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        if path not in kept:
            # First out of the way, so that a process killed here leaves no checkpoint that only looks whole.
            doomed = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.partial")
            path.rename(doomed)
            shutil.rmtree(doomed)


def _file(name: str) -> str:
    return f"{name}.safetensors"


@contextmanager
def _told_where(folder: Path, step: int) -> Iterator[None]:
    """Errors of the disk name the folder, and where to go on from."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        last = latest_checkpoint(folder)
        raise OSError(
            f"the checkpoint of step {step} cannot be written to {folder} ({error}); the last good one is "
            f"{last.name if last else 'none yet'}. Make room there and give the same command again"
        ) from error
