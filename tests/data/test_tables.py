"""Reading item and interaction tables: every format gives the same table, and every fault is named with its place."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbase_hf.data.blocks import hash_of_tables
from recbase_hf.data.tables import read_interactions, read_items
from recbase_hf.errors import DataError

Rows = list[dict[str, Any]]
EVENTS: Rows = [
    {"user_id": "u1", "item_id": "007", "order": 1, "timestamp": 1700000000, "rating": 4.5, "label": 1},
    {"user_id": "NA", "item_id": "null", "order": 0, "timestamp": None, "rating": None, "label": 0},
]


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4)
ids = texts | st.sampled_from(
    ["007", "7.0", "NA", "null", "nan", "None", "true", "2020-01-01", '"', ",", "\t", " a", "a\r\nb"]
)


@given(
    items=st.lists(ids, min_size=1, max_size=5, unique=True)
    | st.lists(st.integers(-9, 2**60), min_size=1, unique=True),
    data=st.data(),
)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_format_gives_the_same_tables_and_hash(tmp_path: Path, items: list[Any], data: st.DataObject) -> None:
    orders = st.none() | st.integers(-(2**60), 2**60) if data.draw(st.booleans()) else st.floats(-1e6, 1e6)
    drawn = data.draw(st.lists(st.tuples(ids, st.sampled_from(items), orders), min_size=1, max_size=6))
    item_rows = [{"item_id": item} for item in items]
    event_rows = [{"user_id": user, "item_id": item, "order": order} for user, item, order in drawn]
    expected = {
        "user_id": [user for user, _, _ in drawn],
        "item_id": [str(item) for _, item, _ in drawn],
        "order": [order for _, _, order in drawn],
    }
    hashes = set()
    for ending in ("csv", "tsv", "jsonl", "parquet"):
        items_file = write(tmp_path / f"items.{ending}", item_rows)
        events_file = write(tmp_path / f"interactions.{ending}", event_rows)
        assert read_items(items_file)[:] == {"item_id": [str(item) for item in items]}
        assert read_interactions(events_file)[:] == expected
        hashes.add(hash_of_tables(items_file, events_file))
    for source in (event_rows, pd.DataFrame(event_rows, dtype=object), pa.Table.from_pylist(event_rows)):
        hashes.add(hash_of_tables(item_rows, source))
    assert len(hashes) == 1


def test_hash_tells_tables_apart() -> None:
    items: Rows = [{"item_id": "a"}, {"item_id": "b"}]
    other_orders = [EVENTS, [{**EVENTS[0], "order": 5}, EVENTS[1]], [{**EVENTS[0], "order": None}, EVENTS[1]]]
    no_order = [{"user_id": "u", "item_id": "ab"}], [{"user_id": "ua", "item_id": "b"}]
    hashes = [hash_of_tables(items, events) for events in (*other_orders, *no_order)]
    hashes += [hash_of_tables(items[:1], EVENTS), hash_of_tables([{"item_id": "ab"}], EVENTS)]
    assert len(set(hashes)) == len(hashes)
    assert all(len(digits) == 16 for digits in hashes)


def test_columns_have_one_type_whatever_the_format(tmp_path: Path) -> None:
    features = {
        str(read_interactions(write(tmp_path / f"interactions.{ending}", EVENTS)).features)
        for ending in ("csv", "jsonl", "parquet")
    }
    assert len(features) == 1
    table = read_interactions(tmp_path / "interactions.csv")
    assert [table.features[name].dtype for name in ("order", "label", "rating")] == ["int64", "int8", "float64"]
    assert table["item_id"][:] == ["007", "null"]
    assert table["rating"][:] == [4.5, None]


def test_other_columns_stay_and_csv_text_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('﻿item_id,title,year\n1,"two\nlines, one ""cell""",0099\n2,,1.50\n\n3,"",NA\n', encoding="utf-8")
    table = read_items(path)
    assert table["title"][:] == ['two\nlines, one "cell"', None, None]
    assert table["year"][:] == ["0099", "1.50", "NA"]
    rows: Rows = [{"item_id": "a", "tags": ["x"], "price": 1.5}, {"item_id": "b", "year": 3}]
    assert read_items(rows)[1] == {"item_id": "b", "tags": None, "price": None, "year": 3}


