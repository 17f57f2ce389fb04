"""What is wrong with somebody's own tables is said with place and fix, and what is right is let through."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf.data import checks
from recbase_hf.data.checks import check_tables

ITEMS = "item_id,title\na,Chess\nb,Poker\n"

Found = list[tuple[str, str]]


def findings(folder: Path, interactions: str, items: str = ITEMS) -> Found:
    (folder / "items.csv").write_text(items)
    (folder / "interactions.csv").write_text(interactions)
    return said_of(folder)


def said_of(folder: Path) -> Found:
    return [(finding.level, finding.message) for finding in check_tables(folder)]


def in_parquet(folder: Path, interactions: dict[str, Any], items: dict[str, Any] | None = None) -> Found:
    pq.write_table(pa.table(items or {"item_id": ["a", "b"], "title": ["Chess", "Poker"]}), folder / "items.parquet")
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
    return said_of(folder)


def is_said(found: Found, level: str, message: str) -> bool:
    return any(kind == level and re.search(message, said) for kind, said in found)


def test_good_tables_have_no_findings(tmp_path: Path) -> None:
    assert findings(tmp_path, "user_id,item_id,timestamp,label\nann,a,10,1\nann,b,20,0\n") == []


@pytest.mark.parametrize(
    ("interactions", "level", "said"),
    [
        ("user_id,item_id,order\nann,a,0\nann,c,1\n", "error", "row 2, column 'item_id': item 'c' is not in the item"),
        ("user_id,item_id,timestamp\nann,a,-5\nann,b,1\n", "error", "row 1, column 'timestamp': -5 is before 1970"),
        ("user_id,item_id,timestamp\nann,a,5\nann,b,1700000000000\n", "error", "row 2.*looks like milliseconds"),
        (
            "user_id,item_id,timestamp\nann,a,1700000000000\nann,b,5\n",
            "error",
            "row 1.*milliseconds.*in row 2 like sec",
        ),
        ("user_id,item_id,timestamp\nann,a,1600000000000\nann,b,1700000000000\n", "note", "only their order is used"),
        ("user_id,item_id,timestamp\nann,a,16e17\nann,b,17e17\n", "note", "look like nanoseconds"),
        (
            "user_id,item_id,timestamp\nann,a,5\nann,b,9999999999\n",
            "warning",
            "row 2.*9999999999 is after the year 2100",
        ),
        ("user_id,item_id,timestamp\nann,a,5\nann,b,6.5\n", "note", "row 2, column 'timestamp': 6.5 has a fraction"),
        ("user_id,item_id,timestamp\nann,a,5\nann,b,nan\n", "warning", "row 2, column 'timestamp': NaN counts as miss"),
        ("user_id,item_id,timestamp\nann,a,5\nann,b,inf\n", "error", "row 2, column 'timestamp': inf is no time"),
        ("user_id,item_id,timestamp\nann,a,5\nann,b,\n", "warning", "row 2.* 1 of 2 interactions have no timestamp"),
        ("user_id,item_id,order\nann,a,5\nann,b,\n", "warning", "row 2.* 1 of 2 interactions have no order"),
        (
            "user_id,item_id,order\nann,a,0\nann,a,0\nann,b,1\n",
            "warning",
            "1 of 3 interactions repeat another one.*row 2",
        ),
        ("user_id,item_id\nann,a\nann,b\n", "note", "the order of the rows counts"),
        ("user_id,item_id,order\nann,a,0\n", "note", "1 of 2 items have no interaction"),
        ("user_id,item_id,order\nann,a,0\nbob,b,0\n", "note", "2 of 2 users have a single interaction"),
        ("user_id,item_id,order,label\nann,a,0,0\nann,b,1,0\n", "error", "no interaction has the label 1"),
        ("user_id,item_id,timestamp\nann,a,soon\n", "error", "'soon' is not a number"),
        ("user_id,item_id\nann,a\n,b\n", "error", "row 2 .*column 'user_id': the id is missing"),
        ("user_id,item_id,label\nann,a,2\n", "error", "row 1 .*column 'label': 2 is neither 0 nor 1"),
        ("user_id;item_id\nann;a\n", "error", "separated otherwise"),
        ("user_id,item_id\n", "error", "interactions.csv: the table has no rows"),
    ],
)
def test_a_finding_has_place_and_fix(tmp_path: Path, interactions: str, level: str, said: str) -> None:
    found = findings(tmp_path, interactions)
    assert is_said(found, level, said), found


def test_labels_that_are_all_empty_count_as_liked(tmp_path: Path) -> None:
    assert not findings(tmp_path, "user_id,item_id,order,label\nann,a,0,\nann,b,1,\n")


@pytest.mark.parametrize(
    ("items", "level", "said"),
    [
        ("item_id,title\na,A\nb,B\na,C\n", "error", "items.csv, row 3, column 'item_id': 'a' stands in row 1 already"),
        (
            "item_id,title\na,A\nb,\n",
            "error",
            "items.csv, row 2, column 'title': item 'b' has no text, like 0 others",
        ),
        ("item_id,title\na,A\n,B\n", "error", "items.csv, row 2 .*the id is missing"),
        ("item_id\na\nb\n", "warning", "items.csv: no column of texts"),
        ("item_id,title\n", "error", "items.csv: the table has no rows"),
    ],
)
def test_findings_about_items(tmp_path: Path, items: str, level: str, said: str) -> None:
    found = findings(tmp_path, "user_id,item_id\nann,a\nann,b\n", items)
    assert is_said(found, level, said), found


def test_a_table_that_cannot_be_read_does_not_hide_the_other(tmp_path: Path) -> None:
    found = findings(tmp_path, "user_id,item_id,timestamp\nann,a,-1\n", items="name\nChess\n")
    assert is_said(found, "error", "no column 'item_id'")
    assert is_said(found, "error", "-1 is before 1970")


def test_every_column_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    found = findings(tmp_path, "user_id,item_id,timestamp,label\nann,a,soon,yes\n,b,5,1\n")
    assert [message.split("column ")[1].split(":")[0] for level, message in found if level == "error"] == [
        "'user_id'",
        "'timestamp'",
        "'label'",
    ]


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    log = {
        "user_id": ["ann", "bob", "ann", "ann", "cem", "cem"],
        "item_id": ["a", "x", "a", "b", "y", "x"],
        "timestamp": [5.0, 6.5, 5.0, -1.0, 1.7e12, math.nan],
        "label": [0, 0, 0, 0, 0, 0],
    }
    items = {"item_id": ["a", "b", "c", "a"], "title": ["A", None, " ", "D"], "tags": [[], ["", "x"], [None], None]}
    monkeypatch.setattr(checks, "ROWS_A_BLOCK", 1000)
    whole = in_parquet(tmp_path, log, items)
    monkeypatch.setattr(checks, "ROWS_A_BLOCK", rows)
    assert said_of(tmp_path) == whole
    for level, said in [
        ("error", "items.parquet, row 4, column 'item_id': 'a' stands in row 1 already"),
        ("error", "row 3, column 'title, tags': item 'c' has no text"),
        ("error", r"row 2, column 'item_id': item 'x' .* 2 other rows \(2 items: 'x', 'y'\)"),
        ("error", "row 4, column 'timestamp': -1.0 is before 1970"),
        ("error", "row 5, column 'timestamp': 17.*looks like milliseconds"),
        ("warning", "row 6, column 'timestamp': NaN"),
        ("note", "row 2, column 'timestamp': 6.5 has a fraction"),
        ("warning", "1 of 6 interactions repeat another one .*, such as row 3 row 1"),
        ("note", "1 of 3 users have a single"),
        ("error", "no interaction has the label 1"),
    ]:
        assert is_said(whole, level, said), (said, whole)


def test_rows_of_errors_are_counted_from_the_start_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ROWS_A_BLOCK", 2)
    found = in_parquet(tmp_path, {"user_id": ["ann", "bob", "cem", ""], "item_id": ["a", "b", "a", "b"]})
    assert is_said(found, "error", r"interactions.parquet, row 4, column 'user_id': the id is missing")


def test_repeats_and_users_are_counted_exactly(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    users, items, times = (random.integers(0, most, 5000) for most in (500, 10, 3))
    log = {
        "user_id": [f"u{user}" for user in users**2],
        "item_id": items.astype(str),
        "timestamp": pa.array(times, mask=times == 2),
    }
    found = in_parquet(tmp_path, log, {"item_id": list(map(str, range(10))), "title": ["T"] * 10})
    events = pa.table(log).to_pylist()
    repeats = len(events) - len({tuple(event.values()) for event in events})
    assert is_said(found, "warning", f"{repeats:,} of 5,000 interactions repeat")
    names = [event["user_id"] for event in events]
    single = sum(names.count(name) == 1 for name in set(names))
    assert not single or is_said(found, "note", f"{single:,} of {len(set(names)):,} users")


def test_only_twenty_unknown_items_are_listed(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(30)]
    found = in_parquet(tmp_path, {"user_id": ["ann"] * 31, "item_id": ["a", *names]})
    assert is_said(found, "error", r"29 other rows \(30 items: 'x0', .*'x19', \.\.\.\)")


def test_a_truncated_table_is_told(tmp_path: Path) -> None:
    in_parquet(tmp_path, {"user_id": ["ann"], "item_id": ["a"]})
    path = tmp_path / "interactions.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert is_said(said_of(tmp_path), "error", "interactions.parquet cannot be read .*make or download it again")


# Impressions


@pytest.mark.parametrize(
    ("impressions", "level", "said"),
    [
        ({"candidates": [["a", "b"], ["x", "y"]]}, "error", "row 2, column 'candidates': item 'x' .* 1 others"),
        ({"history": [["a"], ["b", "z"]]}, "error", "row 2, column 'history': item 'z' is not in the item table"),
        ({"labels": [[1, 0], [1]]}, "error", "row 2, column 'labels': not one label for each candidate"),
        ({"labels": [[1, 0], [1, 2]]}, "error", "row 2, column 'labels': 2 is neither 0 nor 1"),
        ({"labels": [[1, None], [1, 0]]}, "error", "row 1, column 'labels': None is neither 0 nor 1"),
        ({"labels": [[1, 0], [0, 0]]}, "warning", "row 2, column 'labels': no candidate has the label 1"),
        ({"labels": [[0, 0], [0, 0]]}, "error", r"row 1.*no candidate has the label 1 \(so are 1 other rows\)"),
        ({"labels": ["10", "01"]}, "error", "column 'labels': string, but it must hold lists of 0 and 1"),
        ({"history": None}, "error", "no column 'history'; the columns are"),
    ],
)
def test_findings_about_impressions(tmp_path: Path, impressions: dict[str, Any], level: str, said: str) -> None:
    shown = {"user_id": ["ann", "bob"], "history": [["a"], []], "candidates": [["a", "b"]] * 2, "labels": [[1, 0]] * 2}
    log = {"user_id": ["ann", "ann"], "item_id": ["a", "b"], "order": [0, 1]}
    pq.write_table(pa.table(shown), tmp_path / "impressions.parquet")
    assert in_parquet(tmp_path, log) == []
    columns = {name: value for name, value in {**shown, **impressions}.items() if value is not None}
    pq.write_table(pa.table(columns), tmp_path / "impressions.parquet")
    found = said_of(tmp_path)
    assert is_said(found, level, said), found
