"""Two processes fine-tune as one does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetuning.small_shop import tune
from recbase_hf.text import vector_cache
from tiny_world import HashEncoder
from training.two_processes import needs_cpu_only, run_twice

pytestmark = needs_cpu_only

SETTINGS = {"epochs": 2, "objective": "both", "train_rows": ("codes",), "patience": 3}


def _run(accelerator: Any, out: Path) -> None:
    vector_cache.load_text_encoder = lambda *_args, **_options: HashEncoder()  # this process is a fork
    base, shop = (Path(os.environ[name]) for name in ("TUNED_BASE", "TUNED_SHOP"))
    tuned = tune(base, shop, out / "two", accelerator, **SETTINGS)
    weights = {name: value.clone() for name, value in tuned.model.state_dict().items() if "lora_" in name}
    save_file(weights, out / f"{accelerator.process_index}.safetensors")


@pytest.fixture(scope="module")
def launched(base: Path, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("launched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNED_BASE", str(base))
        patch.setenv("TUNED_SHOP", str(shop))
        run_twice(_run, out)
    return out


def test_two_processes_equal_one_at_the_same_global_batch(launched, base, shop, tmp_path, new_accelerator):
    alone = tune(base, shop, tmp_path, new_accelerator(), **SETTINGS).model.state_dict()
    for name, value in load_file(launched / "0.safetensors").items():
        torch.testing.assert_close(
            value, alone[name], rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name} {text}"
        )


def test_both_end_with_the_same_weights(launched):
    left, right = (load_file(launched / f"{rank}.safetensors") for rank in (0, 1))
    assert left
    assert all(torch.equal(value, right[name]) for name, value in left.items())
