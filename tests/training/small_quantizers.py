"""A quantizer and vectors small enough to train in a second, and ways to interrupt that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbase_hf import ClVaeConfig, ClVaeModel
from recbase_hf.training.tokenizer import LevelReport, QuantizerTraining, train_quantizer

WIDTH = 16
LEVELS = 3
CODES = 16


def clustered_vectors(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in eight groups of eight sub-groups each."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(8, 1, WIDTH)) + 0.5 * rng.normal(size=(8, 8, WIDTH))
    vectors = groups.reshape(-1, WIDTH)[rng.integers(64, size=count)] + 0.15 * rng.normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = {"first": clustered_vectors(400), "second": clustered_vectors(200, seed=1)}


def make_config(**changes: Any) -> ClVaeConfig:
    sizes = {"input_dim": WIDTH, "hidden_dims": (32,), "latent_dim": 8, "num_levels": LEVELS, "codebook_size": CODES}
    return ClVaeConfig(**{**sizes, **changes})


def make_training(**changes: Any) -> QuantizerTraining:
    """Sixty steps a level, because with no tolerance none settles before."""
    sizes = {"batch_size": 64, "max_steps_per_level": 60, "evaluate_every": 10, "save_every": 25, "tolerance": 0.0}
    return QuantizerTraining(**{**sizes, **changes})


@contextmanager
def before_each_step(action: Callable[[ClVaeModel], None]) -> Iterator[None]:
    """Call `action` with the model before each training forward."""
    forward = ClVaeModel.forward

    def watched(model: ClVaeModel, vectors: Any) -> Any:
        if model.training:
            action(model)
        return forward(model, vectors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClVaeModel, "forward", watched)
        yield


def train(
    accelerator: Any,
    vectors: Mapping[str, np.ndarray] = VECTORS,
    config: ClVaeConfig | None = None,
    checkpoints: Path | None = None,
    **changes: Any,
) -> tuple[ClVaeModel, list[LevelReport]]:
    """Train with the settings of `make_training`, some of them changed."""
    training = make_training(**changes)
    return train_quantizer(vectors, config or make_config(), training, accelerator=accelerator, checkpoints=checkpoints)


def train_and_interrupt(accelerator: Any, steps: int, checkpoints: Path, **changes: Any) -> None:
    """Ctrl-C in the step after so many."""
    left = iter(range(steps))

    def count(_model: ClVaeModel) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with before_each_step(count), pytest.raises(KeyboardInterrupt):
        train(accelerator, checkpoints=checkpoints, **changes)
