"""The whole loop as a user types it: tokenizer, model, catalog, recommendations, evaluation."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState, GradientState

from recbase_hf import ItemCatalog, RecBaseScorer, RecBaseTokenizer
from recbase_hf import cli as command_line
from recbase_hf.commands.train_tokenizer import TrainTokenizer
from recbase_hf.doctor.measures import text_collisions
from recbase_hf.quantizers import fit as quantizer_fitting
from tiny_world import HashEncoder, make_items

LEVELS = 2
TOKENIZER_FLAGS = [
    *("--quantizer", "cl-vae", "--num-levels", str(LEVELS), "--codebook-size", "8", "--latent-dim", "4"),
    *("--hidden-dims", "16"),
    *("--batch-size", "16", "--max-steps-per-level", "10", "--evaluate-every", "5"),
]
PACK_FLAGS = ["--row-length", "33", "--max-items", "8"]
TRAIN_FLAGS = ["--epochs", "1", "--batch-rows", "8", "--evaluate-every", "5"]
MODEL_FLAGS = [*PACK_FLAGS, *TRAIN_FLAGS]


def recbase(*arguments: str | Path) -> None:
    """What `recbase ...` does, in a process that has not used Accelerate yet."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    command_line.main([str(argument) for argument in arguments])


def error_status(*arguments: str | Path) -> Any:
    with pytest.raises(SystemExit) as end:
        recbase(*arguments)
    return end.value.code


def error_of(*arguments: str | Path) -> str:
    """The message with which a command ends; it must be one line."""
    with pytest.raises(SystemExit) as end:
        recbase(*arguments)
    message = str(end.value)
    assert end.value.code in (2, 130)
    assert "\n" not in message
    return message


