"""MovieLens: 100K (`u.data`, `u.item`), 1M (`ratings.dat`, `movies.dat`), 20M to 32M (`ratings.csv`, `movies.csv`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.ratings import LABEL_RULE, liked
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows

__all__ = ["PUBLISHED", "movielens_1m", "movielens_100k", "movielens_csv"]

ITEMS = pa.schema({"item_id": pa.string(), "title": pa.string(), "year": pa.string(), "genres": pa.string()})
INTERACTIONS = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "rating": pa.float64(),
        "timestamp": pa.int64(),
        "label": pa.int8(),
    }
)
# fmt: off
GENRES_100K = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"
]
# fmt: on


def movielens_100k(raw: RawFolder) -> PreparedTables:
    """ml-100k: tabs and bars, Latin-1, genres as flags."""
    flags = [f"genre {name}" for name in GENRES_100K]
    movies = raw.find("u.item").delimited_rows(
        "|", ["item_id", "title", "released", "video", "url", *flags], encoding="latin-1"
    )
    rows = (
        _movie(
            row["item_id"],
            row["title"],
            [name for name, flag in zip(GENRES_100K, flags, strict=True) if row[flag] == "1"],
        )
        for _, row in movies
    )
    names = ["user_id", "item_id", "rating", "timestamp"]
    return PreparedTables(tables_of_rows(rows, ITEMS), _ratings(raw.find("u.data"), names, delimiter="\t", names=names))


def movielens_1m(raw: RawFolder) -> PreparedTables:
    """ml-1m and ml-10m: fields separated by two colons."""
    file = raw.find("movies.dat")
    movies = file.delimited_rows("::", ["item_id", "title", "genres"], encoding=_encoding(file))
    rows = (_movie(row["item_id"], row["title"], row["genres"].split("|")) for _, row in movies)
    names = ["user_id", "item_id", "rating", "timestamp"]
    ratings = (row for _, row in raw.find("ratings.dat").delimited_rows("::", names))
    texts = tables_of_rows(ratings, pa.schema(dict.fromkeys(names, pa.string())))
    return PreparedTables(tables_of_rows(rows, ITEMS), (_liked(table) for table in texts))


def _encoding(file: RawFile) -> str:
    """ml-10m is in UTF-8, ml-1m in Latin-1; accented letters of the one are damaged in the other."""
    with file.open() as content:
        try:
            content.read().decode("utf-8")
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


def movielens_csv(raw: RawFolder) -> PreparedTables:
    """ml-latest, ml-20m, ml-25m, ml-32m: CSV files with headers."""
    columns = dict.fromkeys(("movieId", "title", "genres"), pa.string())
    movies = (row for table in raw.find("movies.csv").csv_tables(columns) for row in table.to_pylist())
    rows = (_movie(row["movieId"], row["title"] or "", (row["genres"] or "").split("|")) for row in movies)
    ratings = _ratings(raw.find("ratings.csv"), ["userId", "movieId", "rating", "timestamp"])
    return PreparedTables(tables_of_rows(rows, ITEMS), ratings)


def _movie(item_id: str, title: str, genres: list[str]) -> dict[str, Any]:
    """`Postman, The (1994)` is a title and a year."""
    match = re.fullmatch(r"(.*?)\s*\((\d{4})\)\s*", title)
    name, year = (match[1], match[2]) if match else (title.strip(), None)
    known = [genre for genre in genres if genre and genre not in ("unknown", "(no genres listed)")]
    return {"item_id": item_id, "title": name, "year": year, "genres": ", ".join(known) or None}


def _ratings(file: RawFile, columns: list[str], **options: Any) -> Iterator[pa.Table]:
    for table in file.csv_tables(dict.fromkeys(columns, pa.string()), **options):
        yield _liked(table.rename_columns(["user_id", "item_id", "rating", "timestamp"]))


def _liked(table: pa.Table) -> pa.Table:
    rating, timestamp = pc.cast(table["rating"], pa.float64()), pc.cast(table["timestamp"], pa.int64())
    return pa.table([table["user_id"], table["item_id"], rating, timestamp, liked(rating)], schema=INTERACTIONS)


def _published(name: str, files: tuple[str, ...], adapter: Callable[[RawFolder], PreparedTables]) -> PublishedData:
    return PublishedData(
        name=name,
        domain="movies",
        license="research use; commerce and redistribution by permission alone; see the README of the archive",
        source="https://grouplens.org/datasets/movielens/",
        files=files,
        text_fields=("title", "year", "genres"),
        label_rule=LABEL_RULE,
        adapter=adapter,
    )


PUBLISHED = (
    _published("movielens-100k", ("u.data", "u.item"), movielens_100k),
    _published("movielens-1m", ("ratings.dat", "movies.dat"), movielens_1m),
    _published("movielens-32m", ("ratings.csv", "movies.csv"), movielens_csv),
)
