"""A language model and rows small enough to train in a fraction of a second, and ways to interrupt that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbase_hf.modeling.token_layout import TokenLayout

from recbase_hf.data.histories import Histories
from recbase_hf.shards.packing import PackedRows, pack_histories
from recbase_hf.shards.token_shards import ShardedRows
from recbase_hf.training.pretrain import Pretraining, train_language_model
from tiny_world import make_model

LAYOUT = TokenLayout(num_levels=2, codebook_size=4)
ITEMS = 8
CODES = np.array([[item // 2 % 4, item % 4] for item in range(ITEMS)])


def make_rows(users: int, seed: int, codes: np.ndarray = CODES) -> ShardedRows:
    """Users who buy one item after the other, in windows of different lengths: rows differ in their targets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 8, users)
    items = np.concatenate([(rng.integers(ITEMS) + np.arange(length)) % ITEMS for length in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    histories = Histories(np.arange(users).astype(str).astype(object), offsets, items)
    return ShardedRows.in_memory(pack_histories(histories, codes, LAYOUT, row_length=17, max_items=8))


def join(**domains: ShardedRows) -> ShardedRows:
    """Rows of several domains as one."""
    sizes = {name: len(rows) for name, rows in domains.items()}
    return ShardedRows([all_rows(rows).input_ids for rows in domains.values()], sizes, LAYOUT, "joined")


def all_rows(rows: ShardedRows) -> PackedRows:
    """All of them, in memory."""
    return rows.read(range(len(rows)))


TRAIN, VALIDATION = make_rows(60, seed=0), make_rows(12, seed=1)
STEPS = 9


def make_training(**changes: Any) -> Pretraining:
    """Nine steps, over the border of an epoch; most checkpoints and log entries do not fall together."""
    defaults = {"batch_rows": 8, "evaluate_every": 2, "save_every": 3, "learning_rate": 1e-2}
    return Pretraining(**{"epochs": STEPS * 8 / len(TRAIN), **defaults, **changes})


def make_small_model(**options: Any) -> Any:
    return make_model(LAYOUT, initializer_range=0.02, num_hidden_layers=1, **options)


def make_dropout_model() -> Any:
    return make_small_model(attention_dropout=0.1)


def train(
    folder: Path,
    accelerator: Any,
    training: Pretraining | None = None,
    *,
    model: Any = None,
    rows: ShardedRows = TRAIN,
    validation: ShardedRows = VALIDATION,
    interrupt_after: int | None = None,
    **options: Any,
) -> tuple[Any, list[dict[str, Any]]]:
    """Train a (new) small model; returns it and the log. Ctrl-C comes in the forward after `interrupt_after` others."""
    model = model or make_dropout_model()
    forwards = iter(range(1_000_000))

    def interrupt(module: Any, _inputs: Any) -> None:
        if module.training and next(forwards) == interrupt_after:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    training = training or make_training()
    log = train_language_model(model, rows, validation, training, accelerator=accelerator, folder=folder, **options)
    return model, log


def assert_same_weights(left: Any, right: Any, atol: float = 0.0) -> None:
    """That two modules, or two mappings of tensors, hold the same; bit by bit by default."""
    left, right = (part if isinstance(part, dict) else part.state_dict() for part in (left, right))
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(
            left[name], right[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
