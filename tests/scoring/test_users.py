"""Scores for the users of a log, in one file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from recbase_hf import RecBaseScorer
from recbase_hf.data.histories import Histories
from recbase_hf.errors import UnknownItemError
from recbase_hf.scoring import users as users_module
from recbase_hf.scoring.users import score_users


def histories_of(users: int, items: int, *, seed: int = 0) -> Histories:
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(items)[: 2 + user % 4] for user in range(users)]
    names = np.array([f"user-{user:03d}" for user in range(users)], dtype=object)
    return Histories(names, np.cumsum([0, *map(len, rows)]), np.concatenate(rows))


@pytest.fixture(scope="module")
def scorer(world):
    return RecBaseScorer(world.model, world.tokenizer)


@pytest.fixture
def log(world):
    return histories_of(60, len(world.catalog))


@pytest.mark.parametrize("method", ["joint", "catalog"])
def test_the_best_are_those_that_recommend_gives(world, scorer, log, tmp_path, method):
    done = score_users(scorer, world.catalog, log, tmp_path / "best.parquet", k=3, method=method)
    assert (done.users, done.rows, done.method) == (60, 180, method)
    table = pq.read_table(tmp_path / "best.parquet")
    assert table.column_names == ["user_id", "rank", "item_id", "title", "score"]
    for user in (0, 59):
        rows = table.slice(3 * user, 3).to_pylist()
        ids = [world.catalog.item_ids[row] for row in log[user]]
        expected = scorer.recommend(ids, 3, catalog=world.catalog, method=method)
        assert [row["rank"] for row in rows] == [1, 2, 3]
        assert {row["user_id"] for row in rows} == {log.users[user]}
        np.testing.assert_allclose([row["score"] for row in rows], [item.score for item in expected], rtol=1e-4)


def test_pairs_get_the_scores_of_the_library_in_their_order(world, scorer, log, tmp_path):
    ids = world.catalog.item_ids
    asked = [("user-003", ids[5]), ("nobody", ids[1]), ("user-001", ids[0]), ("user-003", ids[2])]
    pairs = pa.table({"user_id": [user for user, _ in asked], "item_id": [item for _, item in asked]})
    score_users(scorer, world.catalog, log, tmp_path / "pairs.csv", pairs=pairs, method="joint")
    table = pa_csv.read_csv(tmp_path / "pairs.csv").to_pylist()
    assert [(row["user_id"], row["item_id"]) for row in table] == asked
    of = {name: [ids[row] for row in log[number]] for number, name in enumerate(log.users)}
    for row in table:
        expected = scorer.score(of.get(row["user_id"], []), [row["item_id"]], catalog=world.catalog, method="joint")
        assert row["score"] == pytest.approx(float(expected[0]), rel=1e-4)


def test_the_default_adapts_to_the_log_where_it_is_long_enough(world, scorer, log, tmp_path, caplog):
    assert score_users(scorer, world.catalog, log, tmp_path / "many.parquet").method == "adapted"
    few = log.select(range(49))
    assert score_users(scorer, world.catalog, few, tmp_path / "few.parquet").method == "joint"
    assert "too few to adapt to; scored by joint" in caplog.text
    adapted = scorer.adapt(
        [[world.catalog.item_ids[row] for row in log[user]] for user in range(60)], catalog=world.catalog
    )
    best = pq.read_table(tmp_path / "many.parquet").slice(0, 10)["item_id"].to_pylist()
    history = [world.catalog.item_ids[row] for row in log[0]]
    assert best == [item.item_id for item in adapted.recommend(history, 10)]


def test_an_interrupted_run_goes_on_and_gives_the_same(world, scorer, log, tmp_path, monkeypatch):
    monkeypatch.setattr(users_module, "USERS_PER_PART", 16)
    score_users(scorer, world.catalog, log, tmp_path / "straight.parquet", method="joint")
    calls = iter(range(100))
    whole = RecBaseScorer.score_rows

    def interrupted(*arguments, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(RecBaseScorer, "score_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_users(scorer, world.catalog, log, tmp_path / "resumed.parquet", method="joint")
    assert not (tmp_path / "resumed.parquet").exists()
    score_users(scorer, world.catalog, log, tmp_path / "resumed.parquet", method="joint")
    assert next(calls) == 5, "the two parts that were whole are not scored again"
    assert pq.read_table(tmp_path / "resumed.parquet").equals(pq.read_table(tmp_path / "straight.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed.parquet", "straight.parquet"]


def test_users_who_know_almost_all_items_get_what_remains(world, scorer, tmp_path):
    rows = np.arange(len(world.catalog) - 1)
    histories = Histories(np.array(["ann"], dtype=object), np.array([0, len(rows)]), rows)
    score_users(scorer, world.catalog, histories, tmp_path / "last.parquet", k=5, method="catalog")
    assert pq.read_table(tmp_path / "last.parquet")["item_id"].to_pylist() == [world.catalog.item_ids[-1]]


def test_what_cannot_be_scored_or_written_is_said(world, scorer, log, tmp_path):
    pairs = pa.table({"user_id": ["user-000", "user-001"], "item_id": [world.catalog.item_ids[0], "gone"]})
    with pytest.raises(UnknownItemError, match=r"candidates, row 2: .*gone"):
        score_users(scorer, world.catalog, log, tmp_path / "pairs.parquet", pairs=pairs)
    with pytest.raises(ValueError, match=r"call it \*\.parquet or \*\.csv"):
        score_users(scorer, world.catalog, log, tmp_path / "scores")
    (tmp_path / "there.csv").touch()
    with pytest.raises(FileExistsError, match=r"there\.csv is there already"):
        score_users(scorer, world.catalog, log, tmp_path / "there.csv")
    with pytest.raises(ValueError, match="has no calibration"):
        score_users(scorer, world.catalog, log, tmp_path / "pairs.parquet", method="calibrated")
