"""Rated data sets: small files in the published format give exact rows, and other files a clear error."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from recbase_hf.data.prepare.prepared import PreparedTables
from recbase_hf.data.prepare.raw_files import RawFolder
from recbase_hf.data.prepare.registry import DATA_SETS
from recbase_hf.errors import DataError

Rows = list[dict[str, Any]]


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_objects(path: Path, rows: Iterable[Any]) -> None:
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def rows_of(name: str, folder: Path) -> tuple[Rows, Rows]:
    """All items and interactions that an adapter gives."""
    tables: PreparedTables = DATA_SETS[name].adapter(RawFolder(folder))
    items = [row for table in tables.items for row in table.to_pylist()]
    return items, [row for table in tables.interactions for row in table.to_pylist()]


def event(user: str, item: str, rating: float | None, timestamp: int | None, label: int | None) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "rating": rating, "timestamp": timestamp, "label": label}


# Amazon


def review_2018(user: str, item: str, rating: float, time: int) -> dict[str, Any]:
    return {
        "overall": rating,
        "verified": True,
        "reviewTime": "01 1, 2018",
        "reviewerID": user,
        "asin": item,
        "style": {"Format:": " Audio CD"},
        "reviewText": "fine",
        "unixReviewTime": time,
    }


def test_amazon_2018(tmp_path: Path) -> None:
    products = [
        {
            "asin": "B1",
            "title": "Rock &amp; Roll",
            "brand": "The <i>Band</i>",
            "category": ["CDs &amp; Vinyl", "Rock"],
            "description": ["Live,", "", "in  1969"],
            "price": "$9.99",
        },
        {"asin": "B2", "title": "var aPageStart = (new Date()).getTime();", "category": [], "main_cat": "Music"},
        {"asin": "B1", "title": "Rock &amp; Roll again"},
    ]
    write_objects(tmp_path / "meta_CDs_and_Vinyl.json.gz", products)
    reviews = [review_2018("U1", "B1", 5.0, 1514764800), review_2018("U1", "B2", 3.0, 1514851200)]
    write_objects(tmp_path / "CDs_and_Vinyl_5.json.gz", [*reviews, review_2018("U2", "B9", 2.0, 0)])
    items, events = rows_of("amazon-2018-cds-and-vinyl", tmp_path)
    assert items == [
        {
            "item_id": "B1",
            "title": "Rock & Roll",
            "brand": "The Band",
            "categories": "CDs & Vinyl, Rock",
            "description": "Live, in 1969",
        },
        {"item_id": "B2", "title": None, "brand": None, "categories": "Music", "description": None},
        {"item_id": "B1", "title": "Rock & Roll again", "brand": None, "categories": None, "description": None},
    ]
    assert events == [
        event("U1", "B1", 5.0, 1514764800, 1),
        event("U1", "B2", 3.0, 1514851200, 0),
        event("U2", "B9", 2.0, 0, 0),
    ]


def test_amazon_2018_prefers_all_reviews_to_the_core(tmp_path: Path) -> None:
    write_objects(tmp_path / "meta_Books.json.gz", [{"asin": "B1", "title": "A book"}])
    write_objects(tmp_path / "Books_5.json.gz", [review_2018("core", "B1", 5.0, 1)])
    write_objects(tmp_path / "Books.json.gz", [review_2018("all", "B1", 5.0, 1)])
    assert rows_of("amazon-2018-books", tmp_path)[1] == [event("all", "B1", 5.0, 1, 1)]


def review_2023(user: str, item: str, rating: float, time: int) -> dict[str, Any]:
    return {
        "rating": rating,
        "title": "Great",
        "text": "",
        "images": [],
        "asin": f"{item}-blue",
        "parent_asin": item,
        "user_id": user,
        "timestamp": time,
        "helpful_vote": 0,
        "verified_purchase": True,
    }


def amazon_2023(folder: Path, times: list[int]) -> Path:
    product: dict[str, Any] = {
        "main_category": "Video Games",
        "title": "Chess &amp; Go",
        "features": [],
        "description": [],
        "store": None,
        "categories": [],
        "details": {"Brand": "x"},
        "parent_asin": "P1",
    }
    write_objects(folder / "meta_Video_Games.jsonl.gz", [product])
    reviews = [review_2023(f"U{place}", "P1", 4.0, time) for place, time in enumerate(times)]
    write_objects(folder / "Video_Games.jsonl.gz", reviews)
    return folder


def test_amazon_2023_takes_the_parent_and_milliseconds(tmp_path: Path) -> None:
    items, events = rows_of("amazon-2023-video-games", amazon_2023(tmp_path, [1588687728923]))
    assert items == [
        {"item_id": "P1", "title": "Chess & Go", "brand": None, "categories": "Video Games", "description": None}
    ]
    assert events == [event("U0", "P1", 4.0, 1588687728, 1)]


def test_mixed_time_units_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"timestamp, line 2: 1588687728 does not count milliseconds"):
        rows_of("amazon-2023-video-games", amazon_2023(tmp_path, [1588687728923, 1588687728]))
    write_objects(tmp_path / "meta_Software.json", [{"asin": "B1"}])
    write_objects(tmp_path / "Software.json", [review_2018("U", "B1", 5.0, 1514764800000)])
    with pytest.raises(DataError, match=r"unixReviewTime, line 1: 1514764800000 does not count seconds"):
        rows_of("amazon-2018-software", tmp_path)


def test_another_release_of_amazon_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Video_Games\.json\.gz or .*another version"):
        rows_of("amazon-2018-video-games", amazon_2023(tmp_path, [1588687728923]))
    write_objects(tmp_path / "meta_Video_Games.json.gz", [{"asin": "B1"}])
    write_objects(tmp_path / "Video_Games.json.gz", [review_2023("U", "P1", 5.0, 1)])
    with pytest.raises(DataError, match=r"line 1: no field 'reviewerID'; the fields are rating, .*another version"):
        rows_of("amazon-2018-video-games", tmp_path)


def test_dictionaries_of_the_release_of_2014_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "meta_Books.json.gz", "{'asin': 'B1', 'title': 'A book'}\n")
    write_objects(tmp_path / "Books.json.gz", [review_2018("U", "B1", 5.0, 1)])
    with pytest.raises(DataError, match=r"meta_Books.json.gz, line 1: no json object"):
        rows_of("amazon-2018-books", tmp_path)


def test_truncated_reviews_are_refused(tmp_path: Path) -> None:
    amazon_2023(tmp_path, [1588687728923 + place**3 for place in range(1000)])
    path = tmp_path / "Video_Games.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"Video_Games.jsonl.gz is truncated or damaged"):
        rows_of("amazon-2023-video-games", tmp_path)


@pytest.mark.parametrize("missing", [None, ""])
def test_reviews_without_an_id_are_refused(tmp_path: Path, missing: str | None) -> None:
    amazon_2023(tmp_path, [])
    good, bad = review_2023("U", "P1", 5.0, 1588687728923), review_2023("U", "P1", 5.0, 1588687728923)
    write_objects(tmp_path / "Video_Games.jsonl.gz", [good, bad | {"user_id": missing}])
    with pytest.raises(DataError, match=r"field user_id, line 2: the id is missing"):
        rows_of("amazon-2023-video-games", tmp_path)


def test_every_category_of_amazon_has_a_name() -> None:
    names = [name for name in DATA_SETS if name.startswith("amazon-")]
    assert sum(name.startswith("amazon-2018-") for name in names) == 29
    assert sum(name.startswith("amazon-2023-") for name in names) == 34


# Goodreads


def goodreads(folder: Path, *added: str) -> Path:
    works = [
        {"best_book_id": "10", "original_title": "Emma ", "original_publication_year": "1815", "work_id": "1"},
        {"best_book_id": "11", "original_title": "", "original_publication_year": "", "work_id": "2"},
        {"best_book_id": "12", "original_title": "Ulysses", "original_publication_year": "", "work_id": "3"},
    ]
    books = [{"book_id": "10", "title": "Emma (Penguin)", "publication_year": "2003", "publisher": "", "work_id": "1"}]
    write_objects(folder / "goodreads_book_works.json.gz", works)
    write_objects(folder / "goodreads_books.json.gz", books)
    shelves = [
        {
            "user_id": "u1",
            "book_id": "10",
            "review_id": "r",
            "is_read": place == 0,
            "rating": 4 if place == 0 else 0,
            "date_added": date,
            "read_at": "",
        }
        for place, date in enumerate(added)
    ]
    write_objects(folder / "goodreads_interactions_dedup.json.gz", shelves)
    return folder


def test_goodreads_counts_what_was_read(tmp_path: Path) -> None:
    goodreads(tmp_path, "Fri Aug 25 13:55:02 -0700 2017", "Thu Jan 01 00:00:00 +0000 2015")
    items, events = rows_of("goodreads", tmp_path)
    assert items == [
        {"item_id": "10", "title": "Emma", "year": "1815"},
        {"item_id": "12", "title": "Ulysses", "year": None},
    ]
    assert events == [event("u1", "10", 4.0, 1503694502, 1), event("u1", "10", None, 1420070400, 0)]


def test_goodreads_with_editions_as_items(tmp_path: Path) -> None:
    items, _ = rows_of("goodreads-books", goodreads(tmp_path, "Fri Aug 25 13:55:02 -0700 2017"))
    assert items == [
        {"item_id": "10", "title": "Emma (Penguin)", "year": "2003", "publisher": None, "description": None}
    ]


def test_goodreads_with_other_dates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"field date_added, from line 1: not a date .*25 août 2017"):
        rows_of("goodreads", goodreads(tmp_path, "25 août 2017"))


# Yelp


def test_yelp(tmp_path: Path) -> None:
    business = {
        "business_id": "b1",
        "name": "Joe's",
        "address": "",
        "city": "Reno",
        "state": "NV",
        "attributes": None,
        "categories": "Pizza, Bars",
    }
    closed = {"business_id": "b2", "name": "Shut", "categories": None}
    write_objects(tmp_path / "yelp_academic_dataset_business.json", [business, closed])
    review = {"review_id": "r", "user_id": "u", "business_id": "b1", "text": "line\nline", "useful": 0}
    reviews = [
        review | {"stars": stars, "date": date}
        for stars, date in ((4.0, "2018-07-07 22:09:11"), (3.0, "2018-07-07 22:09:12"), (1.0, "2018-07-08 00:00:00"))
    ]
    write_objects(tmp_path / "yelp_academic_dataset_review.json", reviews)
    items, events = rows_of("yelp", tmp_path)
    nothing = dict.fromkeys(("categories", "address", "city", "state"))
    assert items == [
        {
            "item_id": "b1",
            "name": "Joe's",
            "categories": "Pizza, Bars",
            "address": None,
            "city": "Reno",
            "state": "NV",
        },
        {"item_id": "b2", "name": "Shut", **nothing},
    ]
    assert events == [
        event("u", "b1", 4.0, 1531001351, 1),
        event("u", "b1", 3.0, 1531001352, 0),
        event("u", "b1", 1.0, 1531008000, 0),
    ]


# Google Local


def test_google_local(tmp_path: Path) -> None:
    place = {"name": "Space Needle", "address": "400 Broad St", "gmap_id": "0x1:0x2", "category": ["Tower", "Sight"]}
    write_objects(tmp_path / "meta-Washington.json.gz", [place | {"description": None, "hours": [["Mon", "9"]]}])
    review: dict[str, Any] = {"user_id": "1", "name": "A", "text": None, "pics": None, "resp": {"time": 1, "text": "x"}}
    times: list[tuple[int | None, int | None]] = [(5, 1562983105296), (None, 1562983105999), (2, None)]
    reviews = [review | {"time": time, "rating": rating, "gmap_id": "0x1:0x2"} for rating, time in times]
    write_objects(tmp_path / "review-Washington.json.gz", reviews)
    items, events = rows_of("google-local-washington", tmp_path)
    assert items == [
        {
            "item_id": "0x1:0x2",
            "name": "Space Needle",
            "categories": "Tower, Sight",
            "address": "400 Broad St",
            "description": None,
        }
    ]
    assert events == [
        event("1", "0x1:0x2", 5.0, 1562983105, 1),
        event("1", "0x1:0x2", None, 1562983105, None),
        event("1", "0x1:0x2", 2.0, None, 0),
    ]


# Steam


def test_steam_keeps_the_order_of_the_list(tmp_path: Path) -> None:
    damaged = "Pokémon".encode().decode("latin-1")
    apps = f'10,Half-Life,game,9.99,1998-11-08 00:00:00\n20,"Papers, Please",game,9.99,2013-08-08\n30,{damaged},dlc\n'
    write(tmp_path / "App_ID_Info.txt", apps)
    write(tmp_path / "train_game.txt", "7656,20,10,\n7657\n7658,30\n")
    items, events = rows_of("steam", tmp_path)
    assert items == [
        {"item_id": "10", "title": "Half-Life"},
        {"item_id": "20", "title": "Papers, Please"},
        {"item_id": "30", "title": "Pokémon"},
    ]
    assert events == [
        {"user_id": "7656", "item_id": "20", "order": 0},
        {"user_id": "7656", "item_id": "10", "order": 1},
        {"user_id": "7658", "item_id": "30", "order": 0},
    ]


def test_steam_with_other_delimiters_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "App_ID_Info.txt", "10,Half-Life,game\n")
    write(tmp_path / "train_game.txt", "7656 20 10\n7657 20\n")
    with pytest.raises(DataError, match=r"train_game.txt: no games after the users; .*commas"):
        rows_of("steam", tmp_path)
    write(tmp_path / "App_ID_Info.txt", "10;Half-Life;game\n")
    with pytest.raises(DataError, match=r"App_ID_Info.txt, line 1: no comma"):
        rows_of("steam", tmp_path)


# HotelRec

BALTIC = "Hotel_Review-g194775-d1121769-Reviews-Hotel_Baltic-Giulianova_Province_of_Teramo_Abruzzo.html"
NAMELESS = "Hotel_Review-g1-d2-Reviews-Just_A_Name.html"


def test_hotelrec_reads_hotels_from_their_addresses(tmp_path: Path) -> None:
    review = {"title": "Great", "text": "…", "property_dict": {"value": 4.0}}
    reviews = [
        review | {"hotel_url": url, "author": author, "date": "2010-02-01T00:00:00", "rating": rating}
        for url, author, rating in ((BALTIC, "a", 4.0), (NAMELESS, "b", 2.0), (BALTIC, "b", 3.0))
    ]
    write_objects(tmp_path / "HotelRec.txt", reviews)
    items, events = rows_of("hotelrec", tmp_path)
    baltic, nameless = (hashlib.md5(url.encode()).hexdigest()[:6] for url in (BALTIC, NAMELESS))
    assert items == [
        {
            "item_id": baltic,
            "hotel_name": "Hotel Baltic",
            "hotel_location": "Giulianova Province of Teramo Abruzzo",
        },
        {"item_id": nameless, "hotel_name": "Just A Name", "hotel_location": None},
    ]
    assert events == [
        event("a", baltic, 4.0, 1264982400, 1),
        event("b", nameless, 2.0, 1264982400, 0),
        event("b", baltic, 3.0, 1264982400, 0),
    ]


def test_hotels_that_would_share_an_id_stay_apart(tmp_path: Path) -> None:
    seen: dict[str, str] = {}
    for number in range(100_000):
        url = f"-Reviews-{number}-X.html"
        digest = hashlib.md5(url.encode()).hexdigest()[:6]
        if digest in seen:
            break
        seen[digest] = url
    review = {"author": "a", "date": "2010-02-01T00:00:00", "rating": 4.0}
    write_objects(tmp_path / "HotelRec.txt", [review | {"hotel_url": address} for address in (seen[digest], url)])
    items, events = rows_of("hotelrec", tmp_path)
    ids = [digest, hashlib.md5(url.encode()).hexdigest()]
    assert [row["item_id"] for row in items] == [row["item_id"] for row in events] == ids


# Netflix


def netflix(folder: Path, ratings: str = "2:\n1,2,2005-09-08\n") -> Path:
    write(folder / "movie_titles.csv", "1,2003,Dinosaur Planet\n2,NULL,Me, Myself & Amélie\n", encoding="latin-1")
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("combined_data_1.txt", "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n")
        archive.writestr("combined_data_2.txt", ratings)
        archive.writestr("combined_data_3.txt", "1:\n5,1,1999-12-31\n2:\n")
        archive.writestr("combined_data_4.txt", "2:\n6,4,2005-09-08\n")
    return folder


def test_netflix(tmp_path: Path) -> None:
    items, events = rows_of("netflix-prize", netflix(tmp_path))
    assert items == [
        {"item_id": "1", "title": "Dinosaur Planet", "year": "2003"},
        {"item_id": "2", "title": "Me, Myself & Amélie", "year": None},
    ]
    assert events == [
        event("1488844", "1", 3.0, 1125964800, 0),
        event("822109", "1", 5.0, 1115942400, 1),
        event("1", "2", 2.0, 1126137600, 0),
        event("5", "1", 1.0, 946598400, 0),
        event("6", "2", 4.0, 1126137600, 1),
    ]


def test_a_movie_goes_on_in_the_next_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbase_hf.data.prepare.raw_files._BLOCK_BYTES", 60)
    netflix(tmp_path, ratings="2:\n" + "".join(f"{user},5,2005-09-08\n" for user in range(100)))
    _, events = rows_of("netflix-prize", tmp_path)
    assert [row["item_id"] for row in events] == ["1", "1", *["2"] * 100, "1", "2"]


@pytest.mark.parametrize("ratings", ["1\t2\t2005-09-08\n", "1,2,2005-09-08\n", "2:\n1,9,2005-09-08\n"])
def test_other_ratings_of_netflix_are_refused(tmp_path: Path, ratings: str) -> None:
    with pytest.raises(DataError, match=r"combined_data_2.txt"):
        rows_of("netflix-prize", netflix(tmp_path, ratings))


def test_other_titles_of_netflix_are_refused(tmp_path: Path) -> None:
    write(netflix(tmp_path) / "movie_titles.csv", "1;2003;Dinosaur Planet\n")
    with pytest.raises(DataError, match=r"movie_titles.csv, line 1: not movie,year,title"):
        rows_of("netflix-prize", tmp_path)
