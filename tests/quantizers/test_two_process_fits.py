"""Two processes fit as one does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantizers.small_quantizers import (
    TRAINED_KINDS,
    before_each_step,
    centered,
    clustered_vectors,
    fit,
    fit_and_interrupt,
)
from recbase_hf.auto import Quantizer
from recbase_hf.quantizers.kinds import KINDS
from recbase_hf.quantizers.kmeans import kmeans
from training.small_runs import assert_same_weights
from training.two_processes import needs_cpu_only, run_twice

pytestmark = needs_cpu_only

BATCH = 512
"""Two groups of items: a step of one process has both, each of two processes has one."""
TRAINING = {"batch_size": BATCH, "max_steps_per_level": 8, "evaluate_every": 3, "save_every": 5}


def centers_with_many_empty_clusters(accelerator: Any) -> torch.Tensor:
    """K-means that starts with many centers on one point."""
    points = torch.from_numpy(clustered_vectors(60))
    points = torch.cat([points[:1].expand(400, -1), points[1:]])
    return kmeans(points, torch.ones(len(points), dtype=torch.float64), 16, accelerator=accelerator)


def fit_with_codes_to_replace(accelerator: Any) -> Quantizer:
    """Three codes are put out of reach before the first step."""

    def throw_away(model: Any, _vectors: torch.Tensor) -> None:
        if next(steps) == 0:
            with torch.no_grad():
                model.codebooks[0, :3] = 1e3

    steps = iter(range(1000))
    with before_each_step(throw_away):
        return fit("cl-vae", accelerator=accelerator, **TRAINING)[0]


def run_everything(accelerator: Any, out: Path) -> None:
    """What each of the two processes does; each writes the weights that it ends up with."""

    def keep(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        save_file(dict(tensors), out / f"{name}-{accelerator.process_index}.safetensors")

    for kind in KINDS:
        keep(kind, fit(kind, accelerator=accelerator, **TRAINING)[0].state_dict())
    keep("replaced", fit_with_codes_to_replace(accelerator).state_dict())
    keep("clusters", {"centers": centers_with_many_empty_clusters(accelerator)})
    resumed = {"accelerator": accelerator, "checkpoints": out / "resumed", **TRAINING}
    fit_and_interrupt("cl-vae", steps=11, **resumed)
    keep("resumed", fit("cl-vae", **resumed)[0].state_dict())


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left their weights."""
    out = tmp_path_factory.mktemp("launched")
    run_twice(run_everything, out)
    return out


def weights(launched: Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(launched / f"{name}-{rank}.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_fit_what_one_does(launched, new_accelerator, kind):
    alone = fit(kind, accelerator=new_accelerator(), **TRAINING)[0]
    shared: Quantizer = type(alone)(alone.config).eval()
    shared.load_state_dict(weights(launched, kind))
    assert_same_weights(alone, shared, atol=1e-4 if kind in TRAINED_KINDS else 1e-5)
    vectors = centered(alone)
    same = (alone.encode(vectors) == shared.encode(vectors)).float().mean()
    assert same == 1.0 if kind == "residual-kmeans" else same > 0.99


def test_unused_codes_move_to_the_same_places(launched, new_accelerator):
    alone = fit_with_codes_to_replace(new_accelerator())
    assert alone.codebooks.abs().max() < 100
    assert_same_weights(alone, weights(launched, "replaced"), atol=1e-4)


def test_empty_clusters_move_to_the_same_points(launched, new_accelerator):
    alone = centers_with_many_empty_clusters(new_accelerator())
    torch.testing.assert_close(weights(launched, "clusters")["centers"], alone, rtol=0, atol=1e-5)


def test_two_resumed_processes_equal_two_straight_ones(launched):
    assert_same_weights(weights(launched, "resumed"), weights(launched, "cl-vae"))


@pytest.mark.parametrize("name", [*KINDS, "replaced", "clusters", "resumed"])
def test_both_processes_end_with_the_same_weights(launched, name):
    assert_same_weights(weights(launched, name, rank=0), weights(launched, name, rank=1))
