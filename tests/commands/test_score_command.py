"""`recbase score` writes what the library scores."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from recbase_hf import ItemCatalog, RecBaseScorer, cli
from tiny_world import HashEncoder, make_items
from training.conftest import forget_accelerate


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """A folder with model, catalog and a table of pairs."""
    folder = tmp_path_factory.mktemp("made")
    RecBaseScorer(world.model, world.tokenizer).save_pretrained(folder / "model")
    world.catalog.save_pretrained(folder / "catalog")
    pairs = {"user_id": [7, 8], "history": [["item-1", "item-2"], []], "candidates": [["item-3", "item-0"], ["item-9"]]}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    return folder


def recbase_score(made, output, *more: str) -> None:
    forget_accelerate()
    flags = ["--model", made / "model", "--catalog", made / "catalog", "--table", made / "pairs.parquet"]
    cli.main(["score", *map(str, flags), "--output", str(output), *more])
    forget_accelerate()


def test_the_command_writes_the_scores_of_the_library(made, tmp_path):
    recbase_score(made, tmp_path / "scores", "--method", "joint", "--alpha", "0.5", "--rows-per-part", "1")
    (row, other) = pq.read_table(tmp_path / "scores" / "scores-00000-of-00001.parquet").to_pylist()
    scorer = RecBaseScorer.from_pretrained(made / "model")
    catalog = ItemCatalog.from_pretrained(made / "catalog")
    expected = scorer.score(["item-1", "item-2"], ["item-3", "item-0"], catalog=catalog, method="joint", alpha=0.5)
    assert (row["user_id"], other["user_id"]) == (7, 8)
    np.testing.assert_allclose(row["scores"], expected, rtol=1e-5, atol=1e-5)


def test_other_options_on_the_same_output_end_in_one_line(made, tmp_path):
    recbase_score(made, tmp_path)
    recbase_score(made, tmp_path)
    with pytest.raises(SystemExit, match=r"recbase score: .*\(method: catalog, now joint\); name another output"):
        recbase_score(made, tmp_path, "--method", "joint")


# ---- the users of a log ----------------------------------------------------------------------------------------------


@pytest.fixture
def files(made, tmp_path, monkeypatch):
    """Two CSV files, as a shop would export them."""
    monkeypatch.setattr("recbase_hf.text.vector_cache.load_text_encoder", lambda *_args, **_options: HashEncoder())
    monkeypatch.chdir(tmp_path)
    items = make_items(40)
    write_csv(tmp_path / "items.csv", [{"sku": item["item_id"], "title": item["title"]} for item in items])
    events = [
        {"customer_id": user, "sku": items[(user + 3 * place) % 40]["item_id"], "date": f"2024-01-{place + 1:02d}"}
        for user in range(55)
        for place in range(3)
    ]
    write_csv(tmp_path / "log.csv", events)
    return tmp_path


def write_csv(path, rows):
    pa_csv.write_csv(pa.Table.from_pylist(rows), path)


def score_of(made, *more):
    cli.main(["score", "--model", str(made / "model"), "--items", "items.csv", "--log", "log.csv", *more])


def test_two_csv_files_are_all_that_is_needed(made, files, capsys):
    score_of(made, "--out", "scored.parquet")
    assert "scored.parquet: 550 rows for 55 users, scored by adapted" in capsys.readouterr().out
    table = pq.read_table("scored.parquet").to_pylist()
    assert {row["user_id"] for row in table} == {str(user) for user in range(55)}
    known = {row["item_id"] for row in table if row["user_id"] == "7"}
    assert len(known) == 10
    assert not known & {"item-7", "item-10", "item-13"}


def test_candidates_of_a_file_are_scored(made, files, capsys):
    write_csv(files / "pairs.csv", [{"customer_id": 7, "sku": "item-3"}, {"customer_id": 1, "sku": "item-4"}])
    score_of(made, "--candidates", "pairs.csv", "--out", "pairs-scored.csv", "--method", "joint", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["users"], told["rows"], told["method"]) == ("pairs-scored.csv", 2, 2, "joint")
    assert told["rows_read"] == {"items": 40, "interactions": 165}
    assert told["columns"] == {"user_id": "customer_id", "item_id": "sku", "timestamp": "date"}
    scorer = RecBaseScorer.from_pretrained(made / "model")
    catalog = ItemCatalog.from_items(make_items(40), tokenizer=scorer.tokenizer)
    expected = scorer.score(["item-7", "item-10", "item-13"], ["item-3"], catalog=catalog, method="joint")
    assert pa_csv.read_csv("pairs-scored.csv")["score"][0].as_py() == pytest.approx(float(expected[0]), rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "give --items and --log, two CSV files, or --catalog and --table"),
        (["--log", "log.csv", "--table", "pairs.parquet"], "give --items and --log"),
        (["--table", "pairs.parquet"], "--table needs --catalog"),
        (["--log", "log.csv", "--catalog", "catalog"], "--catalog belongs to --table"),
        (["--table", "t", "--catalog", "c", "--items", "items.csv"], "--items belongs to --log"),
        (["--table", "t", "--catalog", "c", "--k", "5"], "--k belongs to --log; with --table leave it out"),
        (["--log", "log.csv", "--candidates", "pairs.csv", "--k", "5"], "--k is how many of the best"),
        (["--log", "log.csv", "--alpha", "0"], "--alpha belongs to --table; with --log leave it out"),
        (["--log", "log.csv", "--items", "items.csv", "--delimiter", "::"], "delimiter is '::'; give one character"),
        (["--log", "log.csv", "--items", "items.csv", "--liked-from", "4"], "which column is the grade"),
        (["--table", "t", "--catalog", "c", "--method", "adapted"], "method adapted is for --log"),
        (["--log", "log.csv", "--items", "items.csv", "--out", "scores"], r"call it *.parquet or *.csv"),
        (["--log", "gone.csv", "--items", "items.csv"], "gone.csv does not exist"),
        (["--log", "log.csv", "--items", "items.csv", "--user-id", "who"], "no column 'who'; the columns are"),
        (["--log", "log.csv"], "which columns are the texts of the items? name them with --texts"),
    ],
)
def test_what_does_not_fit_together_ends_with_status_two_and_a_line(made, files, flags, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["score", "--model", str(made / "model"), *flags])
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_files_that_do_not_match_are_refused_before_anything_is_scored(made, files):
    write_csv(files / "items.csv", [{"sku": "A1", "title": "red shoe"}])
    with pytest.raises(SystemExit, match=r"none of the 165 interactions of log .* they have 'item-0'"):
        score_of(made)
    assert not (files / "runs").exists()


def test_losses_and_what_was_taken_for_what_are_said(made, files, capsys):
    with open(files / "log.csv", "a") as log:
        log.write('"999","gone","2024-02-01"\n')
    score_of(made, "--out", "scored.csv")
    printed = capsys.readouterr().out
    assert "user_id is 'customer_id', item_id is 'sku', timestamp is 'date'; liked: all events" in printed
    assert "left out: 1 interactions of items without a row" in printed
    assert "items.csv: an item's text is title" in printed
    assert "what the log itself trusts in: model " in printed
    assert "WARNING" not in printed
    with open(files / "log.csv", "a") as log:
        log.writelines(f'"{user}","00{user}","2024-02-01"\n' for user in range(30))
    score_of(made, "--out", "again.csv")
    assert "WARNING: that is 16% of the log, such as items 'gone', '000'" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="gone"):
        score_of(made, "--out", "other.csv", "--unknown-items", "error")


def test_low_grades_and_dislikes_are_no_likes_and_do_not_come_back(made, files, capsys):
    rows = [
        {"customer_id": user, "sku": f"item-{(user + 3 * place) % 40}", "stars": 1 + 4 * (place != 1)}
        for user in range(55)
        for place in range(4)
    ]
    rows.append({"customer_id": 99, "sku": "item-5", "stars": 1})
    write_csv(files / "log.csv", rows)
    score_of(made, "--out", "all.csv")
    assert "'stars' is a grade, and low ones count as liked too; --liked-from 4" in capsys.readouterr().out
    score_of(made, "--out", "liked.csv", "--liked-from", "4", "--k", "40")
    assert "1 users like nothing in the log: scored without a history" in capsys.readouterr().out
    found = pa_csv.read_csv("liked.csv").to_pylist()
    of_seven = {row["item_id"] for row in found if row["user_id"] == 7}
    assert of_seven == {f"item-{item}" for item in range(40)} - {f"item-{7 + 3 * place}" for place in range(4)}
    assert len([row for row in found if row["user_id"] == 99]) == 39


def test_candidates_may_be_written_in_another_way_than_the_log(made, files):
    (files / "pairs.csv").write_text("user_id;item_id;segment\r\n7;item-3;a\r\n8;gone;b\r\n")
    asked = ("--candidates", "pairs.csv", "--out", "scored.csv", "--method", "joint")
    with pytest.raises(SystemExit, match=r"pairs\.csv, row 2: item 'gone' is not in the file of the items"):
        score_of(made, *asked)
    score_of(made, *asked, "--unknown-items", "drop")
    (row,) = pa_csv.read_csv("scored.csv").to_pylist()
    assert (row["user_id"], row["item_id"], row["segment"]) == (7, "item-3", "a")
    (files / "pairs.csv").write_text("user_id;item_id\n")
    with pytest.raises(SystemExit, match=r"pairs\.csv: no rows; give a user and an item a row"):
        score_of(made, "--candidates", "pairs.csv", "--out", "other.csv")


def test_an_event_without_its_time_is_refused_or_left_out(made, files):
    with open(files / "log.csv", "a") as log:
        log.write('"3","item-0",\n')
    with pytest.raises(SystemExit, match=r"recbase score: log\.csv: .*--unordered-events drop"):
        score_of(made, "--out", "scored.csv")
    score_of(made, "--out", "scored.csv", "--unordered-events", "drop")


def test_several_processes_are_refused_for_a_log(made, files, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="one process scores a log"):
        score_of(made, "--out", "scored.csv")
