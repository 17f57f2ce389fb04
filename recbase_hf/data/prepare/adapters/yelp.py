"""Yelp Open Dataset: businesses and their reviews."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.ratings import LABEL_RULE, RatedFields, plain_text, rated_rows, rows_with
from recbase_hf.data.prepare.raw_files import RawFolder, tables_of_rows

__all__ = ["PUBLISHED", "yelp"]

ITEMS = pa.schema(dict.fromkeys(("item_id", "name", "categories", "address", "city", "state"), pa.string()))
FIELDS = RatedFields("user_id", "business_id", "stars", "date", time="date")


def yelp(raw: RawFolder) -> PreparedTables:
    """Files of the unpacked archive; times are local to the business and read as UTC."""
    businesses = raw.find("yelp_academic_dataset_business.json", "yelp_academic_dataset_business.json.gz").json_rows()
    left_out: Counter[str] = Counter()
    rows = map(_business, rows_with("business_id", (row for _, row in businesses), left_out))
    reviews = raw.find("yelp_academic_dataset_review.json", "yelp_academic_dataset_review.json.gz")
    return PreparedTables(tables_of_rows(rows, ITEMS), rated_rows(reviews, FIELDS), left_out=left_out)


def _business(row: dict[str, Any]) -> dict[str, str | None]:
    texts = {name: plain_text(row.get(name), ", ") for name in ITEMS.names if name != "item_id"}
    return {"item_id": row["business_id"], **texts}


PUBLISHED = (
    PublishedData(
        name="yelp",
        domain="local businesses",
        license="Yelp dataset license: academic use, no redistribution",
        source="https://www.yelp.com/dataset",
        files=("yelp_academic_dataset_business.json", "yelp_academic_dataset_review.json"),
        text_fields=("name", "categories", "address", "city", "state"),
        label_rule=LABEL_RULE,
        adapter=yelp,
    ),
)
