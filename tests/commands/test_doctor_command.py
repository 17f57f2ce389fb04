"""`recbase doctor` as a user types it: what it reads, what it writes, and the status with which it ends."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from recbase_hf import ItemCatalog, cli
from tiny_world import HashEncoder, make_items, make_tokenizer


def write_table(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def doctor(*arguments: str | Path, json_into: Path | None = None) -> int:
    """The exit status; `json_into` takes what `--json` prints."""
    command = ["doctor", *map(str, arguments)]
    if json_into is None:
        return recbase(*command)
    with redirect_stdout(io.StringIO()) as printed:
        status = recbase(*command, "--json")
    json_into.write_text(printed.getvalue())
    return status


def recbase(*arguments: str) -> int:
    """The exit status of the whole command line."""
    try:
        cli.main(arguments)
    except SystemExit as end:
        return end.code
    return 0


def verdicts(path: Path) -> dict[tuple[str, str], str]:
    findings = json.loads(path.read_text())["findings"]
    return {(finding["subject"], finding["check"]): finding["severity"] for finding in findings}


@pytest.fixture(autouse=True)
def _hash_encoder(monkeypatch):
    for name in ("recbase_hf.text.vector_cache.load_text_encoder", "recbase_hf.load_text_encoder"):
        monkeypatch.setattr(name, lambda *_args, **_options: HashEncoder(), raising=False)


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    return write_table(tmp_path_factory.mktemp("data") / "toys" / "items.csv", make_items(40)).parent


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def catalog_folder(tmp_path_factory, toys) -> Path:
    folder = tmp_path_factory.mktemp("catalogs") / "toys"
    ItemCatalog.from_items(toys, tokenizer=make_tokenizer()).save_pretrained(folder)
    return folder


def codes_of(items: int, *, collide: bool) -> np.ndarray:
    codes = np.random.default_rng(0).permutation(4096)[:items]
    codes = np.stack([codes // 256, codes // 16 % 16, codes % 16], axis=1)
    codes[: items // 2] = codes[0] if collide else codes[: items // 2]
    return codes


def write_codes(path: Path, codes: np.ndarray) -> Path:
    numbers = codes + 1 + 16 * np.arange(codes.shape[1])
    if path.suffix == ".json":
        path.write_text(json.dumps({str(row): values for row, values in enumerate(numbers.tolist())}))
        return path
    rows = [
        {"item_id": f"item-{row}", **{f"c{level}": code for level, code in enumerate(values, 1)}}
        for row, values in enumerate(numbers.tolist())
    ]
    return write_table(path, rows)


# ---- what it reads ---------------------------------------------------------------------------------------------------


def test_items_alone_are_judged_before_training(toys, tmp_path, capsys):
    assert doctor("--items", toys, json_into=tmp_path / "doctor.json") == 0
    found = verdicts(tmp_path / "doctor.json")
    assert found["toys", "empty texts"] == "ok"
    assert found["toys", "semantic IDs"] == "not measured"
    assert doctor("--items", toys) == 0
    assert "NOT MEASURED" in capsys.readouterr().out


def test_vectors_beside_the_table_are_used(tmp_path):
    items = make_items(30)
    write_table(tmp_path / "hats" / "items.csv", items)
    np.save(tmp_path / "hats" / "minilm_f16.npy", HashEncoder().encode([item["title"] for item in items[:20]]))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"item_id": [item["item_id"] for item in items[:20]]}), tmp_path / "hats/minilm_ids.parquet"
    )
    status = doctor("--items", tmp_path / "hats", "--vectors", "minilm", json_into=tmp_path / "doctor.json")
    assert status == 0
    assert verdicts(tmp_path / "doctor.json") == {
        ("hats", "left out"): "not measured",
        ("hats", "empty texts"): "ok",
        ("hats", "repeated texts"): "warning",
        ("hats", "vectors"): "ok",
        ("hats", "semantic IDs"): "not measured",
        ("all tables", "level 1 and data set"): "not measured",
    }


def test_a_catalog_is_judged_alone_and_with_its_tokenizer(catalog_folder, tokenizer_folder, tmp_path):
    report = tmp_path / "doctor.json"
    doctor("--catalog", catalog_folder, json_into=report)
    assert verdicts(report)["toys", "reconstruction"] == "not measured"
    doctor("--catalog", catalog_folder, "--model", tokenizer_folder, json_into=report)
    assert verdicts(report)["toys", "reconstruction"] != "not measured"


def test_items_are_encoded_by_a_model_and_those_without_text_are_reported(tmp_path, tokenizer_folder, catalog_folder):
    items = make_items(40)
    items[7]["title"] = ""
    table = write_table(tmp_path / "toys.csv", items)
    doctor("--items", table, "--model", tokenizer_folder, json_into=tmp_path / "doctor.json")
    found = verdicts(tmp_path / "doctor.json")
    assert found["toys", "empty texts"] == "fault"
    assert found["toys", "left out"] == "not measured"
    assert found["toys", "neighbor recall"] != "not measured"


@pytest.mark.parametrize("name", ["codes.csv", "toys.index.json"])
def test_published_codes_are_judged(toys, tmp_path, name, capsys):
    codes = write_codes(tmp_path / name, codes_of(40, collide=True))
    report = tmp_path / "doctor.json"
    judged = ("--items", toys, "--codes", codes, "--codebook-size", 16)
    assert doctor(*judged, json_into=report) == doctor(*judged) == 1
    assert verdicts(report)["toys", "collisions"] == "fault"
    assert json.loads(report.read_text())["codebook_size"] == 16
    assert "20 items (50.0 %) with 19 different texts" in capsys.readouterr().out


def test_several_tables_are_judged_together(toys, tmp_path):
    other = write_table(tmp_path / "hats" / "items.csv", make_items(40))
    codes = write_codes(tmp_path / "codes.csv", codes_of(40, collide=False))
    report = tmp_path / "doctor.json"
    doctor("--items", toys, other, "--codes", codes, codes, "--codebook-size", 16, json_into=report)
    assert {subject for subject, _ in verdicts(report)} == {"toys", "hats", "all tables"}
    assert json.loads(report.read_text())["joint"]["level_one"]["bits"] == pytest.approx(0.0, abs=1e-9)


def test_folders_of_one_name_are_told_apart_by_their_path(toys, tmp_path):
    write_table(tmp_path / "toys" / "items.csv", make_items(5))
    doctor("--items", toys, tmp_path / "toys", json_into=tmp_path / "doctor.json")
    assert {str(toys), str(tmp_path / "toys")} < {subject for subject, _ in verdicts(tmp_path / "doctor.json")}


# ---- what it writes, and how it ends ---------------------------------------------------------------------------------


def test_the_html_report_is_written(toys, tmp_path, capsys):
    assert doctor("--items", toys, "--html", tmp_path / "made" / "doctor.html") == 0
    assert (tmp_path / "made" / "doctor.html").read_text().startswith("<!doctype html>")
    assert str(tmp_path / "made" / "doctor.html") in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "status"), [([], 1), (["--fail-on", "warning"], 1), (["--fail-on", "never"], 0)])
def test_a_fault_decides_the_status(toys, tmp_path, flags, status):
    codes = write_codes(tmp_path / "codes.csv", codes_of(40, collide=True))
    assert doctor("--items", toys, "--codes", codes, "--codebook-size", 16, *flags) == status


def test_a_warning_fails_only_where_that_is_asked(tmp_path):
    table = write_table(tmp_path / "toys.csv", [{"item_id": row, "title": f"game {row // 2}"} for row in range(10)])
    assert doctor("--items", table) == 0
    assert doctor("--items", table, "--fail-on", "warning") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --catalog or --items"),
        (["--catalog", "a", "--items", "b"], "give --catalog or --items"),
        (["--catalog", "a", "--codes", "b"], "belong to --items"),
        (["--items", "a", "b", "--codes", "c"], "1 --codes for 2 --items"),
        (["--items", "a", "--codes", "c", "--model", "m"], "not both"),
        (["--items", "a", "--codes", "c", "--vectors", "v"], "leave them out"),
        (["--items", "a", "--model", "m", "--item-lead", "Toys."], "the tokenizer's own"),
        (["--items", "a", "--codebook-size", "0"], "above 0"),
        (["--items", "a", "--fail-on", "sometimes"], "invalid choice"),
        (["--item", "a"], "did you mean --items?"),
        (["--catalog", "a", "b", "a"], "--catalog names a 2 times; give each table once"),
        (["--catalog", "shops/a", "shops/../shops/a/"], "--catalog names shops/a 2 times"),
        (["--items", "a", "a", "--codes", "c", "d"], "--items names a 2 times"),
    ],
)
def test_wrong_use_ends_with_status_two_and_a_line(arguments, message, capsys):
    assert doctor(*arguments) == 2
    assert message in capsys.readouterr().err


def test_errors_and_faults_end_with_different_statuses(toys, tmp_path, monkeypatch, capsys):
    codes = write_codes(tmp_path / "codes.csv", codes_of(40, collide=True))
    judged = ["doctor", "--items", str(toys), "--codes", str(codes), "--codebook-size", "16"]
    nameless = write_table(tmp_path / "nameless.csv", [{"id": "a", "title": "Chess"}])
    for arguments, status, complaint in [
        (judged, 1, ""),
        ([*judged, "--fail-on", "never"], 0, ""),
        (["doctor", "--items", str(tmp_path / "absent.csv")], 2, "recbase doctor: "),
        (["doctor", "--items", str(nameless)], 2, "recbase doctor: "),
        (["doctor", "--catalog", str(tmp_path / "absent")], 2, "recbase doctor: "),
        ([*judged, "--first-key", "2"], 2, "first_key is 2"),
    ]:
        assert recbase(*arguments) == status
        assert complaint in capsys.readouterr().err
    for error, status, complaint in [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("broken"), 2, "Traceback"),
    ]:
        monkeypatch.setattr("recbase_hf.commands.doctor.doctor", raising(error))
        assert recbase(*judged) == status
        assert complaint in capsys.readouterr().err


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_arguments: object) -> None:
        raise error

    return fail


def test_the_help_explains_the_statuses(capsys):
    assert doctor("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "exit status is 0 where no finding is as bad as --fail-on, 1 where one is, and 2 where" in shown


def test_index_files_that_count_from_1_are_judged_where_that_is_said(toys, tmp_path):
    index = write_codes(tmp_path / "toys.index.json", codes_of(40, collide=False))
    index.write_text(json.dumps({str(int(key) + 1): codes for key, codes in json.loads(index.read_text()).items()}))
    flags = ["--items", str(toys), "--codes", str(index), "--codebook-size", "16"]
    assert doctor(*flags, "--first-key", "1", "--fail-on", "never") == 0
    with pytest.raises(SystemExit, match="--first-key 1"):
        cli.main(["doctor", *flags])


def test_bad_tables_are_named(toys, tmp_path):
    nameless = write_table(tmp_path / "nameless.csv", [{"id": "a", "title": "Chess"}])
    with pytest.raises(SystemExit, match=r"nameless\.csv: no column 'item_id'"):
        cli.main(["doctor", "--items", str(nameless)])
    empty = tmp_path / "empty.csv"
    empty.write_text("item_id,title\n")
    with pytest.raises(SystemExit, match="no rows"):
        cli.main(["doctor", "--items", str(empty)])
    codes = write_codes(tmp_path / "codes.csv", codes_of(40, collide=False))
    with pytest.raises(SystemExit, match=r"codes\.csv"):
        cli.main(["doctor", "--items", str(toys), "--codes", str(codes), "--codebook-size", "8"])
    short = write_codes(tmp_path / "short.csv", codes_of(39, collide=False))
    with pytest.raises(SystemExit, match="item-39"):
        cli.main(["doctor", "--items", str(toys), "--codes", str(short), "--codebook-size", "16"])
