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
    last = log[-1] if log else {}
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
        validation_loss=f"{last['validation_loss']:.3f}" if "validation_loss" in last else "not measured",
        levels=[f"{value:.3f}" for key, value in last.items() if key.startswith("validation_loss_level_")],
        versions={name: version(name) for name in ("recbase-hf", "torch", "transformers", "accelerate")},
    )
    return str(card)
