"""The adapters of `recbase data prepare` on real data: two tables as the files that a source publishes, and back.

    python benchmarks/adapters.py --data data/*
    python benchmarks/adapters.py --table             # the table of all receipts

A folder may have any name; the columns of its items tell the source. Its tables are written as that source's raw files
are (names, archives, delimiters, quotes, encodings, units of time, the order of a log, rows that repeat or lead
nowhere), the raw files are prepared, and what comes out is compared with the tables: users, items, the multiset of
interactions, texts, and the histories that training reads. That real raw files look so is known from samples of them,
and not shown here. One receipt a folder.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import html
import io
import json
import sys
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from recbase_hf.config import option, parse_arguments
from recbase_hf.data.histories import build_histories
from recbase_hf.data.prepare.adapters.amazon import CATEGORIES_2018, CATEGORIES_2023
from recbase_hf.data.prepare.adapters.movielens import GENRES_100K
from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.data.prepare.registry import published_data
from recbase_hf.evaluation.receipts import circumstances
from recbase_hf.files import read_json, sha256_of_file, write_json

COMMAND = "python benchmarks/adapters.py --data data/*"
COMPARED = ("users", "items", "interactions", "item texts", "histories", "left out")
DAY = 86_400
FIRST_DAY = 1_325_376_000
"""2012-01-01, of the times that are made of an order."""
EXAMPLES = 3

Row = dict[str, Any]


@dataclass(frozen=True)
class AdaptersBenchmark:
    """Published files made of tables, and back."""

    data: tuple[str, ...] = option((), help="folders in the two-table form")
    receipts: str = option("benchmarks/receipts/adapters", help="folder of the receipts")
    seed: int = option(0, help="of the order in which a log has its lines")
    table: bool = option(False, help="only print the table of the receipts")


class Event(NamedTuple):
    """An interaction."""

    user_id: str
    item_id: str
    timestamp: int | None
    rating: float | None
    label: int | None


class Tables(NamedTuple):
    """`items` and `interactions` of a folder, the latter by user, oldest first."""

    items: list[Row]
    interactions: list[Row]


@dataclass(frozen=True)
class Published:
    """What `prepare` should make of raw files.

    Attributes:
        texts: from the columns of its item table to the texts of the items, by their id.
        events: its interactions.
        mapping: how these differ from the tables that the files were made of.
        user_of: from users of those tables to users here, where they are called otherwise.
        repeated_items: rows of items that the files have twice.
        unknown_events: interactions of items that the files do not describe.
    """

    texts: dict[str, dict[str, str | None]]
    events: list[Event]
    mapping: tuple[str, ...]
    user_of: dict[str, str] = field(default_factory=dict)
    repeated_items: int = 0
    unknown_events: int = 0


Writer = Callable[[Tables, Path, np.random.Generator], Published]


# ---- MovieLens -------------------------------------------------------------------------------------------------------


def write_movielens_100k(tables: Tables, raw: Path, rng: np.random.Generator) -> Published:
    """`ml-100k.zip`: tabs and bars, Latin-1, genres as flags."""
    published = movielens(tables)
    movies = ["|".join(movie_of_100k(row)) for row in tables.items]
    ratings = ["\t".join(fields_of(event)) for event in as_logged(published.events, rng)]
    write_zip(raw / "ml-100k.zip", {"u.data": lines(ratings), "u.item": lines(movies, "latin-1"), "u.user": b""})
    return published


def movie_of_100k(row: Row) -> list[str]:
    """One line of `u.item`."""
    address = f"http://us.imdb.com/M/title-exact?{quote(row['title'])}" if row["release_date"] else ""
    flags = [str(int(genre in row["genres"])) for genre in GENRES_100K]
    return [row["item_id"], row["title"], row["release_date"] or "", "", address, *flags]


def write_movielens_1m(tables: Tables, raw: Path, rng: np.random.Generator) -> Published:
    """`ml-1m.zip`: fields separated by two colons, Latin-1."""
    published = movielens(tables)
    movies = ["::".join((row["item_id"], row["title"], "|".join(row["genres"]))) for row in tables.items]
    ratings = ["::".join(fields_of(event)) for event in as_logged(published.events, rng)]
    write_zip(raw / "ml-1m.zip", {"movies.dat": lines(movies, "latin-1"), "ratings.dat": lines(ratings)})
    return published


def write_movielens_32m(tables: Tables, raw: Path, rng: np.random.Generator) -> Published:
    """`ml-32m.zip`: CSV with headers, grades with a half."""
    published = movielens(tables)
    nothing = "(no genres listed)"
    genres = [[genre for genre in row["genres"] if genre != "unknown"] for row in tables.items]
    movies = [
        (row["item_id"], row["title"], "|".join(g) or nothing) for row, g in zip(tables.items, genres, strict=True)
    ]
    ratings = [(e.user_id, e.item_id, e.rating, e.timestamp) for e in as_logged(published.events, rng)]
    files = {
        "movies.csv": csv_bytes(["movieId", "title", "genres"], movies),
        "ratings.csv": csv_bytes(["userId", "movieId", "rating", "timestamp"], ratings),
    }
    write_zip(raw / "ml-32m.zip", files)
    return published


def movielens(tables: Tables) -> Published:
    """What all three forms hold."""
    genres = {row["item_id"]: [name for name in row["genres"] if name != "unknown"] for row in tables.items}
    unknown = sum("unknown" in row["genres"] for row in tables.items)
    return Published(
        texts={
            "title": {row["item_id"]: row["title_no_year"].strip() for row in tables.items},
            "year": {row["item_id"]: None if row["year"] is None else str(row["year"]) for row in tables.items},
            "genres": {item: ", ".join(names) or None for item, names in genres.items()},
        },
        events=[
            Event(row["user_id"], row["item_id"], row["timestamp"], row["rating"], row["label"])
            for row in tables.interactions
        ],
        mapping=(
            f"the genre 'unknown' of {unknown} items is left out; lists of genres are one text",
            "label: rating of 4 and more in the tables, above 3 here; the same, as there are no halves",
            "order: in the tables a column, here that of the times and, within a second, of the file",
            "all forms hold the same ratings, those of 100K",
        ),
    )


def fields_of(event: Event) -> list[str]:
    """A line of ratings, without its delimiters."""
    return [event.user_id, event.item_id, f"{event.rating:g}", str(event.timestamp)]


# ---- Amazon ----------------------------------------------------------------------------------------------------------


def write_amazon_2018(tables: Tables, raw: Path, rng: np.random.Generator, category: str) -> Published:
    """`<category>.json.gz` with days, and `meta_<category>.json.gz`, in which texts have HTML and rows repeat."""
    published = amazon(tables)
    products = [product_of_2018(row, category) for row in [*tables.items, *tables.items[::REPEATED]]]
    reviews = [review_of_2018(event) for event in as_logged([*published.events, *lost_reviews(published)], rng)]
    write_json_lines(raw / f"{category}.json.gz", reviews)
    write_json_lines(raw / f"meta_{category}.json.gz", products)
    return published


def write_amazon_2023(tables: Tables, raw: Path, rng: np.random.Generator, category: str) -> Published:
    """`<category>.jsonl.gz` with milliseconds, and `meta_<category>.jsonl.gz`."""
    published = amazon(tables)
    products = [product_of_2023(row, category) for row in [*tables.items, *tables.items[::REPEATED]]]
    reviews = [review_of_2023(event) for event in as_logged([*published.events, *lost_reviews(published)], rng)]
    write_json_lines(raw / f"{category}.jsonl.gz", reviews)
    write_json_lines(raw / f"meta_{category}.jsonl.gz", products)
    return published


REPEATED = 50
"""One product in so many is described twice."""
LOST = 100
"""One review in so many is followed by one of a product that is not described."""


def amazon(tables: Tables) -> Published:
    """What both releases hold."""
    columns = [name for name in ("title", "description") if name in tables.items[0]]
    events = [
        Event(row["user_id"], row["item_id"], FIRST_DAY + DAY * row["order"], 5.0, 1) for row in tables.interactions
    ]
    return Published(
        texts={name: {row["item_id"]: row[name] for row in tables.items} for name in columns},
        events=events,
        mapping=(
            "times: the tables have an order alone, so the event at place k is on day k",
            "ratings and labels: the tables have none, which counts as liked; here each has 5 stars, so label 1",
            "brand and categories: the tables have none",
            f"left out: one product in {REPEATED} is described twice, and one review in {LOST} is followed by one of a "
            "product that is not described, as both happens in the releases; neither is in the tables",
        ),
        repeated_items=len(tables.items[::REPEATED]),
        unknown_events=len(events[::LOST]),
    )


def lost_reviews(published: Published) -> list[Event]:
    """Reviews of a product that the metadata lack, as there are in both releases."""
    return [event._replace(item_id="0000000000") for event in published.events[::LOST]]


def review_of_2018(event: Event) -> Row:
    """All that the release has of a review."""
    day = datetime.fromtimestamp(event.timestamp or 0, timezone.utc)
    return {
        "overall": event.rating,
        "vote": "2",
        "verified": True,
        "reviewTime": f"{day:%m} {day.day}, {day:%Y}",
        "reviewerID": event.user_id,
        "asin": event.item_id,
        "style": {"Format:": " Video Game"},
        "reviewerName": 'Zoë "Z"',
        "reviewText": "First line.\n\nSecond line \u2026",
        "summary": "Five Stars",
        "unixReviewTime": event.timestamp,
    }


def product_of_2018(row: Row, category: str) -> Row:
    """All that the release has of a product."""
    description = row.get("description")
    return {
        "category": [category.replace("_", " ")],
        "tech1": "",
        "description": [] if description is None else [html.escape(description)],
        "fit": "",
        "title": html.escape(row["title"]),
        "also_buy": ["B000FH0MHO"],
        "tech2": "",
        "brand": "",
        "feature": [],
        "rank": [">#67,231 in Video Games (See Top 100)"],
        "also_view": [],
        "main_cat": category.replace("_", " "),
        "similar_item": "",
        "date": "",
        "price": "$19.99",
        "asin": row["item_id"],
        "imageURL": [],
        "imageURLHighRes": [],
    }


def review_of_2023(event: Event) -> Row:
    """All that the release has of a review; times are in the middle of a second."""
    return {
        "rating": event.rating,
        "title": "Five Stars",
        "text": "First line.<br /><br />Second line \u2026",
        "images": [],
        "asin": f"{event.item_id}-variant",
        "parent_asin": event.item_id,
        "user_id": event.user_id,
        "timestamp": (event.timestamp or 0) * 1000 + 499,
        "helpful_vote": 0,
        "verified_purchase": True,
    }


def product_of_2023(row: Row, category: str) -> Row:
    """All that the release has of a product."""
    description = row.get("description")
    return {
        "main_category": category.replace("_", " "),
        "title": row["title"],
        "average_rating": 4.5,
        "rating_number": 10,
        "features": [],
        "description": [] if description is None else [description],
        "price": None,
        "images": [{"thumb": "https://m.media-amazon.com/1.jpg", "large": None, "variant": "MAIN", "hi_res": None}],
        "videos": [],
        "store": None,
        "categories": [],
        "details": {"Rated": "Everyone"},
        "parent_asin": row["item_id"],
        "bought_together": None,
    }


# ---- H&M -------------------------------------------------------------------------------------------------------------

ARTICLE = {
    "article_id": "item_id",
    "product_code": None,
    "prod_name": "title",
    "product_type_no": None,
    "product_type_name": "product_type",
    "product_group_name": "product_group",
    "graphical_appearance_no": None,
    "graphical_appearance_name": "graphical_appearance",
    "colour_group_code": None,
    "colour_group_name": "colour_group",
    "perceived_colour_value_id": None,
    "perceived_colour_value_name": None,
    "perceived_colour_master_id": None,
    "perceived_colour_master_name": None,
    "department_no": None,
    "department_name": "department",
    "index_code": None,
    "index_name": "index",
    "index_group_no": None,
    "index_group_name": None,
    "section_no": None,
    "section_name": "section",
    "garment_group_no": None,
    "garment_group_name": "garment_group",
    "detail_desc": "description",
}
"""The columns of `articles.csv`, and what the tables call them."""


def write_hm(tables: Tables, raw: Path, rng: np.random.Generator) -> Published:
    """`articles.csv`, and `transactions_train.csv` by day and customer, whose ids are 64 hexadecimal digits."""
    user_of = {user: hashlib.sha256(user.encode()).hexdigest() for user in {r["user_id"] for r in tables.interactions}}
    articles = [[row[name] if name else "1" for name in ARTICLE.values()] for row in tables.items]
    bought = sorted(tables.interactions, key=lambda row: (row["timestamp"], user_of[row["user_id"]]))
    purchases = [
        (
            f"{datetime.fromtimestamp(row['timestamp'], timezone.utc):%Y-%m-%d}",
            user_of[row["user_id"]],
            row["item_id"],
            row["price"],
            row["sales_channel"],
        )
        for row in bought
    ]
    header = ["t_dat", "customer_id", "article_id", "price", "sales_channel_id"]
    (raw / "articles.csv").write_bytes(csv_bytes(list(ARTICLE), articles))
    (raw / "transactions_train.csv").write_bytes(csv_bytes(header, purchases))
    texts = {name: column for name, column in ARTICLE.items() if column not in (None, "item_id")}
    return Published(
        texts={name: {row["item_id"]: row[column] for row in tables.items} for name, column in texts.items()},
        events=[
            Event(user_of[row["user_id"]], row["item_id"], row["timestamp"], None, None) for row in tables.interactions
        ],
        mapping=(
            "customers: the tables have numbered them anew; here each number is called by its SHA-256",
            "order: in the tables a column, here that of the days and, within a day, of the file",
            "perceived colours and index group: the tables have none; price and sales channel are not read",
        ),
        user_of=user_of,
    )


# ---- which source ----------------------------------------------------------------------------------------------------

MOVIELENS: dict[str, Writer] = {
    "movielens-100k": write_movielens_100k,
    "movielens-1m": write_movielens_1m,
    "movielens-32m": write_movielens_32m,
}


def writers_of(folder: Path) -> dict[str, Writer]:
    """The published forms of a data set, by their names in the registry, from the columns of its items."""
    columns = set(pq.read_schema(folder / "items.parquet").names)
    if {"title_no_year", "release_date", "genres"} <= columns:
        return MOVIELENS
    if {"product_type", "garment_group"} <= columns:
        return {"hm": write_hm}
    if "title" in columns and columns <= {"item_id", "title", "description", "text", "has_interactions"}:
        old, new = category_of(folder, CATEGORIES_2018), category_of(folder, CATEGORIES_2023)
        return {
            f"amazon-2018-{slug(old)}": partial(write_amazon_2018, category=old),
            f"amazon-2023-{slug(new)}": partial(write_amazon_2023, category=new),
        }
    return {}


def category_of(folder: Path, categories: Sequence[str]) -> str:
    """That of which the folder's name has the greatest share of words; all are read alike."""
    words = set(folder.name.lower().split("-")) - {"amazon"}
    return max(categories, key=lambda name: len(words & set(name.lower().split("_"))) / len(name.split("_")))


