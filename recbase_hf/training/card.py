"""The model card of a training run, written from what the trainer saw."""

from __future__ import annotations

from importlib import resources
from importlib.metadata import version
from typing import Any

__all__ = ["training_card"]


def training_card(
    model: Any,
    tokenizer: Any,
    *,
    shards: dict[str, Any],
    options: dict[str, Any],
    log: list[dict[str, Any]],
    targets: int,
) -> str:
    """Markdown with YAML metadata, from the template `hub_cards/model_card.md`."""
    from huggingface_hub import ModelCard, ModelCardData

    template = resources.files("recbase_hf.hub_cards") / "model_card.md"
    kept = _kept_entry(log) if options["patience"] else (log or [{}])[-1]
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
        targets=f"{targets:,}",
        epochs=options["epochs"],
        validation_loss=f"{kept['validation_loss']:.3f}" if "validation_loss" in kept else "not measured",
        levels=[f"{value:.3f}" for key, value in kept.items() if key.startswith("validation_loss_level_")],
        versions={name: version(name) for name in ("recbase-hf", "torch", "transformers", "accelerate")},
    )
    return str(card)


def _kept_entry(log: list[dict[str, Any]]) -> dict[str, Any]:
    """That of the evaluation whose weights an early stop has kept."""
    return min((entry for entry in log if "validation_loss" in entry), key=lambda entry: entry["validation_loss"])
