"""Splits lose no event that they should keep, and what is to be predicted is never in the training part."""

from __future__ import annotations

import functools
import operator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from recbase_hf.data.histories import build_histories
from recbase_hf.data.splits import PARTS, find_leakage, split_tables
from recbase_hf.errors import DataError, LeakageError

ITEMS = [f"i{number}" for number in range(8)]


def write_tables(folder: Path, events: list[dict], row_group_size: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"item_id": ITEMS, "title": [f"thing {item}" for item in ITEMS]}), folder / "items.parquet")
    pq.write_table(pa.Table.from_pylist(events), folder / "interactions.parquet", row_group_size=row_group_size)
    return folder


def random_events(users: int = 40, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"user_id": f"u{user}", "item_id": rng.choice(ITEMS), "timestamp": int(rng.integers(1000)), "label": 1}
        for user in range(users)
        for _ in range(rng.integers(1, 9))
    ]


def events_of(folder: Path) -> list[tuple]:
    return sorted(tuple(row.values()) for row in pq.read_table(folder / "interactions.parquet").to_pylist())


def test_users_are_whole_and_in_one_part(tmp_path):
    events = random_events(200)
    folder = write_tables(tmp_path / "shop", events)
    facts = split_tables(folder, tmp_path / "split", by="user", validation_share=0.2, test_share=0.3)
    parts = [events_of(tmp_path / "split" / part / "shop") for part in PARTS]
    assert sorted(functools.reduce(operator.iadd, parts, [])) == events_of(folder)
    users = [{event[0] for event in part} for part in parts]
    assert sum(map(len, users)) == len({event["user_id"] for event in events})
    assert 20 <= len(users[1]) <= 60
    assert 35 <= len(users[2]) <= 85
    assert facts["interactions"] == dict(zip(PARTS, map(len, parts), strict=True))


def test_the_parts_of_users_do_not_change_when_others_come(tmp_path):
    write_tables(tmp_path / "few" / "shop", random_events(60))
    write_tables(
        tmp_path / "many" / "shop",
        random_events(60) + [{**event, "user_id": f"new-{event['user_id']}"} for event in random_events(60, seed=1)],
    )
    sides = []
    for name in ("few", "many"):
        split_tables(
            tmp_path / name / "shop", tmp_path / name / "split", by="user", validation_share=0.3, test_share=0.3
        )
        parts = (events_of(tmp_path / name / "split" / part / "shop") for part in PARTS)
        sides.append({event[0]: part for part, of in zip(PARTS, parts, strict=True) for event in of})
    assert {user: part for user, part in sides[1].items() if user in sides[0]} == sides[0]


def test_after_a_split_by_time_the_last_events_to_predict_come_after_the_training(tmp_path):
    events = random_events(60)
    folder = write_tables(tmp_path / "shop", events)
    facts = split_tables(folder, tmp_path / "split", by="time", validation_share=0.2, test_share=0.2)
    train, validation, _test = (events_of(tmp_path / "split" / part / "shop") for part in PARTS)
    assert train == sorted(tuple(event.values()) for event in events if event["timestamp"] < facts["validation_from"])
    assert max(event[2] for event in validation) < facts["test_from"]
    for part, start in (("validation", facts["validation_from"]), ("test", facts["test_from"])):
        table = pq.read_table(tmp_path / "split" / part / "shop" / "interactions.parquet")
        histories = build_histories(table, ITEMS)
        when = {}
        for row in table.to_pylist():
            key = (row["user_id"], row["item_id"])
            when[key] = min(when.get(key, 10**9), row["timestamp"])
        last = [when[user, ITEMS[histories[number][-1]]] for number, user in enumerate(histories.users)]
        assert min(last) >= start


