"""Amazon reviews, a category each: the release of 2018 (`asin`) and that of 2023 (`parent_asin`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import one_array
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.ratings import (
    LABEL_RULE,
    RatedFields,
    plain_lists,
    plain_text,
    plain_texts,
    rated_rows,
    rows_with,
)
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows

__all__ = ["PUBLISHED", "amazon_2018", "amazon_2023"]

ITEMS = pa.schema(dict.fromkeys(("item_id", "title", "brand", "categories", "description"), pa.string()))

PRODUCT_2023 = pa.schema(
    {
        "parent_asin": pa.string(),
        "title": pa.string(),
        "store": pa.string(),
        "categories": pa.list_(pa.string()),
        "main_category": pa.string(),
        "description": pa.list_(pa.string()),
    }
)

FIELDS_2018 = RatedFields("reviewerID", "asin", "overall", "unixReviewTime", time="seconds")
FIELDS_2023 = RatedFields("user_id", "parent_asin", "rating", "timestamp", time="milliseconds")

_IN_BOTH = (
    "All_Beauty",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Software",
    "Sports_and_Outdoors",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
)
CATEGORIES_2018 = (*_IN_BOTH, "AMAZON_FASHION", "Luxury_Beauty", "Prime_Pantry")
CATEGORIES_2023 = (
    *_IN_BOTH,
    "Amazon_Fashion",
    "Baby_Products",
    "Beauty_and_Personal_Care",
    "Handmade_Products",
    "Health_and_Household",
    "Health_and_Personal_Care",
    "Subscription_Boxes",
    "Unknown",
)


def amazon_2018(raw: RawFolder, category: str) -> PreparedTables:
    """`<category>.json.gz`, or else its 5-core `<category>_5.json.gz`, and `meta_<category>.json.gz`."""
    reviews = raw.find(*(f"{category}{core}.json{packed}" for core in ("", "_5") for packed in (".gz", "")))
    products = raw.find(f"meta_{category}.json.gz", f"meta_{category}.json").json_rows()
    left_out: Counter[str] = Counter()
    rows = map(_product_of_2018, rows_with("asin", (row for _, row in products), left_out))
    return PreparedTables(tables_of_rows(rows, ITEMS), rated_rows(reviews, FIELDS_2018), left_out=left_out)


def amazon_2023(raw: RawFolder, category: str) -> PreparedTables:
    """`<category>.jsonl.gz` and `meta_<category>.jsonl.gz`."""
    reviews = raw.find(f"{category}.jsonl.gz", f"{category}.jsonl")
    products = raw.find(f"meta_{category}.jsonl.gz", f"meta_{category}.jsonl")
    left_out: Counter[str] = Counter()
    return PreparedTables(_products_of_2023(products, left_out), rated_rows(reviews, FIELDS_2023), left_out=left_out)


def _products_of_2023(file: RawFile, left_out: Counter[str]) -> Iterator[pa.Table]:
    for block in file.json_blocks():
        table = block.table(PRODUCT_2023)
        if table is None:
            rows = rows_with("parent_asin", (row for _, row in block.rows()), left_out)
            yield pa.Table.from_pylist([_product_of_2023(row) for row in rows], schema=ITEMS)
        else:
            yield _product_table_of_2023(table, left_out)


def _product_of_2018(row: dict[str, Any]) -> dict[str, str | None]:
    title = plain_text(row.get("title"))
    return {
        "item_id": row["asin"],
        # Some pages were not parsed; their titles are scripts, which the source says to tell by this word.
        "title": None if title and "getTime" in title else title,
        "brand": plain_text(row.get("brand")),
        "categories": plain_text(row.get("category") or row.get("categories") or row.get("main_cat"), ", "),
        "description": plain_text(row.get("description")),
    }


def _product_of_2023(row: dict[str, Any]) -> dict[str, str | None]:
    return {
        "item_id": row["parent_asin"],
        "title": plain_text(row.get("title")),
        "brand": plain_text(row.get("store")),
        "categories": plain_text(row.get("categories") or row.get("main_category"), ", "),
        "description": plain_text(row.get("description")),
    }


def _product_table_of_2023(table: pa.Table, left_out: Counter[str]) -> pa.Table:
    """What `_product_of_2023` makes of each row, many times as fast."""
    has_id = pc.fill_null(pc.not_equal(table["parent_asin"], ""), False)
    there = table.filter(has_id)
    if there.num_rows < table.num_rows:
        left_out["items without parent_asin"] += table.num_rows - there.num_rows
    ids, title, store, categories, main_category, description = (one_array(column) for column in there.columns)
    columns = [
        ids,
        plain_texts(title),
        plain_texts(store),
        pc.if_else(
            pc.fill_null(pc.greater(pc.list_value_length(categories), 0), False),
            plain_lists(categories, ", "),
            plain_texts(main_category),
        ),
        plain_lists(description),
    ]
    return pa.table(columns, schema=ITEMS)


def _of_2018(category: str) -> PublishedData:
    return PublishedData(
        name=f"amazon-2018-{_slug(category)}",
        domain=_domain(category),
        license="none is stated; the authors ask for a citation",
        source="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        files=(f"{category}.json.gz or {category}_5.json.gz", f"meta_{category}.json.gz"),
        text_fields=("title", "brand", "categories", "description"),
        label_rule=LABEL_RULE,
        adapter=partial(amazon_2018, category=category),
    )


def _of_2023(category: str) -> PublishedData:
    return PublishedData(
        name=f"amazon-2023-{_slug(category)}",
        domain=_domain(category),
        license="none is stated; the authors ask for a citation",
        source="https://amazon-reviews-2023.github.io/",
        files=(f"{category}.jsonl.gz", f"meta_{category}.jsonl.gz"),
        text_fields=("title", "brand", "categories", "description"),
        label_rule=LABEL_RULE,
        adapter=partial(amazon_2023, category=category),
    )


def _slug(category: str) -> str:
    return category.lower().replace("_", "-")


def _domain(category: str) -> str:
    return "products" if category == "Unknown" else category.lower().replace("_", " ")


PUBLISHED = (*map(_of_2018, CATEGORIES_2018), *map(_of_2023, CATEGORIES_2023))
