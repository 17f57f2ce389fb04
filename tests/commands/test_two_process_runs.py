"""The README's command for several processes, on data so small that one process has nothing to validate on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recbase_hf import RecBaseScorer


@pytest.fixture
def data(tmp_path):
    """Two tables with vectors beside them, so that no text encoder is needed."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "shop"
    folder.mkdir()
    ids = [f"i{number}" for number in range(60)]
    pq.write_table(
        pa.table({"item_id": ids, "text": [f"thing {number}" for number in range(60)]}), folder / "items.parquet"
    )
    users = np.repeat([f"u{number}" for number in range(30)], 8)
    chosen = np.concatenate([rng.permutation(60)[:8] for _ in range(30)])
    events = {"user_id": users, "item_id": [ids[row] for row in chosen], "order": list(range(8)) * 30}
    pq.write_table(pa.table(events), folder / "interactions.parquet")
    np.save(folder / "minilm_f16.npy", rng.normal(size=(60, 16)).astype(np.float16))
    pq.write_table(pa.table({"item_id": ids}), folder / "minilm_ids.parquet")
    return folder


@pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes would share one accelerator")
def test_pretraining_on_two_processes_leaves_a_model(data, tmp_path):
    config = tmp_path / "quick.yaml"
    config.write_text("epochs: 2\nbatch_rows: 2\nevaluate_every: 1\nrow_length: 64\nmax_items: 8\nsize: tiny\n")
    tokenizer = ["train-tokenizer", "--quantizer", "cl-vae", "--codebook-size", "8", "--hidden-dims", "16"]
    tokenizer += ["--latent-dim", "8"]
    tokenizer += ["--max-steps-per-level", "5", "--batch-size", "16"]
    common = ["--data", str(data), "--vectors", "minilm", "--output", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

    def run(*command: str) -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr

    run(sys.executable, "-m", "recbase_hf", *tokenizer, *common)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(port),
    ]
    # one validation user makes one validation row: the second process has none
    run(*launch, "-m", "recbase_hf", "pretrain", "--config", str(config), "--validation-share", "0.01", *common)
    model = tmp_path / "run" / "model"
    assert RecBaseScorer.from_pretrained(model, device="cpu").max_history == 7

    evaluation = ["-m", "recbase_hf", "evaluate", "--model", str(model), "--data", str(data), "--vectors", "minilm"]
    run(*launch, *evaluation, "--ladder", "--output", str(tmp_path / "two.json"))
    run(sys.executable, *evaluation, "--ladder", "--output", str(tmp_path / "one.json"))
    one, two = (json.loads((tmp_path / f"{name}.json").read_text())["rankers"] for name in ("one", "two"))
    for row in (*one, *two):
        del row["seconds"]
    assert two == one
