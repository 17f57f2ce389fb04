"""Netflix Prize: movie titles, and ratings below a line with the movie."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.ratings import INTERACTIONS, LABEL_RULE, liked, seconds_of_dates
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "netflix"]

ITEMS = pa.schema(dict.fromkeys(("item_id", "title", "year"), pa.string()))
RATING_FILES = tuple(f"combined_data_{number}.txt" for number in range(1, 5))


def netflix(raw: RawFolder) -> PreparedTables:
    """`movie_titles.csv` and the four files of ratings."""
    titles, ratings = raw.find("movie_titles.csv", "movie_titles.txt"), [raw.find(name) for name in RATING_FILES]
    tables = (table for file in ratings for table in _ratings(file))
    return PreparedTables(tables_of_rows(_movies(titles), ITEMS), tables)


def _movies(file: RawFile) -> Iterator[dict[str, str | None]]:
    """Titles hold commas and no quotes, so it is not CSV: `17622,2000,Me, Myself & Irene`."""
    for number, line in file.lines("latin-1"):
        fields = line.split(",", 2)
        if len(fields) != 3:
            raise DataError(f"{file.name}, line {number}: not movie,year,title; is it another file?")
        movie, year, title = fields
        yield {"item_id": movie, "title": title.strip() or None, "year": None if year == "NULL" else year}


def _ratings(file: RawFile) -> Iterator[pa.Table]:
    movie: str | None = None
    first_line = 1
    for table in file.csv_tables({"line": pa.string()}, delimiter="\t", names=["line"], quotes=False):
        lines = table["line"].combine_chunks()
        is_movie = pc.ends_with(lines, ":")
        named = pc.if_else(is_movie, pc.utf8_rtrim(lines, ":"), pa.scalar(None, pa.string()))
        movies = pc.fill_null(pc.fill_null_forward(named), pa.scalar(movie, pa.string()))
        movie = movies[-1].as_py()
        is_rating = pc.invert(is_movie)
        yield _rated(lines.filter(is_rating), movies.filter(is_rating), file.name, first_line)
        first_line += len(lines)


def _rated(lines: pa.Array, movies: pa.Array, place: str, first_line: int) -> pa.Table:
    """`1488844,3,2005-09-06`: user, rating, date."""
    wrong = lines.filter(pc.or_(pc.invert(pc.match_substring_regex(lines, r"^\d+,[1-5],[\d-]+$")), pc.is_null(movies)))
    if len(wrong):
        raise DataError(
            f"{place}, from line {first_line}: {wrong[0]} is not user,rating,date below a line of movie and colon; "
            "is it another file?"
        )
    fields = pc.split_pattern(lines, ",")
    users, ratings, dates = (pc.list_element(fields, column) for column in range(3))
    ratings = pc.cast(ratings, pa.float64())
    return pa.table(
        [users, movies, ratings, seconds_of_dates(dates, place, first_line), liked(ratings)], schema=INTERACTIONS
    )


PUBLISHED = (
    PublishedData(
        name="netflix-prize",
        domain="movies",
        license="non-commercial research use, no redistribution; see the README of the archive",
        source="https://www.kaggle.com/datasets/netflix-inc/netflix-prize-data",
        files=("movie_titles.csv", *RATING_FILES),
        text_fields=("title", "year"),
        label_rule=LABEL_RULE,
        adapter=netflix,
    ),
)