def test_folder_gzip_and_in_memory_sources(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv.gz").write_bytes(gzip.compress(b"user_id,item_id,label\nu,007,1\n"))
    (tmp_path / "items.ndjson.gz").write_bytes(gzip.compress(b'{"item_id": 7}\n\n{"item_id": "007"}\n'))
    (tmp_path / "items.parquet.bak").touch()
    assert read_interactions(tmp_path)[0] == {"user_id": "u", "item_id": "007", "label": 1}
    assert read_items(str(tmp_path))["item_id"][:] == ["7", "007"]

    frame = pd.DataFrame({"item_id": [3, "03"], "kind": pd.Categorical(["x", "y"])}, index=[8, 9])
    assert read_items(frame)[:] == {"item_id": ["3", "03"], "kind": ["x", "y"]}
    assert read_items(pd.DataFrame({"item_id": pd.Categorical(["p", "q"])}))["item_id"][:] == ["p", "q"]
    dataset = datasets.Dataset.from_dict({"item_id": [5, 6, 7]}).select([2, 0])
    assert read_items(dataset)["item_id"][:] == ["7", "5"]
    assert read_items(read_items(dataset))["item_id"][:] == ["7", "5"]


def test_nan_is_missing_and_booleans_are_labels() -> None:
    rows: Rows = [
        {"user_id": 1, "item_id": 2, "label": True, "rating": float("nan"), "order": "3", "timestamp": 1.5},
        {"user_id": 1, "item_id": 3, "label": None, "rating": 2, "order": " 4 ", "timestamp": None},
    ]
    assert read_interactions(rows)[:] == {
        "user_id": ["1", "1"],
        "item_id": ["2", "3"],
        "label": [1, None],
        "rating": [None, 2.0],
        "order": [3, 4],
        "timestamp": [1.5, None],
    }


def test_no_interactions_are_a_table() -> None:
    frame = pd.DataFrame({"user_id": [], "item_id": [], "order": []}, dtype=object)
    assert len(read_interactions(frame)) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"item_id": "a"}, {"item_id": "b"}, {"item_id": "a"}], "row 3, column 'item_id': 'a' stands in row 1"),
        ([{"item_id": "a"}, {"item_id": None}], "row 2, column 'item_id': the id is missing"),
        ([{"item_id": "a"}, {"item_id": ""}], "row 2, column 'item_id': the id is missing"),
        ([{"item_id": None}, {"item_id": 1.5}], "row 2, column 'item_id': 1.5, but the column must hold text or whole"),
        ([{"item_id": "a"}, {"item_id": 1.5}], "row 2, column 'item_id': 1.5 does not go with"),
        ([{"item_id": True}], "row 1, column 'item_id': True, but the column must hold text"),
        ([{"item_id": "a", "x": 1}, {"item_id": "b", "x": "y"}], "row 2, column 'x': 'y' does not go with"),
        ([{"item_id": "\ud800"}], "row 1, column 'item_id'"),
        ([{"items_id": "a", "title": "b"}], r"no column 'item_id'; .*\['items_id', 'title'\]; rename 'items_id'"),
        ([], "no column 'item_id'"),
        (pa.table({"item_id": pa.array([], pa.string())}), "has no rows"),
        (pa.table([["a"], ["b"]], ["item_id", "item_id"]), "two columns are called 'item_id'"),
        (pd.DataFrame({"item_id": [1, None]}), "row 1, column 'item_id': 1.0, but the column .* not double"),
    ],
)
def test_faulty_items_are_named(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_items(rows)


@pytest.mark.parametrize(
    ("there", "likely"),
    [
        (["title", "id"], "id"),
        (["title", "movieId", "genres"], "movieId"),
        (["title", "ItemID"], "ItemID"),
        (["name", "items_id"], "items_id"),
        (["title", "store", "parent_asin"], "parent_asin"),
        (["title", "shop_id", "sku"], "sku"),
        (["title", "category_id"], "category_id"),
        (["title", "asin", "product_id"], "product_id"),
        (["title", "item_idx"], "item_idx"),
        (["user_id", "text"], None),
        (["title", "text", "paid", "timed"], None),
    ],
)
def test_a_missing_item_id_suggests_only_what_is_called_like_one(there: list[str], likely: str | None) -> None:
    with pytest.raises(DataError) as error:
        read_items([dict.fromkeys(there, "x")])
    assert str(error.value).partition("; rename ")[2] == ("" if likely is None else f"{likely!r} if that is it")


@pytest.mark.parametrize(
    ("there", "likely"),
    [
        (["userId", "movieId", "rating"], "userId"),
        (["item_id", "reviewer_id"], "reviewer_id"),
        (["item_id", "user"], "user"),
        (["movieId", "rating"], None),
    ],
)
def test_a_missing_user_id_does_not_suggest_items(there: list[str], likely: str | None) -> None:
    with pytest.raises(DataError) as error:
        read_interactions([dict.fromkeys(there, "x")])
    assert str(error.value).partition("; rename ")[2] == ("" if likely is None else f"{likely!r} if that is it")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("label", [1, 2], "row 2, column 'label': 2 is neither 0 nor 1"),
        ("label", [0.5, None], "row 1, column 'label': 0.5 is neither"),
        ("order", ["1", "first"], "row 2, column 'order': 'first' is not a number"),
        ("timestamp", [None, "yesterday"], "row 2, column 'timestamp': .*not a number"),
        ("rating", [None, ["x"]], "row 2, column 'rating'"),
        ("user_id", ["u", None], "row 2, column 'user_id': the id is missing"),
    ],
)
def test_faulty_interactions_are_named(column: str, values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_interactions([{"user_id": "u", "item_id": "i", column: value} for value in values])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.csv", b'user_id,item_id,order\nu,"a\nb",1\n\nu,c,x\n', r"i.csv, row 2 \(line 5\), column 'order': 'x'"),
        (
            "i.csv",
            b"user_id,item_id,order\nu,a,1\nu,,2\n",
            r"i.csv, row 2 \(line 3\), column 'item_id': the id is miss",
        ),
        ("i.csv", b"user_id,item_id\nu,a\nu,a,b\n", r"i.csv, row 2 \(line 3\): 3 cells where the header has 2"),
        ("i.csv", b"user_id;item_id\nu;a\n", r"no column 'user_id'; .*\.csv wants commas"),
        ("i.csv", b"user_id,item_id\nu,a\nu,caf\xe9\n", "i.csv, line 3: not UTF-8; save it as UTF-8"),
        ("i.csv", "user_id,item_id\n".encode("utf-16"), "i.csv, line 1: not UTF-8"),
        ("i.csv", b"", "i.csv cannot be read"),
        ("i.csv.gz", gzip.compress(b"user_id,item_id\nu,a\n" * 9)[:-12], "i.csv.gz cannot be read"),
        ("i.jsonl", b'{"user_id": "u", "item_id": "a"}\n\n{"user_id":\n', "i.jsonl, line 3: not valid JSON"),
        ("i.jsonl", b'[{"user_id": "u", "item_id": "a"}]\n', "i.jsonl, line 1: holds a list"),
        (
            "i.jsonl",
            b'{"user_id": "u", "item_id": "a"}\n\n{"user_id": "u"}\n',
            r"i.jsonl, row 2 \(line 3\), column 'item",
        ),
        ("i.jsonl", b'{"user_id": "caf\xe9"}\n', "i.jsonl, line 1: not UTF-8"),
        ("i.jsonl.gz", gzip.compress(b'{"user_id": "u", "item_id": "a"}\n')[:-12], "i.jsonl.gz cannot be read"),
        ("i.parquet", b"PAR1 cut short", "i.parquet cannot be read"),
        ("i.xlsx", b"", r"i.xlsx has an ending that cannot be read; .*\.parquet, \.csv"),
    ],
)
def test_faulty_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_interactions(tmp_path / name)