def write_table(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_domain(folder: Path, lengths: list[int], *, num_items: int = 30, seed: int = 0) -> Path:
    """Two tables: items with titles, and a user with so many events for each of `lengths`."""
    folder.mkdir()
    items = make_items(num_items)
    write_table(folder / "items.csv", items)
    rng = np.random.default_rng(seed)
    events = [
        {"user_id": f"user-{user}", "item_id": items[item]["item_id"], "timestamp": place}
        for user, length in enumerate(lengths)
        for place, item in enumerate(rng.permutation(num_items)[:length])
    ]
    write_table(folder / "interactions.csv", events)
    return folder


def vectors_of(count: int) -> np.ndarray:
    """Those of `make_items`."""
    return HashEncoder().encode([item["title"] for item in make_items(count)])


@pytest.fixture(scope="module", autouse=True)
def _hash_encoder(tmp_path_factory):
    """No sentence encoder is loaded, the cache is a fresh folder, and accelerators are forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECBASE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("recbase_hf.text.vector_cache.load_text_encoder", "recbase_hf.load_text_encoder"):
            patch.setattr(name, lambda *_args, **_options: HashEncoder(), raising=False)
        yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    return write_domain(tmp_path_factory.mktemp("data") / "toys", [2 + user % 7 for user in range(60)])


@pytest.fixture(scope="module")
def unseen(tmp_path_factory) -> Path:
    return write_domain(tmp_path_factory.mktemp("data") / "unseen", [5] * 20, num_items=45, seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory, toys, unseen) -> Path:
    """A folder with tokenizer, model and catalog, by the commands."""
    output = tmp_path_factory.mktemp("runs")
    recbase("train-tokenizer", "--data", toys, "--output", output, *TOKENIZER_FLAGS)
    recbase("pretrain", "--data", toys, "--output", output, *MODEL_FLAGS)
    recbase("build-catalog", "--model", output / "model", "--items", unseen, "--output", output / "catalog")
    return output


def forbid_training(monkeypatch) -> None:
    def refuse(*_args, **_options):
        raise AssertionError("trained again")

    monkeypatch.setattr(quantizer_fitting, "fit_quantizer", refuse)
    monkeypatch.setattr("recbase_hf.training.pretrain.train_language_model", refuse)


# ---- what comes out ----------------------------------------------------------------------------------------------


def test_the_tokenizer_comes_with_the_record_of_its_training(made):
    tokenizer = RecBaseTokenizer.from_pretrained(made / "tokenizer")
    assert (tokenizer.layout.num_levels, tokenizer.layout.codebook_size) == (LEVELS, 8)
    record = json.loads((made / "tokenizer" / "training.json").read_text())
    assert record["settings"]["codebook_size"] == 8
    assert list(record["settings"]["data"]) == ["toys"]
    assert [level["level"] for level in record["levels"]] == [1, 2]


SHORT = ["--num-levels", "2", "--codebook-size", "4", "--batch-size", "16", "--max-steps-per-level", "2"]


def test_training_says_how_many_texts_share_an_id_and_what_says_more(toys, tmp_path, capsys):
    recbase("train-tokenizer", "--data", toys, "--output", tmp_path, *SHORT)
    said = capsys.readouterr().err
    catalog = ItemCatalog.from_items(toys, tokenizer=RecBaseTokenizer.from_pretrained(tmp_path / "tokenizer"))
    shared = catalog.collisions().num_colliding_texts
    assert f"toys: {shared} of 29 different texts share their semantic ID with another text\n" in said
    hint = shlex.split(said[said.index("recbase doctor") :].splitlines()[0])
    recbase(*hint[1:], "--fail-on", "never")
    assert "of 29 different texts share their ID with another text" in capsys.readouterr().out


def test_texts_are_counted_with_their_own_vectors_and_in_large_data_by_a_sample(tmp_path, capsys, monkeypatch):
    toys = write_domain(tmp_path / "toys", [3])
    order = np.random.default_rng(0).permutation(30)[:25]
    titles, vectors = [make_items(30)[row]["title"] for row in order], vectors_of(30)[order]
    np.save(toys / "minilm_f16.npy", vectors)
    pq.write_table(pa.table({"item_id": [f"item-{row}" for row in order]}), toys / "minilm_ids.parquet")
    flags = ["--data", toys, "--vectors", "minilm", "--collisions", "reassign", *SHORT]
    recbase("train-tokenizer", *flags, "--output", tmp_path / "all")
    said = capsys.readouterr().err
    tokenizer = RecBaseTokenizer.from_pretrained(tmp_path / "all" / "tokenizer")
    codes = tokenizer.encode_items(vectors, mean=tokenizer.catalog_mean(vectors))
    found = text_collisions(codes, titles)
    assert f"toys: {found.num_colliding} of {found.num_texts} different texts share " in said
    assert ", before reassign tells them apart\n" in said
    assert "--vectors minilm" in said

    monkeypatch.setattr("recbase_hf.data.domain.SAMPLE", 10)
    recbase("train-tokenizer", *flags, "--output", tmp_path / "sample")
    assert "(among 10 items drawn; more do among all)" in capsys.readouterr().err


def test_the_model_is_a_whole_bundle_that_matches_the_tokenizer(made):
    scorer = RecBaseScorer.from_pretrained(made / "model")
    assert scorer.tokenizer.fingerprint == RecBaseTokenizer.from_pretrained(made / "tokenizer").fingerprint
    record = json.loads((made / "model" / "training.json").read_text())
    assert record["settings"]["tokenizer"] == scorer.tokenizer.fingerprint
    assert record["log"][-1]["validation_loss"] > 0
    card = (made / "model" / "README.md").read_text()
    assert "| toys | 30 | 60 |" in card
    assert f"{record['log'][-1]['validation_loss']:.3f}" in card
    lines = (made / "training" / "model" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == record["log"]


def test_no_pickle_is_written(made):
    endings = {path.suffix for path in made.rglob("*") if path.is_file()}
    assert endings <= {".arrow", ".json", ".jsonl", ".jinja", ".safetensors", ".parquet", ".py", ".md"}


def test_the_catalog_holds_the_items_of_the_unseen_domain(made):
    tokenizer = RecBaseTokenizer.from_pretrained(made / "model")
    catalog = ItemCatalog.from_pretrained(made / "catalog", tokenizer=tokenizer)
    assert catalog.item_ids == [item["item_id"] for item in make_items(45)]


def test_recommend_prints_a_line_for_each_item(made, capsys):
    flags = ["--model", made / "model", "--catalog", made / "catalog", "--k", "4"]
    capsys.readouterr()
    recbase("recommend", *flags, "--history", "item-3", "item-5")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    scores, item_ids = zip(*((float(line.split()[0]), line.split()[1]) for line in lines), strict=True)
    assert list(scores) == sorted(scores, reverse=True)
    assert not {"item-3", "item-5"} & set(item_ids), "what the user has is not recommended again"

    recbase("recommend", *flags, "--method", "joint")
    assert len(capsys.readouterr().out.splitlines()) == 4, "a user without history gets recommendations too"


def test_evaluate_writes_a_receipt_and_prints_its_table(made, unseen, tmp_path, capsys, monkeypatch):
    flags = ["--model", made / "model", "--data", unseen, "--output", tmp_path / "deep" / "results.json"]
    monkeypatch.setattr(sys, "argv", ["recbase", "evaluate", *map(str, flags)])
    capsys.readouterr()
    recbase("evaluate", *flags, "--num-negatives", "3", "--max-users", "15")
    printed = capsys.readouterr().out
    receipt = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert receipt["dataset"]["name"] == "unseen"
    assert (receipt["dataset"]["users"], receipt["dataset"]["items"], receipt["dataset"]["events"]) == (20, 45, 100)
    assert (receipt["protocol"]["num_users"], receipt["protocol"]["num_candidates"]) == (15, 4)
    assert receipt["model"]["training_data"].keys() == {"toys"}
    assert not receipt["model"]["was_trained_on_this_data"]
    assert receipt["command"].startswith("recbase evaluate --model")
    assert receipt["options"]["max_users"] == 15
    names = [row["name"] for row in receipt["rankers"]]
    assert names[-2:] == ["RecBase joint", "RecBase catalog"]
    assert len(names) >= 12, "RecBase, chance, popularity, text similarities"
    for name in names:
        assert name in printed
    assert str(tmp_path / "deep" / "results.json") in printed
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["results.json"], "no parts are left"


@pytest.mark.parametrize("protocol", ["leave-one-out", "recgpt", "recgpt-cold-start", "recbench"])
def test_every_protocol_gives_figures(made, unseen, tmp_path, protocol):
    flags = ["--model", made / "model", "--data", unseen, "--output", tmp_path / "r.json", "--protocol", protocol]
    recbase("evaluate", *flags)
    receipt = json.loads((tmp_path / "r.json").read_text())
    rows = {row["name"]: row["metrics"] for row in receipt["rankers"]}
    assert 0 < rows["RecBase catalog"]["gauc"]["value"] < 1
    if protocol == "recbench":
        assert rows["RecBase joint"]["auc"]["value"] is not None
        assert receipt["protocol"]["kind"] == "implicit"
    else:
        assert rows["RecBase joint"]["semantic_id_hit@5"]["value"] >= rows["RecBase joint"]["hit@5"]["value"]
        assert "coverage@5" in rows["random"]


def test_baselines_are_evaluated_without_a_model(unseen, tmp_path):
    recbase("evaluate", "--data", unseen, "--output", tmp_path / "r.json")
    receipt = json.loads((tmp_path / "r.json").read_text())
    assert receipt["model"] is None
    assert not any("RecBase" in row["name"] for row in receipt["rankers"])


def test_the_calibrated_score_is_left_out_where_it_was_fitted(made, toys, unseen, tmp_path, caplog):
    bundle = shutil.copytree(made / "model", tmp_path / "model")
    recbase("calibrate", "--model", bundle, "--data", toys)
    flags = ["--model", bundle, "--output", tmp_path / "r.json"]
    recbase("evaluate", *flags, "--data", unseen)
    receipt = json.loads((tmp_path / "r.json").read_text())
    assert "RecBase calibrated" in [row["name"] for row in receipt["rankers"]]
    assert receipt["model"]["calibration"]["fitted_on"].keys() == {"toys"}
    assert "the receipt of another evaluation (data)" in error_of("evaluate", *flags, "--data", toys)
    recbase("evaluate", "--model", bundle, "--output", tmp_path / "other.json", "--data", toys)
    receipt = json.loads((tmp_path / "other.json").read_text())
    assert "RecBase calibrated" not in [row["name"] for row in receipt["rankers"]]
    assert "fitted on" in receipt["model"]["calibrated_left_out"]
    assert receipt["model"]["was_trained_on_this_data"]
    assert any("the calibrated score is left out" in record.message for record in caplog.records)


def test_items_that_the_model_learned_from_are_known_again(made, toys, tmp_path):
    """Also beside other interactions, in another order, with another column."""
    other = shutil.copytree(toys, tmp_path / "other")
    lines = (other / "items.csv").read_text().splitlines()
    changed = [f"{line},{'x' if number else 'extra'}" for number, line in enumerate(lines)]
    (other / "items.csv").write_text("\n".join([changed[0], *changed[:0:-1]]) + "\n")
    events = (other / "interactions.csv").read_text().splitlines()
    (other / "interactions.csv").write_text("\n".join(events[:-20]) + "\n")
    recbase("evaluate", "--model", made / "model", "--data", other, "--output", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["model"]["was_trained_on_this_data"]


def test_an_interrupted_evaluation_with_other_vectors_starts_over(made, unseen, tmp_path, monkeypatch):
    folder = shutil.copytree(unseen, tmp_path / "unseen")
    pq.write_table(pa.table({"item_id": [f"item-{i}" for i in range(45)]}), folder / "a_ids.parquet")
    shutil.copy(folder / "a_ids.parquet", folder / "b_ids.parquet")
    np.save(folder / "a_f16.npy", vectors_of(45).astype(np.float16))
    np.save(folder / "b_f16.npy", np.random.default_rng(0).normal(size=(45, HashEncoder.dimension)).astype(np.float16))
    flags = ["--data", folder, "--output", tmp_path / "r.json"]
    with monkeypatch.context() as patch:
        patch.setattr("recbase_hf.commands.evaluate.write_receipt", None)
        with pytest.raises(SystemExit, match="NoneType"):
            recbase("evaluate", *flags, "--vectors", "a")
    recbase("evaluate", *flags, "--vectors", "b")
    resumed = json.loads((tmp_path / "r.json").read_text())
    recbase("evaluate", *flags[:2], "--vectors", "b", "--output", tmp_path / "straight.json")
    straight = json.loads((tmp_path / "straight.json").read_text())
    assert [row["metrics"] for row in resumed["rankers"]] == [row["metrics"] for row in straight["rankers"]]


def test_a_protocol_that_the_data_cannot_serve_is_refused(made, unseen, tmp_path):
    flags = ["--model", made / "model", "--data", unseen, "--output", tmp_path / "r.json"]
    movies = ["--protocol", "recbench", "--recbench-set", "MovieLens"]
    assert "rating" in error_of("evaluate", *flags, *movies)
    assert "impressions" in error_of("evaluate", *flags, *movies[:3], "MIND")
    assert error_status("evaluate", *flags, *movies[2:]) == 2
    assert error_status("evaluate", *flags, *movies[:2], "--max-users", "5") == 2
    assert "is a folder" in error_of("evaluate", *flags[:4], "--output", tmp_path)
    assert not (tmp_path / "r.json").exists()


# ---- going on, reusing, refusing ---------------------------------------------------------------------------------


def test_pretrain_trains_a_tokenizer_of_its_own_where_there_is_none(toys, tmp_path, monkeypatch):
    small = partial(TrainTokenizer, num_levels=2, codebook_size=4, batch_size=16)
    small = partial(small, validation_share=0.2, max_steps_per_level=5, evaluate_every=5)
    monkeypatch.setattr("recbase_hf.commands.pretrain.TrainTokenizer", small)
    recbase("pretrain", "--data", toys, "--output", tmp_path, "--seed", "3", *MODEL_FLAGS)
    settings = json.loads((tmp_path / "tokenizer" / "training.json").read_text())["settings"]
    assert (settings["seed"], settings["codebook_size"]) == (3, 4)
    fingerprint = RecBaseTokenizer.from_pretrained(tmp_path / "tokenizer").fingerprint
    assert RecBaseScorer.from_pretrained(tmp_path / "model").tokenizer.fingerprint == fingerprint


def test_running_again_reuses_what_is_there(made, toys, monkeypatch):
    forbid_training(monkeypatch)
    recbase("train-tokenizer", "--data", toys, "--output", made, *TOKENIZER_FLAGS)
    recbase("pretrain", "--data", toys, "--output", made, *MODEL_FLAGS)


@pytest.mark.parametrize(
    ("command", "change", "named"),
    [
        ("train-tokenizer", ["--latent-dim", "8"], "tokenizer made with other settings (latent_dim)"),
        ("train-tokenizer", ["--seed", "1", "--item-lead", "Toy."], "other settings (item_lead, seed)"),
        ("pretrain", ["--learning-rate", "0.5"], "model made with other settings (learning_rate)"),
    ],
)
def test_running_again_with_other_settings_is_refused_and_names_them(made, toys, monkeypatch, command, change, named):
    forbid_training(monkeypatch)
    flags = TOKENIZER_FLAGS if command == "train-tokenizer" else MODEL_FLAGS
    assert named in error_of(command, "--data", toys, "--output", made, *flags, *change)


def test_running_again_on_changed_data_is_refused(made, toys, tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    other_items = write_domain(tmp_path / "toys", [3] * 20, num_items=21)
    message = error_of("train-tokenizer", "--data", other_items, "--output", made, *TOKENIZER_FLAGS)
    assert "other settings (data, items)" in message
    (tmp_path / "users").mkdir()
    other_users = write_domain(tmp_path / "users" / "toys", [3] * 20)
    message = error_of("pretrain", "--data", other_users, "--output", made, *MODEL_FLAGS)
    assert "other settings (data)" in message
    recbase("train-tokenizer", "--data", other_users, "--output", made, *TOKENIZER_FLAGS)  # which reads items alone


def test_an_interrupted_command_says_how_to_go_on_and_does(made, toys, tmp_path, monkeypatch):
    from transformers import Qwen2Model

    flags = ["--data", toys, "--tokenizer", made / "tokenizer", "--output", tmp_path, *MODEL_FLAGS, "--save-every", "1"]
    forward, calls = Qwen2Model.forward, iter(range(10_000))

    def interrupted(model, *args, **options):
        if model.training and next(calls) == 2:
            raise KeyboardInterrupt
        return forward(model, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Qwen2Model, "forward", interrupted)
        assert "goes on from the last checkpoint" in error_of("pretrain", *flags)
    assert not (tmp_path / "model").exists()
    recbase("pretrain", *flags)
    straight, resumed = (json.loads((folder / "model" / "training.json").read_text()) for folder in (made, tmp_path))
    assert resumed["log"] == straight["log"]


def test_several_data_sets_train_one_model(made, toys, unseen, tmp_path):
    recbase("pretrain", "--data", toys, unseen, "--tokenizer", made / "tokenizer", "--output", tmp_path, *MODEL_FLAGS)
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert list(record["settings"]["data"]) == ["toys", "unseen"]


def test_users_with_a_single_event_are_no_hindrance(made, tmp_path):
    few = write_domain(tmp_path / "few", [1] * 30 + [4] * 4)
    recbase("pretrain", "--data", few, "--tokenizer", made / "tokenizer", "--output", tmp_path, *MODEL_FLAGS)
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert np.isfinite(record["log"][-1]["validation_loss"])

    none = write_domain(tmp_path / "none", [1] * 30)
    flags = ["--tokenizer", made / "tokenizer", "--output", tmp_path / "out", *MODEL_FLAGS]
    assert "nothing to learn from" in error_of("pretrain", "--data", none, *flags)


# ---- token shards ------------------------------------------------------------------------------------------------


def test_shards_packed_beforehand_train_the_same_model(made, toys, unseen, tmp_path):
    tokenizer = ["--tokenizer", made / "tokenizer"]
    data = ["--data", toys, unseen]
    recbase("data", "pack", *data, *tokenizer, "--output", tmp_path / "shards", *PACK_FLAGS)
    recbase("pretrain", "--shards", tmp_path / "shards", *tokenizer, "--output", tmp_path / "a", *TRAIN_FLAGS)
    recbase("pretrain", *data, *tokenizer, "--output", tmp_path / "b", *MODEL_FLAGS)
    files = [tmp_path / run / "model" / "model.safetensors" for run in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    records = [json.loads((tmp_path / run / "model" / "training.json").read_text()) for run in ("a", "b")]
    assert records[0]["settings"]["data"] == records[1]["settings"]["data"]


def test_temperature_changes_what_is_learned(made, toys, unseen, tmp_path):
    flags = ["--data", toys, unseen, "--tokenizer", made / "tokenizer", *MODEL_FLAGS]
    recbase("pretrain", *flags, "--output", tmp_path / "a")
    recbase("pretrain", *flags, "--output", tmp_path / "b", "--temperature", "5")
    files = [tmp_path / run / "model" / "model.safetensors" for run in ("a", "b")]
    assert files[0].read_bytes() != files[1].read_bytes()


def test_shards_of_another_tokenizer_and_unfinished_ones_are_refused(made, toys, tmp_path):
    recbase("train-tokenizer", "--data", toys, "--output", tmp_path, *TOKENIZER_FLAGS, "--seed", "5")
    recbase(
        "data", "pack", "--data", toys, "--tokenizer", tmp_path / "tokenizer", "--output", tmp_path / "s", *PACK_FLAGS
    )
    flags = ["--output", tmp_path / "out", *TRAIN_FLAGS]
    assert "--shards needs the tokenizer" in error_of("pretrain", "--shards", tmp_path / "s", *flags)
    flags += ["--tokenizer", made / "tokenizer"]
    assert "leave out --data" in error_of("pretrain", "--shards", tmp_path / "s", "--data", toys, *flags)
    assert "leave out --max-items" in error_of("pretrain", "--shards", tmp_path / "s", "--max-items", "9", *flags)
    assert not (tmp_path / "out" / "tokenizer").exists()
    assert "fingerprint" in error_of("pretrain", "--shards", tmp_path / "s", *flags)
    (tmp_path / "s" / "shards.json").unlink()
    assert "no finished token shards" in error_of("pretrain", "--shards", tmp_path / "s", *flags)


def test_vectors_encoded_beforehand_are_packed(made, toys, tmp_path, monkeypatch):
    folder = shutil.copytree(toys, tmp_path / "toys")
    monkeypatch.setattr("recbase_hf.text.encoder.load_text_encoder", lambda *_args, **_options: HashEncoder())
    recbase("data", "encode", "--data", folder, "--name", "hash")
    assert np.load(folder / "hash_f16.npy").shape == (30, HashEncoder.dimension)
    flags = ["--data", folder, "--tokenizer", made / "tokenizer", *PACK_FLAGS]
    recbase("data", "pack", *flags, "--vectors", "hash", "--output", tmp_path / "shards")
    facts = json.loads((tmp_path / "shards" / "shards.json").read_text())
    assert facts["domains"]["toys"]["users"] == 60


def test_a_data_set_is_split_and_what_leaks_is_said(toys, tmp_path, capsys):
    recbase("data", "split", "--data", toys, "--out", tmp_path / "split", "--by", "time")
    assert "users with a last item to predict" in capsys.readouterr().out
    train, test = tmp_path / "split" / "train" / "toys", tmp_path / "split" / "test" / "toys"
    recbase("data", "leakage", "--train", train, "--test", test)
    assert "none of" in capsys.readouterr().out
    assert error_status("data", "leakage", "--train", toys, "--test", test) == 1
    assert "are in" in capsys.readouterr().out


# ---- configuration files -----------------------------------------------------------------------------------------


def test_a_configuration_file_gives_values_and_flags_win_over_it(toys, tmp_path):
    values = {"quantizer": "cl-vae", "num_levels": 2, "codebook_size": 8, "latent_dim": 4, "hidden_dims": [16]}
    values |= {"data": [str(toys)]}
    values |= {"batch_size": 16, "max_steps_per_level": 5, "evaluate_every": 5, "seed": 1, "learning_rate": "1e-3"}
    lines = [f"{name}: {json.dumps(value)}" for name, value in values.items()]
    (tmp_path / "tokenizer.yaml").write_text("\n".join(lines).replace('"1e-3"', "1e-3"))  # a string to YAML
    recbase("train-tokenizer", "--config", tmp_path / "tokenizer.yaml", "--seed", "2", "--output", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "tokenizer" / "training.json").read_text())["settings"]
    assert (settings["seed"], settings["hidden_dims"], settings["learning_rate"]) == (2, [16], 1e-3)


def test_a_misspelt_key_of_a_configuration_file_is_refused_with_the_right_one(tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text("codebok_size: 8\n")
    with pytest.raises(SystemExit) as end:
        recbase("train-tokenizer", "--config", tmp_path / "wrong.yaml")
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert "codebok_size" in message
    assert "did you mean codebook_size" in message.replace("'", "")


# ---- help and errors ---------------------------------------------------------------------------------------------


def test_a_missing_flag_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        recbase("calibrate")
    assert end.value.code == 2
    assert "--model is needed" in capsys.readouterr().err


def test_errors_end_in_one_line(made, toys, unseen, tmp_path):
    model = ["--model", made / "model"]
    assert "item-99" in error_of("recommend", *model, "--catalog", made / "catalog", "--history", "item-99")
    assert "nowhere" in error_of("recommend", *model, "--catalog", tmp_path / "nowhere")
    assert "nowhere" in error_of("evaluate", *model, "--data", tmp_path / "nowhere")
    assert "python-api/else" in error_of("evaluate", *model, "--data", "python-api/else")
    vectors = ["--vectors", "no_such", "--output", tmp_path / "results.json"]
    assert "no_such" in error_of("evaluate", *model, "--data", unseen, *vectors)
    small_rows = ["--row-length", "5", "--tokenizer", made / "tokenizer", "--output", tmp_path]
    assert "lower max_items" in error_of("pretrain", "--data", toys, *small_rows)

    broken = write_domain(tmp_path / "broken", [3] * 5)
    (broken / "items.csv").write_text("item_id,title\na,same\na,same\n")
    assert "items.csv" in error_of("build-catalog", *model, "--items", broken, "--output", tmp_path / "catalog")
    assert not (tmp_path / "catalog").exists()


@pytest.mark.parametrize(
    ("flags", "quantizers"),
    [
        (["--curriculum", "epochs"], "cl-vae, rq-vae"),
        (["--grid", "4", "4"], "fsq"),
        (["--quantizer", "fsq", "--level-dim", "3"], "product"),
    ],
)
def test_a_flag_of_another_quantizer_is_refused_and_says_whose_it_is(toys, tmp_path, flags, quantizers):
    message = error_of("train-tokenizer", "--data", toys, "--output", tmp_path, *flags)
    assert f"only to {quantizers}; leave it out" in message


def test_events_without_their_place_are_dropped_as_the_error_says(made, tmp_path):
    toys = write_domain(tmp_path / "toys", [6] * 20)
    with open(toys / "interactions.csv", "a", encoding="utf-8") as file:
        file.write("user-0,item-29,\n")
    flags = ["--data", toys, "--tokenizer", made / "tokenizer", "--output", tmp_path, *MODEL_FLAGS]
    assert "drop these events (--unordered-events drop" in error_of("pretrain", *flags)
    recbase("pretrain", *flags, "--unordered-events", "drop")
    assert (tmp_path / "model").exists()


def test_a_catalog_is_not_built_over_another(made, unseen):
    message = error_of("build-catalog", "--model", made / "model", "--items", unseen, "--output", made / "catalog")
    assert message.endswith(f"{made}/catalog holds a catalog already; choose another --output, or delete that folder")


def test_an_item_without_text_is_named(made, tmp_path):
    folder = write_domain(tmp_path / "silent", [3] * 5)
    write_table(folder / "items.csv", [{"item_id": f"item-{i}", "title": "" if i == 7 else "hat"} for i in range(30)])
    message = error_of("train-tokenizer", "--data", folder, "--output", tmp_path / "out", *TOKENIZER_FLAGS)
    assert "item-7" in message


def test_a_missing_optional_package_ends_in_one_line(made, unseen, tmp_path, monkeypatch):
    def missing(*_args, **_options):
        raise ImportError('install it with: pip install "recbase-hf[text]"')

    monkeypatch.setattr("recbase_hf.text.vector_cache.load_text_encoder", missing)
    message = error_of("evaluate", "--model", made / "model", "--data", unseen, "--output", tmp_path / "results.json")
    assert "recbase-hf[text]" in message


def test_the_demo_ranks_new_domains_and_recommends(made, unseen, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECBASE_CACHE", "restored after the demo has set it")
    monkeypatch.setattr("recbase_hf.commands.options.resolve_folder", Path)  # nothing installed is read
    crowd = write_domain(tmp_path / "crowd", [4] * 80)
    output = tmp_path / "demo"
    recbase("demo", "--model", made / "model", "--data", crowd, unseen, "--output", output, "--k", "1000")
    printed = capsys.readouterr().out
    for name in ("crowd", "unseen", "random", "centered, log-sum-exp", "popularity, adapted", "RecBase joint"):
        assert name in printed
    assert re.search(r"top \d+ of \d+ items", printed)
    assert printed.splitlines()[-1] == f"everything is in {output}"
    rankers = json.loads((output / "results" / "crowd.json").read_text())["rankers"]
    assert "RecBase adapted" in [row["name"] for row in rankers]
    assert (output / "catalog" / "crowd" / "catalog.json").exists()


def test_the_training_demo_reuses_what_is_there_and_shows_table_and_recommendations(
    made, unseen, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RECBASE_CACHE", "restored after the demo has set it")
    monkeypatch.setattr("recbase_hf.commands.options.resolve_folder", Path)  # nothing installed is read
    forbid_training(monkeypatch)
    output = tmp_path / "demo"
    shutil.copytree(made, output)
    recbase("demo-train", "--data", unseen, "--output", output, "--k", "1000")
    printed = capsys.readouterr().out
    for name in ("random", "popularity", "mean cosine", "log-sum-exp", "RecBase joint", "RecBase catalog"):
        assert name in printed
    # no history of this data has five items, so the longest is shown; and no more than all other items are asked for
    assert "top 41 of 45 items" in printed
    assert printed.splitlines()[-1] == f"everything is in {output}"
    assert (output / "catalog" / "unseen" / "catalog.json").exists()
    assert json.loads((output / "results" / "unseen.json").read_text())["rankers"]
