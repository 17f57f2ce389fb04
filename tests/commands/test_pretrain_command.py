"""`recbase pretrain` as it is typed: probes, passes, what is recorded, and how it ends when something is wrong."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from recbase_hf import cli
from tiny_world import HashEncoder, make_items, make_tokenizer

FLAGS = ["--row-length", "33", "--max-items", "4", "--batch-rows", "8", "--evaluate-every", "2", "--save-every", "2"]


def write_domain(folder: Path, users: int, seed: int = 0) -> Path:
    """Items with titles, and users with two to eight events."""
    folder.mkdir()
    items = make_items(40)
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    rng = np.random.default_rng(seed)
    events = [
        {"user_id": f"user-{user}", "item_id": items[item]["item_id"], "order": place}
        for user in range(users)
        for place, item in enumerate(rng.permutation(40)[: 2 + user % 7])
    ]
    pq.write_table(pa.Table.from_pylist(events), folder / "interactions.parquet")
    return folder


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch, tmp_path_factory):
    """As in a process that has just started, with an encoder that needs no files."""
    monkeypatch.setenv("RECBASE_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("recbase_hf.text.vector_cache.load_text_encoder", "recbase_hf.load_text_encoder"):
        monkeypatch.setattr(name, lambda *_args, **_options: HashEncoder(), raising=False)
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> list[str]:
    """The flags that name tokenizer and data."""
    folder = tmp_path_factory.mktemp("given")
    make_tokenizer().save_pretrained(folder / "tokenizer")
    return ["--tokenizer", str(folder / "tokenizer"), "--data", str(write_domain(folder / "shop", users=60))]


def pretrain(*flags: str | Path) -> None:
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    cli.main(["pretrain", *FLAGS, *(str(flag) for flag in flags)])


def error_of(*flags: str | Path) -> str:
    with pytest.raises(SystemExit) as end:
        pretrain(*flags)
    assert end.value.code == 2
    return str(end.value)


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model" / "training.json").read_text())


def test_probes_of_unseen_data_stand_in_the_log(given, tmp_path):
    unseen = write_domain(tmp_path / "unseen", users=30, seed=1)
    pretrain(*given, "--output", tmp_path / "run", "--probe-data", unseen, "--probe-every", "4", "--epochs", "2")
    log = record_of(tmp_path / "run")["log"]
    probed = [entry["step"] for entry in log if "probe_gauc_joint/unseen" in entry]
    assert probed == sorted({*range(4, log[-1]["step"] + 1, 4), log[-1]["step"]})
    assert all(0 <= entry.get("probe_gauc_joint/unseen", 0) <= 1 for entry in log)


def test_data_that_is_trained_on_is_no_probe(given, tmp_path):
    message = error_of(*given, "--output", tmp_path, "--probe-data", given[-1], "--epochs", "1")
    assert "shop, which is trained on; probe one that is held out" in message


def test_an_epoch_of_several_passes_is_as_long_as_one_of_one(given, tmp_path):
    for passes in (1, 3):
        flags = ["--epochs", "3", "--passes", str(passes), "--validation-rows", "1"]
        pretrain(*given, *flags, "--output", tmp_path / str(passes))
    one, three = (record_of(tmp_path / name) for name in ("1", "3"))
    assert three["log"][-1]["step"] == pytest.approx(one["log"][-1]["step"], abs=2)
    assert three["targets"] == pytest.approx(one["targets"], rel=0.05)
    for record in (one, three):
        assert record["trained_targets"] == record["log"][-1]["trained_targets"]
        assert record["trained_targets"] == pytest.approx(3 * record["targets"], rel=0.15)


def test_the_record_counts_the_targets_that_the_kept_weights_have_seen(given, tmp_path):
    flags = ["--epochs", "30", "--patience", "2", "--learning-rate", "0.05", "--output", tmp_path]
    pretrain(*given, *flags)
    record = record_of(tmp_path)
    best = min(record["log"], key=lambda entry: entry["validation_loss"])
    assert best["step"] < record["log"][-1]["step"], "it has stopped early"
    assert record["trained_targets"] == best["trained_targets"] < record["log"][-1]["trained_targets"]


def test_half_precision_is_the_same_model_rounded(given, tmp_path):
    for dtype in ("float32", "float16"):
        pretrain(*given, "--epochs", "2", "--save-dtype", dtype, "--output", tmp_path / dtype)
    single, half = (load_file(tmp_path / dtype / "model" / "model.safetensors") for dtype in ("float32", "float16"))
    assert single.keys() == half.keys()
    for name, weights in half.items():
        assert weights.dtype == torch.float16
        torch.testing.assert_close(weights, single[name].half(), rtol=0, atol=0)


def test_the_start_of_the_embeddings_is_a_choice(given, tmp_path):
    for start in ("geometry", "random"):
        pretrain(*given, "--epochs", "2", "--embeddings", start, "--output", tmp_path / start)
        assert record_of(tmp_path / start)["settings"]["embeddings"] == start
    near, far = (load_file(tmp_path / start / "model" / "model.safetensors") for start in ("geometry", "random"))
    name = "model.embed_tokens.weight"
    assert not torch.equal(near[name], far[name])


def test_a_full_disk_ends_the_command_with_the_way_out_and_leaves_the_checkpoint(given, tmp_path, monkeypatch):
    import safetensors.torch

    save_file, calls = safetensors.torch.save_file, iter(range(100))

    def fill_up(tensors, path):
        if next(calls) == 3:  # two files a checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    flags, error_file = [*given, "--output", tmp_path, "--epochs", "4"], tmp_path / "error.json"
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", fill_up)
        patch.setenv("TORCHELASTIC_ERROR_FILE", str(error_file))
        message = error_of(*flags)
    assert f"cannot be written to {tmp_path / 'training' / 'model' / 'checkpoints'}" in message
    assert "the last good one is step-00000002. Make room there" in message
    assert json.loads(error_file.read_text())["message"] in message, "accelerate launch ends with it too"
    pretrain(*flags)
    assert record_of(tmp_path)["log"][-1]["step"] > 4
