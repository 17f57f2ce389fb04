"""`recbase calibrate` fits on the folders that it is given, and the bundle has what it found."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf import ItemCatalog, RecBaseScorer
from recbase_hf import cli as command_line
from recbase_hf.bundle import save_bundle
from recbase_hf.commands import calibrate as command
from recbase_hf.data.domain import ItemVectors, load_domain
from recbase_hf.evaluation.metrics import gauc
from recbase_hf.evaluation.protocols.leave_last_out import leave_last_out
from recbase_hf.scoring.calibration import Calibration, require_not_fitted_on
from recbase_hf.text.template import ItemTemplate
from tiny_world import HashEncoder, make_items, make_model, make_tokenizer

SOURCE = ItemVectors(HashEncoder.name, template=ItemTemplate(fields=("title",)))


def recbase(*arguments: str | Path) -> None:
    command_line.main([str(argument) for argument in arguments])


def error_of(*arguments: str | Path) -> str:
    """The one line with which `recbase calibrate` ends."""
    with pytest.raises(SystemExit) as end:
        recbase("calibrate", *arguments)
    message = str(end.value)
    assert isinstance(message, str)
    assert "\n" not in message
    return message


def write_domain(folder: Path, lengths: list[int], *, num_items: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    items, rng = make_items(num_items), np.random.default_rng(seed)
    events = [
        {"user_id": f"user-{user}", "item_id": items[item]["item_id"], "timestamp": place}
        for user, length in enumerate(lengths)
        for place, item in enumerate(rng.permutation(num_items)[:length])
    ]
    for name, rows in (("items", items), ("interactions", events)):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _hash_encoder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECBASE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("recbase_hf.text.vector_cache.load_text_encoder", lambda *_args, **_options: HashEncoder())
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with three data sets."""
    folder = tmp_path_factory.mktemp("data")
    write_domain(folder / "toys", [2 + user % 7 for user in range(40)], num_items=30)
    write_domain(folder / "games", [5] * 20, num_items=45, seed=1)
    write_domain(folder / "unseen", [4] * 20, num_items=50, seed=2)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, data) -> Path:
    """A bundle that was trained on toys and games, as its record says."""
    folder = tmp_path_factory.mktemp("runs") / "model"
    tokenizer = make_tokenizer()
    hashes = {name: load_domain(data / name, SOURCE).hash for name in ("toys", "games")}
    save_bundle(
        folder, make_model(tokenizer.layout), tokenizer, card="# A card\n", record={"settings": {"data": hashes}}
    )
    return folder


@pytest.fixture
def bundle(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "model")


def flags_of(bundle: Path, *folders: Path) -> tuple[str | Path, ...]:
    return "--model", bundle, "--data", *folders


def test_the_bundle_gets_what_was_fitted(bundle, data, capsys):
    recbase("calibrate", *flags_of(bundle, data / "toys", data / "games"))
    out, said = capsys.readouterr()
    calibration = Calibration.load(bundle)
    domains = {name: load_domain(data / name, SOURCE) for name in ("toys", "games")}
    assert calibration.fitted_on == {name: domain.hash for name, domain in domains.items()}
    assert calibration.items_of == {name: domain.items_hash for name, domain in domains.items()}
    assert calibration.settings["max_users"] == 1000
    assert RecBaseScorer.from_pretrained(bundle, device="cpu").calibration == calibration
    assert "not trained on" not in said
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["toys", "games", "mean"]
    assert all(f"{value:.4f}" in lines[1] for name, value in calibration.figures["toys"].items() if name != "users")
    assert lines[-1].endswith(f": {bundle / 'calibration.json'}")
    with pytest.raises(ValueError, match="toys: the calibration of this bundle was fitted on this very data set"):
        require_not_fitted_on(calibration, domains["toys"].hash, domains["toys"].items_hash, "toys")


def test_recommendations_by_the_calibrated_score_are_those_of_the_library(bundle, data, tmp_path, capsys):
    recbase("calibrate", *flags_of(bundle, data / "toys", data / "games"))
    scorer = RecBaseScorer.from_pretrained(bundle, device="cpu")
    domain = load_domain(data / "toys", SOURCE)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=scorer.tokenizer, vectors=domain.vectors)
    catalog.save_pretrained(tmp_path / "catalog")
    history, gone, ids = catalog.item_ids[:2], catalog.item_ids[2], np.array(catalog.item_ids[3:])
    given = ["recommend", "--model", bundle, "--catalog", tmp_path / "catalog", "--history", *history]
    capsys.readouterr()
    recbase(*given, "--method", "calibrated", "--exclude", gone, "--k", "5")
    found = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    scores = scorer.score_calibrated(history, ids.tolist(), catalog=catalog)
    assert found == ids[np.argsort(-scores, kind="stable")[:5]].tolist()
    for flags, complaint in ((["--k", "999"], "items can be recommended"), (["--search", "beam"], "no beams")):
        with pytest.raises(SystemExit) as end:
            recbase(*given, "--method", "calibrated", *flags)
        assert end.value.code == 2
        assert complaint in capsys.readouterr().err


def test_the_figures_are_those_of_the_last_items_and_no_worse_than_without(bundle, data):
    recbase("calibrate", *flags_of(bundle, data / "toys", data / "games"), "--seed", "3", "--max-users", "15")
    scorer = RecBaseScorer.from_pretrained(bundle, device="cpu")
    figures = scorer.calibration.figures
    domain = load_domain(data / "toys", SOURCE)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=scorer.tokenizer, vectors=domain.vectors)
    catalog = catalog.mirrored(command.IMAGE, tokenizer=scorer.tokenizer)  # as in a domain that the model does not know
    task = leave_last_out(domain.histories, len(catalog), max_users=15, seed=3)
    scores = scorer.score_calibrated_rows(task.histories, task.candidates_of(0, len(task)), catalog=catalog)
    found = gauc(task.labels, np.concatenate(scores), task.user_of_row).value
    assert figures["toys"]["users"] == 15
    assert figures["toys"]["calibrated"] == pytest.approx(found, abs=0.02)
    means = {name: np.mean([part[name] for part in figures.values()]) for name in figures["toys"]}
    assert means["calibrated"] >= max(means["joint"], means["catalog"])


