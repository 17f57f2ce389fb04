"""Columns of somebody's files are recognized by usual names, and what is not recognized is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbase_hf.data.prepare.recognize import recognized_columns
from recbase_hf.errors import DataError


def write(path: Path, *header: str, delimiter: str = ",") -> Path:
    path.write_text(delimiter.join(header) + "\n")
    return path


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (["user_id", "item_id", "timestamp", "title"], ("user_id", "item_id", "timestamp")),
        (["CustomerID", "StockCode", "Description", "InvoiceDate"], ("CustomerID", "StockCode", "InvoiceDate")),
        (["Title", "reviewerID", "asin", "unixReviewTime"], ("reviewerID", "asin", "unixReviewTime")),
        (["userId", "movieId", "rating", "title"], ("userId", "movieId", None)),
        (["User", "Name", "Item"], ("User", "Item", None)),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_usual_names_are_recognized_whatever_cuts_the_cells(tmp_path, header, found, delimiter):
    columns = recognized_columns(write(tmp_path / "log.csv", *header, delimiter=delimiter))
    assert (columns.user_id, columns.item_id, columns.timestamp) == found
    assert columns.delimiter == delimiter
    assert len(columns.texts) == 1


def test_named_columns_win_and_are_not_taken_twice(tmp_path):
    log = write(tmp_path / "log.csv", "user_id", "buyer", "item", "time", "title")
    columns = recognized_columns(log, named={"user_id": "buyer", "timestamp": None})
    assert (columns.user_id, columns.item_id, columns.timestamp) == ("buyer", "item", "time")


def test_the_id_of_an_item_is_called_as_in_the_log_or_has_a_usual_name(tmp_path):
    log = write(tmp_path / "log.csv", "user", "sku")
    for header, found in [
        (["id", "sku", "name"], "sku"),
        (["id", "name"], "id"),
        (["name", "Product ID"], "Product ID"),
    ]:
        items = write(tmp_path / "items.csv", *header)
        columns = recognized_columns(log, items)
        assert (columns.items_id, columns.texts) == (found, ())


@pytest.mark.parametrize(
    ("log", "items", "complaint"),
    [
        (
            ["who", "sku"],
            ["sku", "name"],
            r"log.csv: which column is the user\? name it with --user-id; the",
        ),
        (["user", "what"], ["sku", "name"], r"log.csv: which column is the item\? name it with --item-id"),
        (["user", "sku"], ["number", "name"], r"items.csv: which column is the item's id\? name it with --items-id"),
        (["user", "sku", "price"], None, r"log.csv: which columns are the texts of the items\? name them with --texts"),
    ],
)
def test_what_is_not_recognized_is_asked_for(tmp_path, log, items, complaint):
    items = None if items is None else write(tmp_path / "items.csv", *items)
    with pytest.raises(DataError, match=complaint):
        recognized_columns(write(tmp_path / "log.csv", *log), items)


def test_files_of_another_kind_or_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv does not exist"):
        recognized_columns(tmp_path / "absent.csv")
    (tmp_path / "log.parquet").touch()
    with pytest.raises(DataError, match="only delimited files"):
        recognized_columns(tmp_path / "log.parquet")
