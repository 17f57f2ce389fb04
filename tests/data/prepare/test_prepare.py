"""Preparing: whole or not at all, with everything that was left out counted; MovieLens in its three forms."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData, prepare
from recbase_hf.data.prepare.raw_files import RawFolder
from recbase_hf.data.prepare.registry import DATA_SETS, published_data
from recbase_hf.data.tables import read_interactions, read_items
from recbase_hf.errors import DataError

Rows = list[dict[str, Any]]


def adapter(raw: RawFolder) -> PreparedTables:
    """Items and interactions as they are, a block for each of the two halves."""
    blocks = [json.loads(line) for _, line in raw.find("raw.jsonl").lines()]
    items = (pa.Table.from_pylist([{"item_id": name, "title": title} for name, title in block[0]]) for block in blocks)
    events = (pa.Table.from_pylist([{"user_id": user, "item_id": name} for user, name in block[1]]) for block in blocks)
    return PreparedTables(items, events)


TINY = PublishedData("tiny", "toys", "none", "nowhere", ("raw.jsonl",), ("title",), "bought", adapter)
BLOCKS = [
    [[["a", "A"], ["b", "B"], ["a", "again"]], [["u", "a"], ["u", "x"]]],
    [[["c", "C"], ["b", "late"]], [["v", "y"], ["v", "c"], ["v", "x"]]],
]


def raw_folder(folder: Path, blocks: list[Any]) -> Path:
    raw = folder / "raw"
    raw.mkdir()
    (raw / "raw.jsonl").write_text("".join(json.dumps(block) + "\n" for block in blocks))
    return raw


def rows_of(folder: Path) -> tuple[Rows, Rows]:
    return pq.read_table(folder / "items.parquet").to_pylist(), pq.read_table(
        folder / "interactions.parquet"
    ).to_pylist()


def test_tables_and_counts(tmp_path: Path) -> None:
    facts = prepare(TINY, raw_folder(tmp_path, BLOCKS), tmp_path / "out")
    assert rows_of(tmp_path / "out") == (
        [{"item_id": "a", "title": "A"}, {"item_id": "b", "title": "B"}, {"item_id": "c", "title": "C"}],
        [{"user_id": "u", "item_id": "a"}, {"user_id": "v", "item_id": "c"}],
    )
    assert facts["rows"] == {"items": 3, "interactions": 2}
    assert facts["repeated_items"] == 2
    assert facts["interactions_of_unknown_items"] == 3
    assert set(facts["unknown_items"]) == {"x", "y"}
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == facts
    assert (facts["name"], facts["license"], facts["label_rule"]) == ("tiny", "none", "bought")


def test_the_tables_are_what_the_library_reads(tmp_path: Path) -> None:
    prepare(TINY, raw_folder(tmp_path, BLOCKS), tmp_path / "out")
    assert read_items(tmp_path / "out")["item_id"][:] == ["a", "b", "c"]
    assert read_interactions(tmp_path / "out")["user_id"][:] == ["u", "v"]


def test_unknown_items_may_be_an_error(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path, BLOCKS)
    with pytest.raises(DataError, match=r"3 interactions have items .*, such as x, y.*--unknown-items drop"):
        prepare(TINY, raw, tmp_path / "out", unknown_items="error")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path, [*BLOCKS, [[["d", "D"]], [["u", "d"], ["u"]]]])
    with pytest.raises(ValueError, match="unpack"):
        prepare(TINY, raw, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_a_missing_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no raw\.jsonl"):
        prepare(TINY, tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_data_set_is_never_replaced(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path, BLOCKS)
    prepare(TINY, raw, tmp_path / "out")
    before = (tmp_path / "out" / "interactions.parquet").read_bytes()
    with pytest.raises(FileExistsError, match="holds a data set already"):
        prepare(TINY, raw, tmp_path / "out")
    assert (tmp_path / "out" / "interactions.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("blocks", "complaint"),
    [
        ([[[], []]], "no items are left .*raw files of tiny"),
        (
            [[[["a", "A"]], [["u", "x"]]]],
            r"none of the 1 interactions of tiny has .* they have 'x', the item table has 'a'",
        ),
        ([[[["a", "A"]], []]], "no interactions are left .*raw files of tiny"),
        ([], "no items are left .*raw files of tiny"),
    ],
)
def test_a_data_set_with_nothing_left_is_refused(tmp_path: Path, blocks: list[Any], complaint: str) -> None:
    raw = raw_folder(tmp_path, blocks)
    typed = dataclasses.replace(TINY, adapter=lambda folder: _with_types(adapter(folder)))
    with pytest.raises(DataError, match=complaint):
        prepare(typed, raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _with_types(tables: PreparedTables) -> PreparedTables:
    items = pa.schema({"item_id": pa.string(), "title": pa.string()})
    events = pa.schema({"user_id": pa.string(), "item_id": pa.string()})
    return PreparedTables(
        [table if table.num_columns else items.empty_table() for table in tables.items],
        [table if table.num_columns else events.empty_table() for table in tables.interactions],
    )


def test_impressions_are_written_too(tmp_path: Path) -> None:
    shown = pa.table({"user_id": ["u"], "history": [["a"]], "candidates": [["b", "c"]], "labels": [[1, 0]]})
    with_impressions = dataclasses.replace(
        TINY, adapter=lambda folder: adapter(folder)._replace(impressions=[shown, shown])
    )
    facts = prepare(with_impressions, raw_folder(tmp_path, BLOCKS), tmp_path / "out")
    assert facts["rows"]["impressions"] == 2
    assert pq.read_table(tmp_path / "out" / "impressions.parquet").to_pylist() == shown.to_pylist() * 2


# The registry


def test_every_data_set_says_what_it_is() -> None:
    for name, published in DATA_SETS.items():
        assert published.name == name == name.lower()
        assert published.source.startswith("http")
        assert all((published.files, published.text_fields, published.license, published.label_rule))


def test_an_unknown_name_is_told_what_there_is() -> None:
    assert published_data("movielens-1m").name == "movielens-1m"
    with pytest.raises(DataError, match=r"no data set 'movielens'; there are .*movielens-100k"):
        published_data("movielens")


# MovieLens

GENRES = 19
MOVIES = [
    {"item_id": "1", "title": "Postman, The", "year": "1994", "genres": "Comedy, Drama"},
    {"item_id": "2", "title": "Amélie", "year": None, "genres": None},
]
RATINGS = [
    {"user_id": "7", "item_id": "1", "rating": 4.0, "timestamp": 881250949, "label": 1},
    {"user_id": "7", "item_id": "2", "rating": 3.0, "timestamp": 881250950, "label": 0},
    {"user_id": "8", "item_id": "1", "rating": 1.0, "timestamp": 881250951, "label": 0},
]
STARS = [("7", "1", "4", "881250949"), ("7", "2", "3", "881250950"), ("8", "1", "1", "881250951")]


def movielens_100k(raw: Path) -> None:
    flags = ["0"] * GENRES
    flags[5] = flags[8] = "1"
    unknown = ["1"] + ["0"] * (GENRES - 1)
    movies = [
        ["1", "Postman, The (1994)", "01-Jan-1994", "", "http://us.imdb.com/M", *flags],
        ["2", "Amélie", "", "", "", *unknown],
    ]
    (raw / "u.item").write_bytes("".join("|".join(movie) + "\n" for movie in movies).encode("latin-1"))
    (raw / "u.data").write_text("".join("\t".join(stars) + "\n" for stars in STARS))


def movielens_1m(raw: Path) -> None:
    movies = "1::Postman, The (1994)::Comedy|Drama\n2::Amélie::(no genres listed)\n"
    (raw / "movies.dat").write_bytes(movies.encode("latin-1"))
    (raw / "ratings.dat").write_text("".join("::".join(stars) + "\n" for stars in STARS))


def movielens_32m(raw: Path) -> None:
    movies = 'movieId,title,genres\n1,"Postman, The (1994)",Comedy|Drama\n2,Amélie,(no genres listed)\n'
    (raw / "movies.csv").write_text(movies, encoding="utf-8")
    ratings = "".join(",".join(stars) + "\n" for stars in STARS)
    (raw / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{ratings}")


FORMS = {"movielens-100k": movielens_100k, "movielens-1m": movielens_1m, "movielens-32m": movielens_32m}


@pytest.mark.parametrize("name", FORMS)
def test_movielens_gives_the_same_rows_in_every_form(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw").mkdir()
    FORMS[name](tmp_path / "raw")
    prepare(published_data(name), tmp_path / "raw", tmp_path / "out")
    assert rows_of(tmp_path / "out") == (MOVIES, RATINGS)


def test_half_stars_of_movielens(tmp_path: Path) -> None:
    movielens_32m(tmp_path)
    stars = "".join(f"7,1,{rating},0\n" for rating in (2.5, 3.0, 3.5))
    (tmp_path / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{stars}")
    prepare(published_data("movielens-32m"), tmp_path, tmp_path / "out")
    assert [row["label"] for row in rows_of(tmp_path / "out")[1]] == [0, 0, 1]


def test_another_version_of_movielens_is_refused(tmp_path: Path) -> None:
    movielens_1m(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no movies\.csv .*movies\.dat"):
        prepare(published_data("movielens-32m"), tmp_path, tmp_path / "out")
    (tmp_path / "ratings.dat").write_text("7\t1\t4\t881250949\n")
    with pytest.raises(DataError, match=r"ratings\.dat, line 1: 1 fields separated by '::'"):
        prepare(published_data("movielens-1m"), tmp_path, tmp_path / "out")
    movielens_32m(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n7,1,4\n")
    with pytest.raises(DataError, match=r"ratings\.csv is not in the published format \(.*timestamp"):
        prepare(published_data("movielens-32m"), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
