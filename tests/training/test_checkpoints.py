"""Checkpoints come back as they were saved, are whole or not there, and hold no pickles."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from recbase_hf.modeling.token_layout import TokenLayout
from torch import nn

from recbase_hf.training import checkpoints
from recbase_hf.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from tiny_world import make_model

LAYOUT = TokenLayout(num_levels=2, codebook_size=4)


def make_pair(seed: int = 0, steps: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with tied embeddings and its optimizer, some steps into training."""
    model = make_model(LAYOUT, seed=seed, num_hidden_layers=1)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    for step in range(steps):
        train_step(model, optimizer, step)
    return model, optimizer


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    ids = torch.randint(1, LAYOUT.num_codes, (2, 7), generator=torch.Generator().manual_seed(seed))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_model_optimizer_and_state_come_back(tmp_path):
    model, optimizer = make_pair(steps=3)
    state = {"log": [{"loss": 0.1 + 0.2}], "name": "ünïcode", "nothing": None}
    save_checkpoint(tmp_path, 3, model, optimizer, state)

    loaded, loaded_optimizer = make_pair(seed=1)
    step, loaded_state = load_checkpoint(latest_checkpoint(tmp_path), loaded, loaded_optimizer)
    assert (step, loaded_state) == (3, state)
    assert same(model.state_dict(), loaded.state_dict())
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight, "weights stay tied"
    moments = zip(model.parameters(), loaded.parameters(), strict=True)
    assert all(same(optimizer.state[one], loaded_optimizer.state[other]) for one, other in moments)
    assert [group["weight_decay"] for group in loaded_optimizer.param_groups] == [0.1, 0.0]

    for seed in (10, 11):
        train_step(model, optimizer, seed)
        train_step(loaded, loaded_optimizer, seed)
    assert same(model.state_dict(), loaded.state_dict()), "training goes on as if nothing had happened"


def test_saving_changes_nothing(tmp_path):
    saved, untouched = make_pair(), make_pair()
    for step in range(3):
        train_step(*saved, step)
        train_step(*untouched, step)
        save_checkpoint(tmp_path, step, *saved, {})
    assert same(saved[0].state_dict(), untouched[0].state_dict())


def test_only_safetensors_and_json_are_written(tmp_path):
    save_checkpoint(tmp_path, 1, *make_pair(steps=1), {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    names = sorted(path.name for path in (tmp_path / "step-00000001").iterdir())
    assert names == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert json.loads((tmp_path / "step-00000001" / "state.json").read_text())["state"] == {"a": 1}


def test_only_the_newest_are_kept(tmp_path):
    pair = make_pair()
    for step in (8, 9, 10, 11):
        save_checkpoint(tmp_path, step, *pair, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000011"


def test_there_is_no_checkpoint_in_a_folder_that_is_missing_or_empty(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "missing") is None


def test_half_written_checkpoints_are_ignored(tmp_path):
    save_checkpoint(tmp_path, 1, *make_pair(steps=1), {})
    whole = tmp_path / "step-00000001"
    shutil.copytree(whole, tmp_path / "step-00000002")
    (tmp_path / "step-00000002" / "state.json").unlink()
    shutil.copytree(whole, tmp_path / ".step-00000003.4711.partial")
    assert latest_checkpoint(tmp_path) == whole


@pytest.mark.parametrize("failing", ["write_json", "get_state_dict"])
def test_a_save_that_fails_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, failing):
    pair = make_pair(steps=1)
    save_checkpoint(tmp_path, 1, *pair, {"good": True}, keep=1)

    def fail(*_args, **_options):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints, failing, fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, 2, *pair, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_checkpoint(latest_checkpoint(tmp_path), *make_pair(seed=1))[:2] == (1, {"good": True})
