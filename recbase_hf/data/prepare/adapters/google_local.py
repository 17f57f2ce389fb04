"""Google Local reviews of 2021, a state of the USA each."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.ratings import LABEL_RULE, RatedFields, plain_text, rated_rows, rows_with
from recbase_hf.data.prepare.raw_files import RawFolder, tables_of_rows

__all__ = ["PUBLISHED", "google_local"]

ITEMS = pa.schema(dict.fromkeys(("item_id", "name", "categories", "address", "description"), pa.string()))
FIELDS = RatedFields("user_id", "gmap_id", "rating", "time", time="milliseconds")
STATES = ("Washington",)


def google_local(raw: RawFolder, state: str) -> PreparedTables:
    """`review-<state>.json.gz`, or else its 10-core `review-<state>_10.json.gz`, and `meta-<state>.json.gz`."""
    reviews = raw.find(*(f"review-{state}{core}.json{packed}" for core in ("", "_10") for packed in (".gz", "")))
    places = raw.find(f"meta-{state}.json.gz", f"meta-{state}.json").json_rows()
    left_out: Counter[str] = Counter()
    rows = map(_place, rows_with("gmap_id", (row for _, row in places), left_out))
    return PreparedTables(tables_of_rows(rows, ITEMS), rated_rows(reviews, FIELDS), left_out=left_out)


def _place(row: dict[str, Any]) -> dict[str, str | None]:
    return {
        "item_id": row["gmap_id"],
        "name": plain_text(row.get("name")),
        "categories": plain_text(row.get("category"), ", "),
        "address": plain_text(row.get("address")),
        "description": plain_text(row.get("description")),
    }


def _of(state: str) -> PublishedData:
    return PublishedData(
        name=f"google-local-{state.lower().replace('_', '-')}",
        domain="local businesses",
        license="none is stated; the authors ask for a citation",
        source="https://mcauleylab.ucsd.edu/public_datasets/gdrive/googlelocal/",
        files=(f"review-{state}.json.gz or review-{state}_10.json.gz", f"meta-{state}.json.gz"),
        text_fields=("name", "categories", "address", "description"),
        label_rule=LABEL_RULE,
        adapter=partial(google_local, state=state),
    )


PUBLISHED = tuple(map(_of, STATES))
