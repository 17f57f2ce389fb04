"""Puts a new adapter into a language model, and writes it when it is trained.

Embedding rows are trained in place (`trainable_token_indices`): the vocabulary never changes its size, which would put
copies of all embeddings into every adapter.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbase_hf.adapters import RECORD, Base, quiet_peft, require_peft
from recbase_hf.files import atomic_folder, write_json
from recbase_hf.finetuning.settings import TARGETS, FineTuning
from recbase_hf.modeling.token_layout import TokenLayout

__all__ = ["add_adapter", "rows_of", "save_adapter"]

_PREFIX = "base_model.model."
"""Of PEFT, before the names of the weights in the model that it wraps."""


def rows_of(names: tuple[str, ...], layout: TokenLayout, vocabulary: int) -> list[int]:
    """Token ids of groups of embedding rows, ascending.

    Args:
        names: of `codes`, `level-1`, `level-2`, ..., `reserved`.
        layout: of the tokens.
        vocabulary: rows of the embeddings; what lies beyond the layout's tokens is reserved.

    Raises:
        ValueError: there is no such group, or no reserved row.

    >>> rows_of(("level-2", "reserved"), TokenLayout(num_levels=2, codebook_size=3), vocabulary=13)
    [4, 5, 6, 11, 12]
    """
    known = {f"level-{level + 1}": [*range(vocabulary)[layout.level_ids(level)]] for level in range(layout.num_levels)}
    known["codes"] = [*range(1, 1 + layout.num_codes)]
    known["reserved"] = [*range(layout.num_tokens, vocabulary)]
    for name in names:
        if not known.get(name):
            raise ValueError(
                f"train_rows names {name!r}, but there are only: {', '.join(k for k in known if known[k])}"
            )
    return sorted({row for name in names for row in known[name]})


def add_adapter(model: Any, tuning: FineTuning, layout: TokenLayout, *, base: str) -> Any:
    """Put a new adapter into a language model, in place, and freeze all else; returns PEFT's model around it.

    Args:
        model: a `Qwen2ForCausalLM`.
        tuning: of the method `lora` or `embeddings`.
        layout: of the tokens.
        base: what the adapter will name as its base: the Hub id or the folder of the bundle.
    """
    require_peft()
    import torch
    from peft import LoraConfig, get_peft_model

    is_lora = tuning.method == "lora"
    rows: Any = rows_of(tuning.train_rows or (() if is_lora else ("codes",)), layout, model.config.vocab_size)
    if rows and not model.config.tie_word_embeddings:
        rows = {"embed_tokens": rows, "lm_head": list(rows)}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=tuning.rank,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        # PEFT's own word for no layer at all.
        target_modules=list(TARGETS[tuning.target]) if is_lora else "dummy-target-modules",
        trainable_token_indices=copy.deepcopy(rows) or None,
    )
    with quiet_peft(), torch.random.fork_rng():
        torch.manual_seed(tuning.seed)
        wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = base
    return wrapped


def save_adapter(
    folder: str | Path, wrapped: Any, weights: Mapping[str, Any], *, base: Base, record: Mapping[str, Any]
) -> None:
    """Write an adapter's folder, whole or not at all. No tokenizer is in it: that of the base is the adapter's.

    Args:
        wrapped: PEFT's model, from `add_adapter`.
        weights: of the language model inside, from `whole_weights`.
        base: what it was trained over, for the check when it is loaded.
        record: how it was trained, for `training.json`.
    """
    state = {_PREFIX + name: value for name, value in weights.items()}
    with atomic_folder(folder) as temporary:
        # Else PEFT adds a copy of all embeddings, or asks the Hub whether they have grown.
        wrapped.save_pretrained(temporary, state_dict=state, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # a form to be filled in; recbase card writes the card
        write_json(temporary / RECORD, {"base": base.recorded(), **record})