@given(
    events=st.lists(
        st.builds(
            dict,
            user_id=st.sampled_from([f"u{user}" for user in range(9)]),
            item_id=st.sampled_from(ITEMS),
            timestamp=st.integers(0, 12) | st.none(),
            label=st.sampled_from([0, 1, 1, None]),
        ),
        min_size=40,
        max_size=70,
    ),
    by=st.sampled_from(["user", "time"]),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_no_split_ever_leaks(events, by):
    assume(any(event["timestamp"] is not None for event in events))
    with TemporaryDirectory() as name:
        folder = write_tables(Path(name) / "shop", events)
        try:
            split_tables(folder, Path(name) / "split", by=by, validation_share=0.25, test_share=0.25)
        except (DataError, LeakageError) as error:
            # Too few events for three parts, or for anybody to have a history; an actual leak is no excuse.
            assume("too:" in str(error) or "would know the future" in str(error))
            raise
        for part in PARTS[1:]:
            train, judged = (
                pq.read_table(Path(name) / "split" / of / "shop" / "interactions.parquet") for of in ("train", part)
            )
            learned = {(row["user_id"], row["item_id"]) for row in train.to_pylist() if row["label"] != 0}
            histories = build_histories(judged, ITEMS, unordered_events="drop")
            last = {
                (user, ITEMS[histories[number][-1]])
                for number, user in enumerate(histories.users)
                if len(histories[number]) >= 2
            }
            assert last
            assert not last & learned
            users = set(train["user_id"].to_pylist()) & set(judged["user_id"].to_pylist())
            assert by == "time" or not users


def test_a_leak_is_named_and_leaves_nothing_behind(tmp_path, monkeypatch):
    shown = [{"user_id": "ann", "item_id": item, "timestamp": time} for time, item in enumerate(ITEMS[:4])]
    train, test = write_tables(tmp_path / "train", shown), write_tables(tmp_path / "test", shown[1:])
    leakage = find_leakage(train, test)
    assert (leakage.num_targets, leakage.leaked, leakage.examples) == (1, 1, [("ann", "i3")])
    assert leakage.shared_users == 1
    with pytest.raises(LeakageError, match=r"1 of 1 events to predict .* user 'ann' with item 'i3'"):
        leakage.require_none()
    before = write_tables(tmp_path / "before", shown[:3])
    find_leakage(before, test).require_none(after_training=True)
    others = [*shown[:3], {"user_id": "bob", "item_id": "i0", "timestamp": 7}]
    future = find_leakage(write_tables(tmp_path / "future", others), test)
    future.require_none()
    with pytest.raises(LeakageError, match=r"1 events of .* are not before 3"):
        future.require_none(after_training=True)

    folder = write_tables(tmp_path / "shop", random_events())
    monkeypatch.setattr(
        "recbase_hf.data.splits._parts_by_user", lambda *_: lambda table: [np.ones(len(table), bool)] * 3
    )
    with pytest.raises(LeakageError, match=rf"{tmp_path / 'split'}/validation/shop are in"):
        split_tables(folder, tmp_path / "split", by="user")
    assert not (tmp_path / "split").exists()


def test_nothing_to_predict_is_no_clean_bill(tmp_path):
    single = [{"user_id": f"u{user}", "item_id": "i0", "timestamp": user} for user in range(30)]
    train, test = write_tables(tmp_path / "train", single[:20]), write_tables(tmp_path / "test", single[20:])
    with pytest.raises(LeakageError, match="nothing to predict"):
        find_leakage(train, test).require_none()
    with pytest.raises(LeakageError, match="nothing to predict"):
        split_tables(write_tables(tmp_path / "shop", single), tmp_path / "split", by="user", test_share=0.3)


def test_folders_of_somebody_else_are_not_replaced(tmp_path):
    folder = write_tables(tmp_path / "shop", random_events())
    (tmp_path / "raw" / "train").mkdir(parents=True)
    (tmp_path / "raw" / "train" / "behaviors.tsv").write_text("mine")
    with pytest.raises(FileExistsError, match="holds train already"):
        split_tables(folder, tmp_path / "raw", by="user")
    assert (tmp_path / "raw" / "train" / "behaviors.tsv").read_text() == "mine"


def test_impressions_and_the_licence_go_along(tmp_path):
    folder = write_tables(tmp_path / "shop", random_events(90))
    (folder / "dataset.json").write_text("{}")
    rows = [{"user_id": f"u{user}", "candidates": ["i0", "i1"], "timestamp": 11 * user} for user in range(90)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "impressions.parquet")
    for by in ("user", "time"):
        facts = split_tables(folder, tmp_path / by, by=by)
        shown = [pq.read_table(tmp_path / by / part / "shop" / "impressions.parquet") for part in PARTS]
        assert sum(map(len, shown)) == 90
        assert (tmp_path / by / "test" / "shop" / "dataset.json").exists()
        for table, part in zip(shown, PARTS, strict=True):
            assert facts["impressions"][part] == len(table)
            if by == "user":
                events = pq.read_table(tmp_path / by / part / "shop" / "interactions.parquet")
                assert set(table["user_id"].to_pylist()) <= set(events["user_id"].to_pylist())
            elif part == "test":
                assert min(table["timestamp"].to_pylist()) >= facts["test_from"]


def test_times_with_fractions_in_a_later_block_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("recbase_hf.data.blocks.ROWS_A_BLOCK", 5)
    events = random_events(60)
    for number, event in enumerate(events):
        event["timestamp"] = float(event["timestamp"]) + (0.5 if number > 50 else 0)
    folder = write_tables(tmp_path / "shop", events)
    split_tables(folder, tmp_path / "split", by="user", validation_share=0.2, test_share=0.2)
    parts = [events_of(tmp_path / "split" / part / "shop") for part in PARTS]
    assert sorted(functools.reduce(operator.iadd, parts, [])) == events_of(folder)


def test_vectors_and_item_table_go_along(tmp_path):
    folder = write_tables(tmp_path / "shop", random_events(80))
    (folder / "minilm_f16.npy").write_bytes(b"vectors")
    (folder / "minilm_ids.parquet").write_bytes(b"ids")
    split_tables(folder, tmp_path / "split", by="user")
    for part in PARTS:
        for name in ("items.parquet", "minilm_f16.npy", "minilm_ids.parquet"):
            assert (tmp_path / "split" / part / "shop" / name).read_bytes() == (folder / name).read_bytes()


def test_what_cannot_be_split_is_refused(tmp_path):
    events = random_events()
    folder = write_tables(tmp_path / "shop", events)
    with pytest.raises(ValueError, match=r"test_share 0\.5"):
        split_tables(folder, tmp_path / "split", by="user", validation_share=0.5, test_share=0.5)
    mixed = [{**event, "timestamp": 1_500_000_000 * (1 if number % 2 else 1000)} for number, event in enumerate(events)]
    with pytest.raises(DataError, match="write one unit"):
        split_tables(write_tables(tmp_path / "mixed", mixed), tmp_path / "split", by="time")
    same = [{**event, "timestamp": 5} for event in events]
    with pytest.raises(DataError, match="all are 5; split by user"):
        split_tables(write_tables(tmp_path / "same", same), tmp_path / "split", by="time")
    timeless = write_tables(tmp_path / "timeless", [{**event, "timestamp": None} for event in events])
    with pytest.raises(DataError, match="all values are missing; split by user"):
        split_tables(timeless, tmp_path / "split", by="time")
    ordered = [{"user_id": event["user_id"], "item_id": event["item_id"], "order": 1} for event in events]
    with pytest.raises(DataError, match="no column 'timestamp' to split by"):
        split_tables(write_tables(tmp_path / "ordered", ordered), tmp_path / "split", by="time")
    lonely = write_tables(tmp_path / "lonely", events[:1])
    with pytest.raises(DataError, match="part is empty"):
        split_tables(lonely, tmp_path / "split", by="user")
    assert not (tmp_path / "split").exists()
    split_tables(folder, tmp_path / "split", by="user", validation_share=0.3, test_share=0.3)
    with pytest.raises(FileExistsError, match=r"holds split\.json already"):
        split_tables(folder, tmp_path / "split", by="time")


def test_events_without_a_time_are_left_out_unless_their_order_is_known(tmp_path):
    events = random_events(60)
    for number in range(0, len(events), 7):
        events[number]["timestamp"] = None
    timed = sum(event["timestamp"] is not None for event in events)
    for name in ("plain", "ordered"):
        if name == "ordered":
            for event in events:
                event["order"] = -1 if event["timestamp"] is None else event["timestamp"]
        folder = write_tables(tmp_path / name / "shop", events)
        facts = split_tables(folder, tmp_path / name / "split", by="time", validation_share=0.2, test_share=0.2)
        first = facts["validation_from"]
        early = sum(event["timestamp"] is not None and event["timestamp"] < first for event in events)
        assert facts["interactions"]["train"] == early + (len(events) - timed if name == "ordered" else 0)
        assert facts["without_time"] == len(events) - timed
