"""The model card of a training run, written from what the trainer saw."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from recbase_hf.training.probe import METHODS, NEGATIVES, USERS

__all__ = ["kept_entry", "overfitting_remark", "training_card"]

MUCH_WORSE = 1.01
"""Times the lowest validation loss: what lies above is no chance of one evaluation."""

_SCHEDULES = {
    "cosine": "then along a cosine to a tenth",
    "wsd": "then constant, down to zero over the last {decay_share:.0%}",
}
_Log = Sequence[dict[str, Any]]


def training_card(
    model: Any,
    tokenizer: Any,
    *,
    shards: dict[str, Any],
    options: dict[str, Any],
    log: _Log,
    targets: int,
    folder: str | Path | None = None,
    hardware: str | None = None,
) -> str:
    """Markdown with YAML metadata, from the template `hub_cards/model_card.md`.

    Args:
        model: the trained `Qwen2ForCausalLM`.
        tokenizer: its tokenizer.
        shards: facts of the token shards that it was trained on.
        options: those of the training, as they are recorded.
        log: its entries, as `train_language_model` returns them.
        targets: predicted tokens an epoch.
        folder: where the trainer left `speed.jsonl`; without it the card says nothing of speed.
        hardware: what that speed was reached on, in words.
    """
    from huggingface_hub import ModelCard, ModelCardData

    template = resources.files("recbase_hf.hub_cards") / "model_card.md"
    kept = kept_entry(log, options)
    card = ModelCard.from_template(
        ModelCardData(library_name="transformers", tags=["recommendation", "semantic-ids", "recbase"]),
        template_str=template.read_text(encoding="utf-8"),
        parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        config=model.config,
        tokenizer=tokenizer,
        domains=[
            {
                "name": name,
                "items": f"{facts['items'] - facts['items_without_vector']:,}",
                "users": f"{facts['users']:,}",
                "hash": shards["settings"]["data"][name],
            }
            for name, facts in shards["domains"].items()
        ],
        facts=_facts(log, options, targets) | _speed(folder, hardware),
        kept=f"{kept['step']:,}" if kept else None,
        losses=_losses(kept, list(shards["domains"])),
        chance=f"{math.log(tokenizer.layout.codebook_size):.3f}",
        remark=overfitting_remark(log, patience=options["patience"]),
        probes=_probes(log, kept, options),
        probe_users=USERS,
        probe_negatives=NEGATIVES,
        versions={name: version(name) for name in ("recbase-hf", "torch", "transformers", "accelerate")},
    )
    return str(card)


def overfitting_remark(log: _Log, *, patience: int = 0) -> str | None:
    """What to say of a run whose validation loss rose again, by more than a percent; None where it did not.

    Args:
        log: entries of the run.
        patience: of the run; one with patience keeps the weights of its best evaluation.

    >>> overfitting_remark([{"step": 100, "validation_loss": 3.0}, {"step": 200, "validation_loss": 3.3}])
    'the validation loss was lowest at step 100 (3.000) and is 3.300 at the end, at step 200: train with --patience, \
which keeps the best weights, or for fewer --epochs'
    >>> overfitting_remark([{"step": 100, "validation_loss": 3.0}, {"step": 200, "validation_loss": 3.01}])
    """
    evaluated = [entry for entry in log if "validation_loss" in entry]
    if patience or not evaluated:
        return None
    best, last = min(evaluated, key=lambda entry: entry["validation_loss"]), evaluated[-1]
    if last["validation_loss"] <= MUCH_WORSE * best["validation_loss"]:
        return None
    return (
        f"the validation loss was lowest at step {best['step']:,} ({best['validation_loss']:.3f}) and is "
        f"{last['validation_loss']:.3f} at the end, at step {last['step']:,}: train with --patience, which keeps the "
        "best weights, or for fewer --epochs"
    )


def kept_entry(log: _Log, options: dict[str, Any]) -> dict[str, Any]:
    """That of the weights in the bundle: the last, or that of the evaluation whose weights an early stop has kept."""
    losses = [entry for entry in log if "train_loss" in entry]
    evaluated = [entry for entry in losses if "validation_loss" in entry]
    if options["patience"] and evaluated:
        return min(evaluated, key=lambda entry: entry["validation_loss"])
    return losses[-1] if losses else {}


# ---- the parts of the card -------------------------------------------------------------------------------------------


def _facts(log: _Log, options: dict[str, Any], targets: int) -> dict[str, str]:
    """Rows of the table of the run."""
    kept = kept_entry(log, options)
    steps = f"{log[-1]['step']:,}" if log else "0"
    if kept and kept["step"] != log[-1]["step"]:
        steps += f"; the weights are those of step {kept['step']:,}, where the validation loss was lowest"
    facts = {
        "steps": steps,
        "rows a step, tokens a row": f"{options['batch_rows']:,}, {options['row_length']:,}",
        "predicted tokens an epoch, epochs asked for": f"{targets:,}, {options['epochs']:g}",
        "predicted tokens that the weights learned from": f"{kept.get('trained_targets', 0):,}",
        "learning rate": _schedule(options),
        "weight decay, largest norm of the gradient": f"{options['weight_decay']:g}, {options['clip_norm']:g}",
    }
    switches = {
        "level_weights": "weights of the levels in the loss",
        "history_dropout": "share of items left out of histories",
        "ema_decay": "moving average of the weights, decay",
    }
    for name, words in switches.items():
        if options[name]:
            value = options[name]
            facts[words] = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else f"{value:g}"
    return facts


def _schedule(options: dict[str, Any]) -> str:
    """The schedule of the learning rate in words."""
    course = _SCHEDULES.get(options["schedule"], options["schedule"]).format(**options)
    return f"up to {options['learning_rate']:g} over the first {options['warm_up_share']:.0%} of the steps, {course}"


def _speed(folder: str | Path | None, hardware: str | None) -> dict[str, str]:
    """Medians of what the trainer logged; a step that came twice, because the run was resumed, counts as it came last.

    Nothing where nothing was logged.
    """
    path = None if folder is None else Path(folder) / "speed.jsonl"
    if path is None or not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    entries = list({line["step"]: line for line in lines}.values())
    on = f" on {hardware}" if hardware else ""
    found = {}
    for name, words, form in (
        ("tokens_per_second", f"tokens a second{on}, median of the log", "{:,.0f}"),
        ("mfu", "model FLOPs utilization (MFU), median of the log", "{:.1%}"),
    ):
        values = [entry[name] for entry in entries if name in entry]
        if values:
            found[words] = form.format(np.median(values))
    return found


def _losses(entry: dict[str, Any], domains: Sequence[str]) -> list[tuple[str, str, str]]:
    """Rows of what is lost on all targets, on each level and on each data set: name, training, validation."""
    levels = [name.rpartition("_")[2] for name in entry if name.startswith("train_loss_level_")]
    rows = {"all": "loss"} | {f"level {level}": f"loss_level_{level}" for level in levels}
    rows |= {f"data set {domain}": f"loss/{domain}" for domain in domains}
    return [
        (words, _number(entry.get(f"train_{key}")), _number(entry.get(f"validation_{key}")))
        for words, key in rows.items()
        if f"train_{key}" in entry or f"validation_{key}" in entry
    ]


def _probes(log: _Log, kept: dict[str, Any], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The last figures of probes up to the weights in the bundle, a row for each data set."""
    measured = [
        entry
        for entry in log
        if entry["step"] <= kept.get("step", math.inf) and any(key.startswith("probe_gauc_") for key in entry)
    ]
    if not measured:
        return []
    entry = measured[-1]
    names = {key.partition("/")[2]: None for key in entry if key.startswith("probe_gauc_")}
    return [
        {
            "name": name,
            "step": f"{entry['step']:,}",
            "figures": {method: _number(entry.get(f"probe_gauc_{method}/{name}")) for method in METHODS},
            "known_to_tokenizer": name in options.get("tokenizer_data", {}),
        }
        for name in names
    ]


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
