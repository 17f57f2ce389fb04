"""H&M Personalized Fashion Recommendations: `articles.csv` and `transactions_train.csv`."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import seconds
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "hm"]

TEXTS = (
    "prod_name",
    "product_type_name",
    "product_group_name",
    "graphical_appearance_name",
    "colour_group_name",
    "perceived_colour_value_name",
    "perceived_colour_master_name",
    "department_name",
    "index_name",
    "index_group_name",
    "section_name",
    "garment_group_name",
    "detail_desc",
)


def hm(raw: RawFolder) -> PreparedTables:
    """Articles keep the zero that their ids start with; purchases of one day keep the order of the file."""
    return PreparedTables(_articles(raw.find("articles.csv")), _purchases(raw.find("transactions_train.csv")))


def _articles(file: RawFile) -> Iterator[pa.Table]:
    for table in file.csv_tables(dict.fromkeys(("article_id", *TEXTS), pa.string())):
        _require_ten_digits(table["article_id"], file)
        yield table.rename_columns(["item_id", *TEXTS])


def _purchases(file: RawFile) -> Iterator[pa.Table]:
    for table in file.csv_tables(dict.fromkeys(("customer_id", "article_id", "t_dat"), pa.string())):
        _require_ten_digits(table["article_id"], file)
        times = seconds(table["t_dat"], "%Y-%m-%d", f"{file.name}, column 't_dat'")
        yield pa.table([table["customer_id"], table["article_id"], times], names=["user_id", "item_id", "timestamp"])


def _require_ten_digits(ids: pa.ChunkedArray, file: RawFile) -> None:
    """Ids that were numbers once have lost their zero, and match no other file."""
    wrong = ids.filter(pc.invert(pc.fill_null(pc.match_substring_regex(ids, r"^\d{10}$"), False)))
    if len(wrong):
        raise DataError(
            f"{file.name}: article_id {wrong[0].as_py()!r} has not ten digits; a program that read ids as numbers has "
            "lost the zero in front: take the file as published"
        )


PUBLISHED = (
    PublishedData(
        name="hm",
        domain="fashion",
        license="non-commercial use, no redistribution; see the rules of the competition",
        source="https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations/data",
        files=("articles.csv", "transactions_train.csv"),
        text_fields=TEXTS,
        label_rule="implicit: every purchase counts as liked",
        adapter=hm,
    ),
)