def test_truncated_parquet_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "items.parquet", EVENTS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"items.parquet cannot be read"):
        read_items(path)


def test_missing_and_ambiguous_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no items table; looked for items with .parquet"):
        read_items(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_items(tmp_path / "nowhere")
    write(tmp_path / "items.csv", EVENTS)
    write(tmp_path / "items.jsonl", EVENTS)
    with pytest.raises(DataError, match=r"holds both items.csv and items.jsonl"):
        read_items(tmp_path)
    with pytest.raises(TypeError, match="one split of a dataset"):
        read_items(datasets.DatasetDict())


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["2020-01-01T00:00:00.0", "2020-01-01T00:00:01.5", None]),
        ["2020-01-01 00:00:00", "2020-01-01T00:00:01.5", None],
        [1577836800, 1577836801.5, None],
    ],
)
def test_times_in_any_common_form_are_read_as_seconds(times):
    table = pd.DataFrame({"user_id": "u", "item_id": ["a", "b", "c"], "timestamp": times})
    assert read_interactions(table)["timestamp"][:] == [1577836800.0, 1577836801.5, None]


def test_the_hash_changes_with_any_cell_of_either_table():
    items = [{"item_id": "a", "title": "one"}, {"item_id": "b", "title": "two"}]
    events = [{"user_id": "u", "item_id": "a", "timestamp": 1}, {"user_id": "u", "item_id": "b", "timestamp": 2}]
    hashes = {hash_of_tables(items, events)}
    for table, changed in ((items, {"title": "three"}), (events, {"timestamp": 3}), (events, {"label": 0})):
        other = [{**table[0], **changed}, *table[1:]]
        hashes.add(hash_of_tables(*((other, events) if table is items else (items, other))))
    assert len(hashes) == 4
