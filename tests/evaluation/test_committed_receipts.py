"""The receipts in the repository are readable, and those of baselines come out again from the data (slow, needs it)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recbase_hf.cli import main
from recbase_hf.evaluation.comparison import read_sets
from recbase_hf.evaluation.receipts import read_receipt

RECEIPTS = Path(__file__).parents[2] / "benchmarks" / "receipts"
BASELINES = sorted((RECEIPTS / "baselines").glob("*.json"))
A_MINUTE = 60


def test_there_are_receipts_of_baselines_and_a_report_of_them(capsys):
    assert len(BASELINES) >= 10
    main(["report", str(RECEIPTS / "baselines")])
    printed = capsys.readouterr().out
    for receipt in map(read_receipt, BASELINES):
        assert receipt["dataset"]["name"] in printed
        assert receipt["seconds"] < A_MINUTE
    assert len(read_sets([str(RECEIPTS / "baselines")])) == len(BASELINES)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("receipt", BASELINES, ids=lambda path: path.stem)
def test_a_receipt_comes_out_again(receipt, tmp_path, capsys):
    folder = os.environ.get("RECBASE_DATA")
    assert folder, "set RECBASE_DATA to the folder that holds the data sets of the receipts"
    main(["rerun", str(receipt), "--data", str(Path(folder) / receipt.stem), "--output", str(tmp_path)])
    assert "OUTSIDE" not in capsys.readouterr().out
