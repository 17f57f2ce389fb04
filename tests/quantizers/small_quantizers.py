"""Quantizers of every kind, and vectors, small enough to fit in a fraction of a second; and ways to interrupt that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbase_hf.modeling.centering import center, shrunk_mean

from recbase_hf import ClVaeModel, FsqModel, ProductQuantizerModel, QuantizerTraining, fit_quantizer
from recbase_hf.auto import Quantizer, QuantizerConfig, new_quantizer, quantizer_config
from recbase_hf.quantizers.kinds import KINDS, config_of_kind
from recbase_hf.quantizers.training import LevelReport

WIDTH = 16
LEVELS = 3
CODES = 16
TRAINED_KINDS = ("product", "fsq", "cl-vae", "rq-vae")


def clustered_vectors(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in eight groups of eight sub-groups each."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(8, 1, WIDTH)) + 0.5 * rng.normal(size=(8, 8, WIDTH))
    vectors = groups.reshape(-1, WIDTH)[rng.integers(64, size=count)] + 0.15 * rng.normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


DOMAINS = {"first": clustered_vectors(400), "second": clustered_vectors(200, seed=1)}


def centered(quantizer: Quantizer, domains: Mapping[str, np.ndarray] = DOMAINS) -> torch.Tensor:
    """The domains' vectors as a quantizer that was fitted on them sees them."""
    mean, shrinkage = quantizer.corpus_mean.numpy(), quantizer.config.mean_shrinkage
    parts = [center(part, shrunk_mean(part, mean, shrinkage)) for part in domains.values()]
    return torch.from_numpy(np.concatenate(parts))


def small_config(kind: str, **changes: Any) -> QuantizerConfig:
    """Three levels of sixteen codes; settings that the kind does not have are left out, unless they are `changes`."""
    sizes = {"num_levels": LEVELS, "hidden_dims": (32,), "latent_dim": 8}
    known = quantizer_config(KINDS[kind].model_type).settings()
    settings = {name: size for name, size in sizes.items() if name in known}
    return config_of_kind(kind, **{"input_dim": WIDTH, "codebook_size": CODES, **settings, **changes})


def small_quantizer(kind: str, seed: int = 0, **changes: Any) -> Quantizer:
    """One that was never fitted."""
    torch.manual_seed(seed)
    return new_quantizer(small_config(kind, **changes)).eval()


def fit(
    kind: str | QuantizerConfig,
    domains: Mapping[str, Any] = DOMAINS,
    accelerator: Any = None,
    checkpoints: Path | None = None,
    **changes: Any,
) -> tuple[Quantizer, list[LevelReport]]:
    """Thirty steps a level, because with no tolerance none settles before."""
    sizes = {"batch_size": 64, "max_steps_per_level": 30, "evaluate_every": 10, "save_every": 25, "tolerance": 0.0}
    config = small_config(kind) if isinstance(kind, str) else kind
    training = QuantizerTraining(**{**sizes, "learning_rate": 3e-3, **changes})
    return fit_quantizer(domains, config, training, accelerator=accelerator, checkpoints=checkpoints)


@contextmanager
def before_each_step(action: Callable[[Any, torch.Tensor], None]) -> Iterator[None]:
    """Call `action` with the model and the items before each forward of a training."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (ClVaeModel, FsqModel, ProductQuantizerModel):

            def watched(model: Any, vectors: torch.Tensor, forward: Any = kind.forward) -> Any:
                if model.training:
                    action(model, vectors)
                return forward(model, vectors)

            patch.setattr(kind, "forward", watched)
        yield


def fit_and_interrupt(kind: str | QuantizerConfig, *, steps: int, checkpoints: Path, **options: Any) -> None:
    """Ctrl-C in the step after so many."""
    left = iter(range(steps))

    def count(_model: Any, _vectors: torch.Tensor) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with before_each_step(count), pytest.raises(KeyboardInterrupt):
        fit(kind, checkpoints=checkpoints, **options)
