"""`recbase finetune`, `merge` and `extend` as they are typed."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetuning.conftest import forget_accelerate
from finetuning.small_shop import write_base, write_shop
from recbase_hf import ItemCatalog, RecBaseScorer, cli
from recbase_hf.publishing import completed_card
from tiny_world import HashEncoder, make_items, make_tokenizer
from training_record import make_training_record

FLAGS = [
    *("--row-length", "65", "--max-items", "8", "--batch-rows", "4", "--ctr-batch", "16"),
    *("--evaluate-every", "4", "--epochs", "2", "--learning-rate", "0.01", "--validation-share", "0.2"),
]
HISTORY, CANDIDATES = ["item-3", "item-17"], [f"item-{item}" for item in range(40)]


def run(command: str, *flags: str | Path) -> None:
    forget_accelerate()
    cli.main([command, *(FLAGS if command == "finetune" else []), *map(str, flags)])


def error_of(command: str, *flags: str | Path) -> str:
    with pytest.raises(SystemExit) as end:
        run(command, *flags)
    return str(end.value)


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "training.json").read_text())


def scores_of(scorer: RecBaseScorer) -> np.ndarray:
    catalog = ItemCatalog.from_items(make_items(40), tokenizer=scorer.tokenizer)
    return scorer.score(HISTORY, CANDIDATES, catalog=catalog)


def scorer_of(folder: Path) -> RecBaseScorer:
    return RecBaseScorer.from_pretrained(folder, device="cpu", text_encoder=HashEncoder())


def test_an_adapter_is_made_served_and_merged(base, shop, tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO, logger="recbase_hf")
    given = ["--model", base, "--data", shop, "--output", tmp_path / "run", "--objective", "both"]
    run("finetune", *given, "--train-rows", "codes")
    adapter = tmp_path / "run" / "adapter"
    assert {path.name for path in adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    }
    record = record_of(adapter)
    tokenizer = make_tokenizer()
    assert record["base"]["fingerprint"] == tokenizer.fingerprint
    assert str(tmp_path.parent) not in (adapter / "training.json").read_text()
    assert set(record["settings"]["data"]) == {"shop"}
    assert record["log"][0]["step"] == 0
    assert record["trained_targets"] > 0

    scorer = scorer_of(base)
    before = scores_of(scorer)
    scorer.load_adapter(adapter, "shop")
    scorer.set_adapter("shop")
    adapted = scores_of(scorer)
    assert np.abs(adapted - before).max() > 0.01
    run("merge", "--adapter", adapter, "--output", tmp_path / "merged")
    np.testing.assert_allclose(scores_of(scorer_of(tmp_path / "merged")), adapted, rtol=1e-5)
    merged = record_of(tmp_path / "merged")
    assert merged["merged"]
    assert set(merged["settings"]["data"]) == {"shop"}

    catalog = ItemCatalog.from_items(make_items(40), tokenizer=scorer.tokenizer)
    catalog.save_pretrained(tmp_path / "catalog")
    capsys.readouterr()
    for model in (["--model", base, "--adapter", adapter], ["--model", tmp_path / "merged"]):
        run("recommend", *model, "--catalog", tmp_path / "catalog", "--history", *HISTORY)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:10] == lines[10:]

    run("finetune", *given, "--train-rows", "codes")
    assert "is there already, made with these settings" in caplog.text
    assert "other settings (train_rows)" in error_of("finetune", *given)
    assert "holds something already" in error_of("merge", "--adapter", adapter, "--output", tmp_path / "merged")
    other = write_base(tmp_path / "other", seed=1)
    flags = ["--adapter", adapter, "--model", other, "--output", tmp_path / "wrong"]
    assert "has other weights" in error_of("merge", *flags)
    assert not (tmp_path / "wrong" / "config.json").exists()


def test_full_fine_tuning_makes_a_bundle(base, shop, tmp_path):
    run("finetune", "--model", base, "--data", shop, "--output", tmp_path, "--method", "full")
    bundle = tmp_path / "model"
    assert np.abs(scores_of(scorer_of(bundle)) - scores_of(scorer_of(base))).max() > 0.01
    assert set(record_of(bundle)["settings"]["data"]) == {"shop"}
    run("finetune", "--model", bundle, "--data", shop, "--output", tmp_path / "again")
    again = record_of(tmp_path / "again" / "adapter")["settings"]
    assert set(again["base_data"]) == {"shop"}


def test_an_extended_bundle_is_fine_tuned_on_the_levels_that_moved(base, shop, tmp_path):
    extended = tmp_path / "extended"
    run("extend", "--model", base, "--data", shop, "--levels", "3", "4", "--output", extended)
    record = record_of(extended)
    assert record["extended"]["levels"] == [3, 4]
    assert set(record["settings"]["tokenizer_items"]) == {"shop"}
    assert scorer_of(extended).tokenizer.fingerprint == record["settings"]["tokenizer"] != make_tokenizer().fingerprint
    given = ["--model", extended, "--data", shop, "--output", tmp_path / "run"]
    run("finetune", *given, "--train-rows", "level-3", "level-4")
    adapter = tmp_path / "run" / "adapter"
    assert "different tokenizers" in error_of(
        "merge", "--adapter", adapter, "--model", base, "--output", tmp_path / "merged"
    )


def commands_of(card: str) -> list[str]:
    """Those that say how it was made."""
    return re.search(r"## How to reproduce\n.*?```bash\n(.*?)\n```", card, re.DOTALL)[1].splitlines()


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_bundle_made_of_another_is_as_trained_as_that_one(is_trained, base, shop, tmp_path):
    start = shutil.copytree(base, tmp_path / "start")
    if is_trained:
        (start / "training.json").write_text(json.dumps(make_training_record()))
    given = ["--model", start, "--data", shop, "--output"]
    nothing_learned = ["--learning-rate", "1e-12", "--epochs", "1", "--max-users", "20"]
    run("finetune", *given, tmp_path / "lora", *nothing_learned)
    assert record_of(tmp_path / "lora" / "adapter")["trained_targets"] == 0
    run("merge", "--adapter", tmp_path / "lora" / "adapter", "--output", tmp_path / "merged")
    run("finetune", *given, tmp_path / "full", *nothing_learned, "--method", "full")
    run("extend", *given, tmp_path / "extended", "--levels", "3", "4")
    cards = {name: completed_card(tmp_path / name) for name in ("merged", "full/model", "extended")}
    for name, card in cards.items():
        assert ("nobody has evaluated these weights" in card) == is_trained, name
        assert ("what was not trained has none" in card) != is_trained, name

    training, merging = commands_of(cards["merged"])
    assert training.endswith("finetune_lora.py --model BASE --config settings.yaml --data shop --output finetuned")
    assert merging == "recbase merge --model BASE --adapter finetuned/adapter --output merged"
    extending = "recbase extend --model BASE --data shop --levels 3 4 --inertia 10 --output extended"
    assert commands_of(cards["extended"]) == [extending]


def test_probes_of_other_data_are_measured_too(base, shop, tmp_path):
    other = write_shop(tmp_path / "other", users=20, seed=3)
    given = ["--model", base, "--data", shop, "--output", tmp_path / "run"]
    run("finetune", *given, "--probe-data", other, "--probe-every", "100")
    assert "probe_gauc_joint/other" in record_of(tmp_path / "run" / "adapter")["log"][-1]
    message = error_of("finetune", *given[:4], "--output", tmp_path / "leaks", "--probe-data", shop)
    assert "is trained on; probe one that is held out" in message


def test_a_base_that_is_none_is_refused(shop, tmp_path):
    message = error_of("finetune", "--model", tmp_path / "nothing", "--data", shop, "--output", tmp_path / "run")
    assert "there is no folder" in message


def test_without_peft_the_command_says_how_to_get_it(base, shop, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    message = error_of("finetune", "--model", base, "--data", shop, "--output", tmp_path)
    assert 'pip install "recbase-hf[train]"' in message
    run("finetune", "--model", base, "--data", shop, "--output", tmp_path / "full", "--method", "full")


def test_without_bitsandbytes_four_bits_are_refused(base, shop, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    message = error_of("finetune", "--model", base, "--data", shop, "--output", tmp_path, "--four-bit")
    assert 'pip install "recbase-hf[qlora]"' in message


def test_four_bits_train_an_adapter_that_the_base_takes(shop, tmp_path):
    pytest.importorskip("bitsandbytes")
    base = write_base(tmp_path / "base", hidden_size=64, intermediate_size=128)
    given = ["--model", base, "--data", shop, "--output", tmp_path / "run"]
    run("finetune", *given, "--four-bit", "--objective", "both", "--train-rows", "codes", "--patience", "0")
    losses = [entry["validation_loss"] for entry in record_of(tmp_path / "run" / "adapter")["log"]]
    assert losses[-1] < losses[0] - 0.1
    scorer = scorer_of(base)
    before = scores_of(scorer)
    scorer.load_adapter(tmp_path / "run" / "adapter", "shop")
    scorer.set_adapter("shop")
    assert np.abs(scores_of(scorer) - before).max() > 0.01


@pytest.mark.parametrize("command", ["finetune", "merge", "extend"])
def test_help_is_shown(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: recbase {command}" in capsys.readouterr().out
