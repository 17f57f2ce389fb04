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
    assert json.loads(capsys.readouterr().out) == {
        "file": "pairs-scored.csv",
        "users": 2,
        "rows": 2,
        "method": "joint",
    }
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
        (["--table", "t", "--catalog", "c", "--items", "items.csv"], "belong to --log"),
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
