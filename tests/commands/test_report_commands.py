"""`recbase report` and `recbase rerun` as a user types them: what they print and write, and how they end."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluation.small_receipts import make_receipt, write_receipts
from recbase_hf import RecBaseScorer, cli
from recbase_hf.commands.evaluate import Evaluate, evaluate
from tiny_world import HashEncoder, make_items, make_model, make_tokenizer


def recbase(*arguments: str | Path) -> int:
    """The exit status."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def failure_of(*arguments: str | Path) -> str:
    """The message of the error with which the command ends."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return str(end.value)


def write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# ---- report ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def receipts(tmp_path) -> Path:
    return write_receipts(tmp_path / "receipts", make_receipt("toys"), make_receipt("books"))


def test_the_report_goes_to_the_terminal_as_markdown(receipts, capsys):
    assert recbase("report", receipts, "--metric", "auc") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# Evaluation report")
    assert "### AUC by data set" in printed
    assert "best zero-shot" in printed


@pytest.mark.parametrize(("name", "start"), [("report.html", "<!doctype html>"), ("report.md", "# Evaluation")])
def test_the_report_is_written(receipts, tmp_path, capsys, name, start):
    output = tmp_path / "made" / name
    assert recbase("report", receipts / "0-toys.json", receipts / "1-books.json", "--output", output) == 0
    assert output.read_text(encoding="utf-8").startswith(start)
    assert capsys.readouterr().out == f"report: {output}\n"


def test_errors_of_a_report_are_one_line(receipts, tmp_path):
    assert "has no metric 'nothing'" in failure_of("report", receipts, "--metric", "nothing")
    assert "there is no receipt" in failure_of("report", tmp_path / "missing.json")
    assert "differ in max_history (20, 50)" in failure_of(
        "report", write_receipts(receipts, make_receipt("toys"), make_receipt("toys", max_history=50))
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "--receipts is needed"),
        (["report", "a.json", "--output", "report.pdf"], "must end in .html or .md"),
        (["report", "a.json", "--metrics", "auc"], "did you mean --metric?"),
        (["rerun"], "--receipt is needed"),
    ],
)
def test_wrong_options_are_refused(arguments, message, capsys):
    assert recbase(*arguments) == 2
    assert message in capsys.readouterr().err


# ---- rerun -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _hash_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recbase_hf.text.vector_cache.load_text_encoder", lambda *_args, **_options: HashEncoder())
        yield


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    """A data set of 30 items and 12 users."""
    folder = tmp_path_factory.mktemp("data") / "toys"
    items, rng = make_items(30), np.random.default_rng(0)
    write_table(folder / "items.csv", items)
    events = [
        {"user_id": f"user-{user}", "item_id": items[item]["item_id"], "timestamp": place}
        for user in range(12)
        for place, item in enumerate(rng.permutation(30)[:6])
    ]
    write_table(folder / "interactions.csv", events)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mini"
    tokenizer = make_tokenizer()
    RecBaseScorer(make_model(tokenizer.layout), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, toys, bundle) -> str:
    """The receipt of a real evaluation."""
    path = tmp_path_factory.mktemp("receipts") / "toys.json"
    evaluate(Evaluate(model=str(bundle), data=str(toys), output=str(path)))
    return path.read_text()


@pytest.fixture
def receipt(evaluated, tmp_path) -> Path:
    """A copy that a test may change."""
    path = tmp_path / "receipts" / "toys.json"
    path.parent.mkdir()
    path.write_text(evaluated)
    return path


def changed(receipt: Path, change) -> Path:
    """The receipt with something else in it."""
    content = json.loads(receipt.read_text())
    change(content)
    receipt.write_text(json.dumps(content))
    return receipt


def test_a_rerun_gives_the_same_and_leaves_the_receipt(receipt, toys, bundle, tmp_path, capsys):
    before = receipt.read_text()
    assert recbase("rerun", receipt, "--data", toys, "--model", bundle, "--output", tmp_path / "again") == 0
    printed = capsys.readouterr().out
    count = sum(len(row["metrics"]) for row in json.loads(before)["rankers"])
    assert f"toys.json: {count} equal\n" in printed
    assert "| RecBase catalog" in printed
    assert receipt.read_text() == before
    assert json.loads((tmp_path / "again" / "toys.json").read_text())["dataset"]["name"] == "toys"


def test_names_that_are_folders_here_need_not_be_given(receipt, toys, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (toys, bundle):
        shutil.copytree(folder, tmp_path / folder.name)
    assert recbase("rerun", receipt) == 0
    assert (tmp_path / "runs" / "rerun" / "toys.json").exists()


def test_figures_inside_and_outside_the_intervals_are_told_apart(receipt, toys, bundle, tmp_path, capsys):
    def move(content):
        gauc, auc = (content["rankers"][0]["metrics"][metric] for metric in ("gauc", "auc"))
        gauc["value"] += 1e-6
        auc.update(value=2.0, low=1.9, high=2.1)
        content["versions"]["torch"] = "0.1"

    arguments = ("--data", toys, "--model", bundle, "--output", tmp_path / "again")
    assert recbase("rerun", changed(receipt, move), *arguments) == 1
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("| random")]
    assert [line for line in lines if "inside the interval" in line and "GAUC" in line]
    assert [line for line in lines if "OUTSIDE" in line and "2.000000 [1.900000, 2.100000]" in line]
    assert "not as it was: torch (0.1, " in printed
    assert "1 inside the interval" in printed
    assert "1 OUTSIDE" in printed


def refusal(capsys, *arguments: str | Path) -> str:
    assert recbase("rerun", *arguments) == 2
    return capsys.readouterr().err


def test_places_that_are_not_here_are_asked_for(receipt, toys, bundle, capsys):
    assert "the data of the receipt, toys, is no folder here; say where it lies with --data" in refusal(
        capsys, receipt, "--model", bundle
    )
    assert "the model of the receipt, mini, is no folder here" in refusal(capsys, receipt, "--data", toys)


def test_other_data_is_refused_with_both_hashes(receipt, toys, bundle, capsys, tmp_path):
    other = tmp_path / "toys"
    shutil.copytree(toys, other)
    with open(other / "interactions.csv", "a") as file:
        file.write("user-0,item-0,99\n")
    message = refusal(capsys, receipt, "--data", other, "--model", bundle)
    expected = json.loads(receipt.read_text())["dataset"]["hash"]
    assert f"the receipt is of toys with the hash {expected}" in message
    assert f"{other} has the hash " in message
    assert f"{other} has the hash {expected}" not in message


@pytest.mark.parametrize("part", ["fingerprint", "weights"])
def test_another_model_is_refused_before_anything_is_ranked(receipt, toys, bundle, capsys, monkeypatch, part):
    monkeypatch.setattr("recbase_hf.commands.evaluate.evaluate", None)
    made = changed(receipt, lambda content: content["model"].update({part: "another"}))
    message = refusal(capsys, made, "--data", toys, "--model", bundle)
    assert f"the model here has the {part} " in message
    assert f"the receipt is of mini with the {part} another" in message


def test_other_mistakes_are_named(receipt, toys, bundle, capsys):
    places = ("--data", toys, "--model", bundle)
    assert "which must stay" in refusal(capsys, receipt, *places, "--output", receipt.parent)
    assert "is a folder; give one receipt" in refusal(capsys, receipt.parent)
    newer = changed(receipt, lambda content: content["options"].update(dream=True))
    assert "options that this recbase-hf does not know (dream)" in refusal(capsys, newer, *places)
    baselines = changed(receipt, lambda content: content.update(model=None, options={"data": "toys", "model": None}))
    assert "of baselines alone; leave --model out" in refusal(capsys, baselines, *places)