def slug(category: str) -> str:
    """As the registry has it."""
    return category.lower().replace("_", "-")


# ---- raw files -------------------------------------------------------------------------------------------------------


def as_logged(events: Sequence[Event], rng: np.random.Generator) -> list[Event]:
    """All users mixed; events of one user and time stay in their order, which nothing else tells."""
    places = rng.random(len(events))
    together: dict[Hashable, list[int]] = defaultdict(list)
    for place, event in enumerate(events):
        together[event.user_id, event.timestamp].append(place)
    for group in together.values():
        places[group] = np.sort(places[group])
    return [events[place] for place in np.argsort(places)]


def lines(texts: Iterable[str], encoding: str = "utf-8") -> bytes:
    """A file of lines."""
    return "".join(f"{text}\n" for text in texts).encode(encoding)


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file with quotes where they are needed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """An archive whose files lie in a folder of its name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{path.stem}/{name}", content)


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """An object a line, gzipped."""
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


# ---- comparison ------------------------------------------------------------------------------------------------------


def measure(folder: Path, source: str, write: Writer, seed: int) -> Row:
    """Publish, prepare and compare."""
    tables = read_tables(folder)
    with TemporaryDirectory() as work:
        raw, out = Path(work) / "raw", Path(work) / "out"
        raw.mkdir()
        published = write(tables, raw, np.random.default_rng(seed))
        start = time.perf_counter()
        facts = prepare(published_data(source), raw, out)
        seconds = time.perf_counter() - start
        compared = compare(folder, tables, published, out, facts)
        files = {path.name: path.stat().st_size for path in sorted(raw.iterdir())}
    return {
        "raw_bytes": files,
        "seconds": round(seconds, 3),
        "compared": compared,
        "mapping": [*published.mapping, delicate(published)],
    }


def delicate(published: Published) -> str:
    """How many texts there are of the kinds that formats stumble over."""
    texts = [text for column in published.texts.values() for text in column.values() if text]
    kinds = {"a comma": ",", "a quotation mark": '"', "an ampersand": "&", "an angle bracket": "<"}
    counts = {name: sum(mark in text for text in texts) for name, mark in kinds.items()}
    counts["letters beyond ASCII"] = sum(not text.isascii() for text in texts)
    return "texts with " + ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def compare(folder: Path, tables: Tables, published: Published, out: Path, facts: Row) -> dict[str, Row]:
    """The rows of the table, in the order of `COMPARED`."""
    items = pq.read_table(out / "items.parquet").to_pylist()
    events = read_events(out)
    user_of = published.user_of or {row["user_id"]: row["user_id"] for row in tables.interactions}
    histories = {user_of[user]: chosen for user, chosen in histories_of(folder, tables.items).items()}
    left_out = {"repeated items": published.repeated_items, "of unknown items": published.unknown_events}
    counted = {"repeated items": facts["repeated_items"], "of unknown items": facts["interactions_of_unknown_items"]}
    texts = [(name, item, text) for name, column in published.texts.items() for item, text in column.items()]
    results = (
        difference({user_of[row["user_id"]] for row in tables.interactions}, {event.user_id for event in events}),
        difference([row["item_id"] for row in tables.items], [row["item_id"] for row in items]),
        difference(published.events, events),
        difference(texts, [(name, row["item_id"], row[name]) for name in published.texts for row in items]),
        difference(histories.items(), histories_of(out, items).items()),
        difference(Counter(left_out).elements(), Counter(counted).elements()),
    )
    return dict(zip(COMPARED, results, strict=True))


def difference(expected: Iterable[Hashable], found: Iterable[Hashable]) -> Row:
    """How many there are (as multisets), how many are on one side alone, and some of these."""
    wanted, there = Counter(expected), Counter(found)
    missing, more = wanted - there, there - wanted
    return {
        "tables": wanted.total(),
        "prepared": there.total(),
        "missing": missing.total(),
        "added": more.total(),
        "examples": [str(each)[:200] for side in (missing, more) for each in list(side)[:EXAMPLES]],
    }


def read_tables(folder: Path) -> Tables:
    """Both tables as rows."""
    items, interactions = (pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("items", "interactions"))
    return Tables(items, sorted(interactions, key=lambda row: (row["user_id"], row["order"])))


def read_events(out: Path) -> list[Event]:
    """The interactions that were prepared; columns that a source lacks are missing."""
    rows = pq.read_table(out / "interactions.parquet").to_pylist()
    return [Event(**{name: row.get(name) for name in Event._fields}) for row in rows]


def histories_of(folder: Path, items: list[Row]) -> dict[str, tuple[str, ...]]:
    """From users to their items, oldest first, as `build_histories` has them."""
    ids = [row["item_id"] for row in items]
    histories = build_histories(str(folder), ids)
    return {user: tuple(ids[row] for row in histories[place]) for place, user in enumerate(histories.users)}


# ---- receipts and tables ---------------------------------------------------------------------------------------------


def receipt_of(folder: Path, writers: dict[str, Writer], seed: int) -> Row:
    """All figures of a folder."""
    start = time.perf_counter()
    results: Row = {
        "data": folder.name,
        "inputs_sha256": {name: sha256_of_file(folder / name) for name in ("items.parquet", "interactions.parquet")},
        "seed": seed,
        "figures": {source: measure(folder, source, write, seed) for source, write in writers.items()},
    }
    # The folder's own path is nobody's business, and a shell has put the names in the place of the star.
    return results | circumstances("", time.perf_counter() - start) | {"command": COMMAND}


def print_tables(receipt: Row) -> None:
    """One data set: a column for each form that it was published in."""
    figures = receipt["figures"]
    print(f"### {receipt['data']}\n")
    print(f"| | {' | '.join(figures)} |\n|---|{'---|' * len(figures)}")
    for name in COMPARED:
        print(f"| {name} | {' | '.join(told(row['compared'][name]) for row in figures.values())} |")
    print(f"| seconds | {' | '.join(format(row['seconds'], '.1f') for row in figures.values())} |\n")
    for line in dict.fromkeys(line for row in figures.values() for line in row["mapping"]):
        print(f"- {line}")
    print()


def told(row: Row) -> str:
    """A cell: equal, or how many differ and the first of these."""
    if not row["missing"] and not row["added"]:
        return f"{row['tables']:,}, equal" if row["tables"] else "none"
    example = row["examples"][0].replace("|", "\\|")
    return f"{row['tables']:,}; {row['missing']:,} missing, {row['added']:,} added, such as {example}"


def main() -> None:
    """Run and print the tables."""
    options = parse_arguments(
        AdaptersBenchmark, None, program="benchmarks/adapters.py", description=AdaptersBenchmark.__doc__ or ""
    )
    without = []
    if not options.table:
        if not options.data:
            sys.exit("give --data")
        for folder in (path for path in map(Path, options.data) if not path.is_file()):  # the star finds a README too
            writers = writers_of(folder)
            if writers:
                write_json(Path(options.receipts) / f"{folder.name}.json", receipt_of(folder, writers, options.seed))
            else:
                without.append(folder.name)
    for path in sorted(Path(options.receipts).glob("*.json")):
        print_tables(read_json(path))
    if without:
        print(f"Of other sources than the adapters read: {', '.join(without)}.")


if __name__ == "__main__":
    main()
