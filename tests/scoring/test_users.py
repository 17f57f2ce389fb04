"""Scores for the users of a log, in one file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from recbase_hf import RecBaseScorer
from recbase_hf.data.histories import Histories
from recbase_hf.errors import DataError
from recbase_hf.scoring import users as users_module
from recbase_hf.scoring.users import Pairs, score_users


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
    strangers = Pairs(pa.table({"user_id": ["3", "1"], "item_id": ids[:2]}), name="pairs.csv")
    with pytest.raises(
        DataError, match=r"pairs\.csv: none of its users is in the log: it has '1', '3', the log 'user-000'"
    ):
        score_users(scorer, world.catalog, log, tmp_path / "pairs.csv", pairs=strangers, method="joint")
    columns = {"who": [user for user, _ in asked], "what": [item for _, item in asked], "segment": list("abcd")}
    pairs = Pairs(pa.table(columns), "who", "what")
    score_users(scorer, world.catalog, log, tmp_path / "pairs.csv", pairs=pairs, method="joint")
    table = pa_csv.read_csv(tmp_path / "pairs.csv").to_pylist()
    assert [(row["who"], row["what"]) for row in table] == asked
    assert [row["segment"] for row in table] == list("abcd")
    of = {name: [ids[row] for row in log[number]] for number, name in enumerate(log.users)}
    for row in table:
        expected = scorer.score(of.get(row["who"], []), [row["what"]], catalog=world.catalog, method="joint")
        assert row["score"] == pytest.approx(float(expected[0]), rel=1e-4)


def test_the_default_adapts_to_the_log_where_it_is_long_enough(world, scorer, log, tmp_path, caplog):
    assert score_users(scorer, world.catalog, log, tmp_path / "many.parquet").method == "adapted"
    few = log.select(range(49))
    assert score_users(scorer, world.catalog, few, tmp_path / "few.parquet").method == "joint"
    assert "no calibration belongs to these weights (recbase calibrate); scored by joint" in caplog.text
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


def test_parts_of_another_log_are_not_gone_on_with(world, scorer, log, tmp_path, monkeypatch):
    """Adapted scores of a user depend on what all others did."""
    monkeypatch.setattr(users_module, "USERS_PER_PART", 2)
    pairs = Pairs(pa.table({"user_id": ["user-000", "user-001", "user-002"], "item_id": world.catalog.item_ids[:3]}))
    whole, parts = users_module.pq.write_table, iter(range(100))

    def interrupted(table, path):
        if next(parts) == 1:
            raise KeyboardInterrupt
        whole(table, path)

    with monkeypatch.context() as patch:
        patch.setattr(users_module.pq, "write_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            score_users(scorer, world.catalog, log, tmp_path / "pairs.parquet", pairs=pairs)
    items = log.items.copy()
    items[log.offsets[3] :] = 5  # of the others alone
    other = Histories(log.users, log.offsets, items)
    for name in ("pairs", "straight"):
        score_users(scorer, world.catalog, other, tmp_path / f"{name}.parquet", pairs=pairs)
    assert pq.read_table(tmp_path / "pairs.parquet").equals(pq.read_table(tmp_path / "straight.parquet"))


def test_what_users_disliked_does_not_come_back(world, scorer, log, tmp_path):
    ann = log.users[0]
    disliked = np.setdiff1d(np.arange(len(world.catalog)), log[0])[:20]
    seen = Histories(
        np.array([ann, "bob"], dtype=object),
        np.array([0, len(log[0]) + 20, len(log[0]) + 25]),
        np.concatenate([log[0], disliked, disliked[:5]]),
    )
    done = score_users(scorer, world.catalog, log, tmp_path / "best.parquet", seen=seen, k=40, method="joint")
    assert (done.users, done.users_without_history) == (2, 1)
    found: dict[str, set[str]] = {ann: set(), "bob": set()}
    for row in pq.read_table(tmp_path / "best.parquet").to_pylist():
        found[row["user_id"]].add(row["item_id"])
    for user, rows in ((ann, [*log[0], *disliked]), ("bob", disliked[:5])):
        known = {world.catalog.item_ids[row] for row in rows}
        assert found[user] == {*world.catalog.item_ids} - known


def test_users_who_know_almost_all_items_get_what_remains(world, scorer, tmp_path):
    rows = np.arange(len(world.catalog) - 1)
    histories = Histories(np.array(["ann"], dtype=object), np.array([0, len(rows)]), rows)
    score_users(scorer, world.catalog, histories, tmp_path / "last.parquet", k=5, method="catalog")
    assert pq.read_table(tmp_path / "last.parquet")["item_id"].to_pylist() == [world.catalog.item_ids[-1]]


def test_what_cannot_be_scored_or_written_is_said(world, scorer, log, tmp_path):
    pairs = Pairs(pa.table({"user_id": ["user-000", "user-001"], "item_id": [world.catalog.item_ids[0], "gone"]}))
    with pytest.raises(DataError, match=r"candidates, row 2: item 'gone' is not in the file of the items \(1 rows"):
        score_users(scorer, world.catalog, log, tmp_path / "pairs.parquet", pairs=pairs)
    done = score_users(scorer, world.catalog, log, tmp_path / "some.parquet", pairs=pairs, drop_unknown=True)
    assert (done.rows, done.unknown_pairs) == (1, 1)
    scored = Pairs(pairs.table.append_column("score", pa.array([1.0, 2.0])))
    with pytest.raises(DataError, match="there is a column 'score' already"):
        score_users(scorer, world.catalog, log, tmp_path / "pairs.parquet", pairs=scored)
    with pytest.raises(DataError, match="nobody to score for"):
        score_users(scorer, world.catalog, log.select([]), tmp_path / "nobody.parquet")
    with pytest.raises(ValueError, match=r"call it \*\.parquet or \*\.csv"):
        score_users(scorer, world.catalog, log, tmp_path / "scores")
    (tmp_path / "there.csv").touch()
    with pytest.raises(FileExistsError, match=r"there\.csv is there already"):
        score_users(scorer, world.catalog, log, tmp_path / "there.csv")
    with pytest.raises(ValueError, match="has no calibration"):
        score_users(scorer, world.catalog, log, tmp_path / "pairs.parquet", method="calibrated")
