"""The benchmark of fine-tuning runs on a data set of a handful of items, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finetuning.small_shop import write_base, write_shop
from tiny_world import WIDTH, make_items

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "finetune.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240
    )


def test_a_receipt_has_all_rankers_and_the_table_is_made_of_it(tmp_path):
    base, shop = write_base(tmp_path / "base"), write_shop(tmp_path / "shop", users=60)
    items = make_items(40)
    pq.write_table(pa.table({"item_id": [item["item_id"] for item in items]}), shop / "minilm_ids.parquet")
    np.save(shop / "minilm_f16.npy", np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float16))
    given = ["--model", base, "--data", shop, "--vectors", "minilm", "--receipts", tmp_path / "receipts"]
    given += ["--users", "55", "--epochs", "1", "--max-items", "8", "--test-users", "20", "--catalog-test-users", "10"]
    done = run(*given)
    assert done.returncode == 0, done.stderr
    (receipt,) = (tmp_path / "receipts").glob("*.json")
    content = json.loads(receipt.read_text())
    assert receipt.name == "shop-55.json"
    assert content["learning_users"] == 55
    assert [row["name"] for row in content["rows"]] == ["no model", "zero-shot", "LoRA", "full fine-tuning", "SASRec"]
    for row in content["rows"]:
        for figures in row["figures"].values():
            assert set(figures) == {"gauc", "recall@10", "ndcg@10"}
    assert "LoRA" in done.stdout
    assert str(tmp_path) not in receipt.read_text()
    assert runpy.run_path(str(SCRIPT))["render"](tmp_path / "receipts") == done.stdout.strip()
    assert run(*given).returncode == 0, "a finished receipt is not made again"
    other = run(*given, "--learning-rate", "0.5")
    assert other.returncode == 1
    assert "was made with other settings (learning_rate)" in other.stderr
    plot = runpy.run_path(str(SCRIPT.with_name("finetune_plot.py")))
    drawn = ElementTree.fromstring(plot["draw"](tmp_path / "receipts"))
    assert len(drawn.findall("{*}polyline")) == len(plot["LINES"])
