"""Receipts read back as they were written, hold no folder of this machine, and print as tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbase_hf.errors import DataError
from recbase_hf.evaluation.figures import Figure, TaskFigures
from recbase_hf.evaluation.receipt_table import render_table
from recbase_hf.evaluation.receipts import read_receipt, write_receipt
from recbase_hf.evaluation.run import RankerFigures

METRICS = ("gauc", "auc", "mrr", "ndcg@3", "hit@1")


def ranker(name: str, value: float) -> RankerFigures:
    metrics = {metric: Figure(value, value - 0.1, value + 0.1) for metric in METRICS}
    return RankerFigures(TaskFigures(name, metrics, users=7, skipped_users=1), seconds=0.5)


def write(path: Path, **changes) -> dict:
    facts = {
        "rankers": [ranker("random", 0.5), ranker("RecBase joint", 0.75)],
        "dataset": {"name": "shop", "hash": "0123", "items_hash": "4567", "users": 9, "items": 20, "events": 50},
        "protocol": {"name": "leave-last-out", "seed": 3, "ks": [1, 3, 5], "num_items": 20, "num_candidates": 5},
        "model": {"name": "model", "was_trained_on_this_data": False},
        "options": {"data": "/home/ann/shop", "model": "runs/model", "seed": 3},
        "command": "/usr/bin/recbase evaluate --data=/home/ann/shop --seed 3",
        "seconds": 1.23456,
    }
    return write_receipt(path, **{**facts, **changes})


def test_a_receipt_reads_back_as_it_was_written(tmp_path):
    receipt = write(tmp_path / "a" / "receipt.json")
    assert read_receipt(tmp_path / "a" / "receipt.json") == receipt
    assert receipt["rankers"][1]["metrics"]["gauc"] == {"value": 0.75, "low": 0.65, "high": 0.85}
    assert receipt["rankers"][1]["seconds"] == 0.5
    assert {"versions", "hardware", "date", "seconds"} <= receipt.keys()


def test_a_receipt_holds_no_folder_of_this_machine(tmp_path):
    receipt = write(tmp_path / "receipt.json")
    assert receipt["command"] == "recbase evaluate --data=shop --seed 3"
    assert receipt["options"] == {"data": "shop", "model": "runs/model", "seed": 3}
    assert "/home" not in (tmp_path / "receipt.json").read_text()


def test_figures_that_do_not_exist_are_null_and_a_dash(tmp_path):
    nothing = TaskFigures("nobody", {metric: Figure(float("nan")) for metric in METRICS}, users=0, skipped_users=4)
    receipt = write(tmp_path / "receipt.json", rankers=[RankerFigures(nothing, 0.0)])
    assert receipt["rankers"][0]["metrics"]["auc"] == {"value": None, "low": None, "high": None}
    assert "–" in render_table(receipt)
    assert "NaN" not in (tmp_path / "receipt.json").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a receipt"),
        ('{"figures": []}', "is not a receipt"),
        ('{"format_version": 1, "figures": []}', "by an older recbase-hf; make it again"),
        ('{"format_version": 99}', "by a newer recbase-hf"),
    ],
)
def test_files_that_are_no_receipt_are_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_receipt(tmp_path / "x.json")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"format_version": 2')
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_receipt(tmp_path / "x.json")


def test_the_table_says_what_was_measured_and_marks_the_best(tmp_path):
    receipt = write(tmp_path / "receipt.json")
    table = render_table(receipt)
    assert table.startswith("shop: 7 users, 5 candidates each, protocol leave-last-out, seed 3\n")
    assert "| RecBase joint | 0.7500* [0.6500, 0.8500]" in table
    assert "| random        | 0.5000  [0.4000, 0.6000]" in table
    seen = write(tmp_path / "receipt.json", model={"name": "model", "was_trained_on_this_data": True})
    assert "NOT zero-shot" in render_table(seen)
    json.dumps(seen)