def test_the_same_command_finds_the_same_and_replaces_even_a_broken_file(bundle, data):
    flags = flags_of(bundle, data / "toys")
    recbase("calibrate", *flags)
    first = (bundle / "calibration.json").read_bytes()
    (bundle / "calibration.json").write_text("{")
    recbase("calibrate", *flags)
    assert (bundle / "calibration.json").read_bytes() == first


def test_no_other_folder_is_read(bundle, data, tmp_path, monkeypatch):
    alone = shutil.copytree(data / "toys", tmp_path / "alone" / "toys")
    recbase("calibrate", *flags_of(bundle, alone))
    without_neighbors = Calibration.load(bundle)
    read = []

    def watched(folder, *arguments, **options):
        read.append(folder)
        return load_domain(folder, *arguments, **options)

    monkeypatch.setattr(command, "load_domain", watched)
    recbase("calibrate", *flags_of(bundle, data / "toys"))
    assert read == [data / "toys"]
    assert Calibration.load(bundle) == without_neighbors


def test_a_data_set_that_the_model_was_not_trained_on_is_named(bundle, data, capsys):
    recbase("calibrate", *flags_of(bundle, data / "toys", data / "unseen"))
    assert "the model was not trained on unseen: " in capsys.readouterr().err
    (bundle / "training.json").unlink()
    recbase("calibrate", *flags_of(bundle, data / "toys"))
    assert "does not say what it was trained on; toys may be new to it" in capsys.readouterr().err


def test_a_copy_gets_it_where_an_output_is_named(bundle, data, tmp_path):
    (bundle / ".git").mkdir()
    recbase("calibrate", *flags_of(bundle, data / "toys"), "--output", tmp_path / "copy")
    assert not (bundle / "calibration.json").exists()
    assert (tmp_path / "copy" / "README.md").read_text() == "# A card\n"
    assert not (tmp_path / "copy" / ".git").exists()
    assert RecBaseScorer.from_pretrained(tmp_path / "copy", device="cpu").calibration is not None

    message = error_of(*flags_of(bundle, data / "toys"), "--output", tmp_path / "copy")
    assert message.endswith("copy is there already; choose another --output, or delete it")
    recbase("calibrate", *flags_of(bundle, data / "toys"), "--output", bundle)
    assert (bundle / "calibration.json").exists()


def test_a_folder_may_be_written_in_other_ways(bundle, data, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    for name in (f"{bundle}/", f"./{bundle.name}", f"{bundle.name}//"):
        recbase("calibrate", *flags_of(name, data / "toys"), "--max-users", "5")
        (bundle / "calibration.json").unlink()


def test_a_model_of_the_hub_is_copied(bundle, data, tmp_path, monkeypatch):
    message = error_of("--model", "nobody/model", "--data", data / "toys")
    assert message.endswith("nobody/model is no local folder; give --output FOLDER for a calibrated copy of it")
    monkeypatch.setattr("huggingface_hub.snapshot_download", {"nobody/model": str(bundle)}.get)
    recbase("calibrate", "--model", "nobody/model", "--data", data / "toys", "--output", tmp_path / "copy")
    assert Calibration.load(tmp_path / "copy") is not None
    assert Calibration.load(bundle) is None


def test_bad_data_is_refused_and_nothing_written(bundle, data, tmp_path):
    toys = data / "toys"
    again = shutil.copytree(toys, tmp_path / "again")
    short = write_domain(tmp_path / "short", [1] * 5, num_items=30)
    assert "toys twice; name each data set once" in error_of(*flags_of(bundle, toys, toys))
    assert "again holds the same tables as toys" in error_of(*flags_of(bundle, toys, again))
    assert "short: none of 5 users can be evaluated" in error_of(*flags_of(bundle, short))
    assert "nowhere" in error_of(*flags_of(bundle, tmp_path / "nowhere"))
    assert "no_such" in error_of(*flags_of(bundle, toys), "--vectors", "no_such")
    assert "no folder" in error_of(*flags_of(tmp_path / "nowhere", toys))
    np.save(again / "wide_f16.npy", np.ones((30, HashEncoder.dimension + 1), dtype=np.float16))
    pq.write_table(pa.table({"item_id": [item["item_id"] for item in make_items(30)]}), again / "wide_ids.parquet")
    assert "17" in error_of(*flags_of(bundle, again), "--vectors", "wide")
    config = json.loads((bundle / "config.json").read_text())
    assert not (bundle / "calibration.json").exists()
    config["recbase"]["fingerprint"] = "another"
    (bundle / "config.json").write_text(json.dumps(config))
    assert "another" in error_of(*flags_of(bundle, toys))


def test_a_bad_flag_is_named(bundle, data, capsys):
    for flags, complaint in (
        (flags_of(bundle, data / "toys", "--max-users", "0"), "max_users is 0; it must be above 0"),
        (("--model", bundle), "--data is needed"),
        (("--data", data / "toys"), "--model is needed"),
    ):
        with pytest.raises(SystemExit) as end:
            recbase("calibrate", *flags)
        assert end.value.code == 2
        assert complaint in capsys.readouterr().err


def test_the_model_of_the_package_is_never_written_to(data, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["calibrate", "--model", "recbase-mini", "--data", str(data / "toys")])
    assert "recbase-mini comes with the package" in str(stopped.value)
