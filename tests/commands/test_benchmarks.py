"""The benchmark scripts run, on data sets of a handful of items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parents[2]
SETS = ("films", "shoes", "songs")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("sets")
    for number, name in enumerate(SETS):
        (root / name).mkdir()
        rng = np.random.default_rng(number)
        ids = [f"{name}-{item}" for item in range(40)]
        pq.write_table(
            pa.table({"item_id": ids, "text": [f"{name} {i // 2}" for i in range(40)]}), root / name / "items.parquet"
        )
        events = [(f"user-{user}", ids[item]) for user in range(12) for item in rng.permutation(40)[:6]]
        users, items = zip(*events, strict=True)
        pq.write_table(pa.table({"user_id": users, "item_id": items}), root / name / "interactions.parquet")
        np.save(root / name / "minilm_f16.npy", rng.normal(size=(40, 24)).astype(np.float16))
        pq.write_table(pa.table({"item_id": ids}), root / name / "minilm_ids.parquet")
    return [str(root / name) for name in SETS]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "benchmarks" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


def test_the_tokenizer_benchmark_leaves_a_receipt_and_refuses_to_mix(folders, tmp_path):
    flags = ["--data", *folders, "--receipts", str(tmp_path), "--shapes", "4x256", "--left-out", "shoes"]
    done = run("tokenizer.py", *flags, "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert "| product |" in done.stdout
    receipt = json.loads((tmp_path / "4x256" / "shoes.json").read_text())
    assert set(receipt["figures"]) == {"product", "fsq", "cl-vae", "rq-vae", "residual-kmeans"}
    assert 0 <= receipt["figures"]["product"]["recall_left_out"] <= 1
    other = run("tokenizer.py", *flags, "--steps", "3")
    assert "was made with other steps" in other.stderr
    twice = run("tokenizer.py", "--data", *folders, folders[0], "--receipts", str(tmp_path))
    assert "same name (films)" in twice.stderr


def test_the_zero_shot_benchmark_leaves_a_receipt(folders, tmp_path):
    flags = ["--codebook-size", "8", "--steps-per-level", "2", "--epochs", "0.1", "--max-items", "8"]
    done = run("zero_shot.py", "--data", *folders[:2], "--vectors", "minilm", "--receipts", str(tmp_path), *flags)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.glob("*.json")} == set(SETS[:2])
