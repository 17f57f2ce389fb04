"""Amazon-M2 (KDD Cup 2023): `products_train.csv` and `sessions_train.csv`."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode, joined, words
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "amazon_m2"]

TEXTS = ("title", "brand", "color", "size", "model", "material", "author", "desc")


def amazon_m2(raw: RawFolder) -> PreparedTables:
    """All locales; a product of two locales is two items (`UK:B00...`, `DE:B00...`), as it has two texts.

    Sessions are anonymous, so that each is a user, called by its row; the item after it is its last event.
    """
    return PreparedTables(_products(raw.find("products_train.csv")), _events(raw.find("sessions_train.csv")))


def _products(file: RawFile) -> Iterator[pa.Table]:
    for table in file.csv_tables(dict.fromkeys(("id", "locale", "price", *TEXTS), pa.string())):
        ids = joined(table["locale"], table["id"], ":")
        columns = [ids, *(table[name] for name in (*TEXTS, "price", "locale"))]
        yield pa.table(columns, names=["item_id", *TEXTS, "price", "locale"])


def _events(file: RawFile) -> Iterator[pa.Table]:
    """Lists of items are written as NumPy or as Python does: `['B01' 'B02']`, `['B01', 'B02']`, on several lines."""
    before = 0
    for table in file.csv_tables(dict.fromkeys(("prev_items", "next_item", "locale"), pa.string())):
        lists = table["prev_items"]
        is_list = pc.fill_null(pc.match_substring_regex(lists, r"(?s)^\s*\[[^\[\]]*\]\s*$"), False)
        if not pc.all(is_list).as_py():
            row = pc.index(is_list, False).as_py()
            raise DataError(
                f"{file.name}, row {before + row + 1}, column 'prev_items': {lists[row].as_py()!r} is not a list of "
                "items such as ['B01' 'B02']"
            )
        previous = pc.replace_substring_regex(lists, r"[\[\]'\",\s]+", " ")
        events = explode(words(joined(previous, table["next_item"], " ")))
        rows = pa.array(events.rows)
        columns = [
            pa.array(events.rows + before).cast(pa.string()),
            joined(table["locale"].take(rows), events.values, ":"),
            pa.array(events.places),
        ]
        yield pa.table(columns, names=["user_id", "item_id", "order"])
        before += table.num_rows


PUBLISHED = (
    PublishedData(
        name="amazon-m2",
        domain="products",
        license="Apache-2.0 according to the page of the challenge; check it for your use",
        source="https://www.aicrowd.com/challenges/amazon-kdd-cup-23-multilingual-recommendation-challenge",
        files=("products_train.csv", "sessions_train.csv"),
        text_fields=TEXTS,
        label_rule="implicit: every item of a session counts as liked",
        adapter=amazon_m2,
    ),
)
