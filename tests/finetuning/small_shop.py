"""A shop whose next item follows from the one before, a base that knows nothing of it, and quick ways to tune it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbase_hf.adapters import Base
from recbase_hf.bundle import hash_of_weights, save_bundle
from recbase_hf.data.domain import ItemVectors
from recbase_hf.finetuning.data import TuningData, load_tuning_data
from recbase_hf.finetuning.run import Tuned, fine_tune
from recbase_hf.finetuning.settings import FineTuning, UserSplit
from recbase_hf.text.template import ItemTemplate
from tiny_world import HashEncoder, make_items, make_model, make_tokenizer

ITEMS = 40
CONTEXT = 16
FAST = {"batch_rows": 4, "evaluate_every": 4, "save_every": 3, "learning_rate": 1e-2, "ctr_batch": 16, "patience": 0}


def write_shop(folder: Path, users: int = 60, *, seed: int = 0) -> Path:
    """Everybody buys every third item, from somewhere on."""
    folder.mkdir(parents=True)
    items = make_items(ITEMS)
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    starts = np.random.default_rng(seed).integers(ITEMS, size=users)
    events = [
        {"user_id": f"user-{user}", "item_id": items[(start + 3 * place) % ITEMS]["item_id"], "order": place}
        for user, start in enumerate(starts.tolist())
        for place in range(4 + user % 5)
    ]
    pq.write_table(pa.Table.from_pylist(events), folder / "interactions.parquet")
    return folder


def write_base(folder: Path, **model: Any) -> Path:
    """An untrained bundle of the tiny world's tokenizer."""
    tokenizer = make_tokenizer()
    save_bundle(folder, make_model(tokenizer.layout, **{"initializer_range": 0.02, **model}), tokenizer)
    return folder


def source() -> ItemVectors:
    """Of the tiny world's encoder, which `load_text_encoder` has to give."""
    return ItemVectors(HashEncoder.name, template=ItemTemplate(fields=("title",)))


def load_shop(folder: Path, tuning: FineTuning | None = None, *, tokenizer: Any = None, **split: Any) -> TuningData:
    """What fine-tuning reads of a shop."""
    split = {"validation_share": 0.2, "max_items": 8, "row_length": 65, **split}
    tokenizer = tokenizer or make_tokenizer()
    return load_tuning_data([folder], tokenizer, source(), tuning or FineTuning(), UserSplit(**split), context=CONTEXT)


def tune(
    base: Path, shop: Path, folder: Path, accelerator: Any, *, interrupt_after: int | None = None, **settings: Any
) -> Tuned:
    """Fine-tune a base on a shop; Ctrl-C comes in the training forward after `interrupt_after` others."""
    from recbase_hf.bundle import load_bundle

    tuning = FineTuning(**{**FAST, **settings})
    model, tokenizer = load_bundle(base, device="cpu")
    forwards = iter(range(1_000_000))

    def interrupt(module: Any, _inputs: Any) -> None:
        if module.training and next(forwards) == interrupt_after:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    identity = Base(str(base), tokenizer.fingerprint, hash_of_weights(base))
    data = load_shop(shop, tuning, tokenizer=tokenizer)
    return fine_tune(model, data, tuning, base=identity, accelerator=accelerator, folder=folder)
