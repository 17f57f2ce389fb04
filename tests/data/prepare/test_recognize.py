"""Columns of somebody's files are recognized by usual names, and what is not recognized is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbase_hf.data.prepare.recognize import recognized_columns, recognized_pairs
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


def test_numbers_are_no_texts_unless_there_is_nothing_else(tmp_path):
    log, items = write(tmp_path / "log.csv", "user", "sku"), tmp_path / "items.csv"
    items.write_text("sku,name,price,stock,note\n1,1984,9.90,3,\n2,Emma,,0,\n")
    assert recognized_columns(log, items).texts == ("name", "note")
    assert recognized_columns(log, items, texts=("price",)).texts == ("price",)
    items.write_text("sku,price\n1,9.90\n")
    assert recognized_columns(log, items).texts == ("price",)


def test_each_file_has_a_delimiter_of_its_own(tmp_path):
    log = write(tmp_path / "log.csv", "user", "sku", "date")
    items = write(tmp_path / "items.csv", "sku", "name", delimiter=";")
    columns = recognized_columns(log, items)
    assert (columns.delimiter, columns.items_delimiter) == (",", ";")


def test_an_order_is_the_place_only_where_no_time_is_known_or_somebody_says_so(tmp_path):
    log = write(tmp_path / "log.csv", "user", "item", "order", "date", "title")
    assert recognized_columns(log).order is None
    assert recognized_columns(log, named={"order": "order"}).order == "order"
    assert recognized_columns(write(tmp_path / "log.csv", "user", "item", "order", "title")).order == "order"
    assert recognized_columns(write(tmp_path / "log.csv", "user", "item", "position", "title")).order is None


def test_a_date_goes_before_a_time_of_day(tmp_path):
    log = write(tmp_path / "log.csv", "user", "item", "time", "date", "title")
    assert recognized_columns(log).timestamp == "date"


def test_pairs_are_recognized_by_themselves(tmp_path):
    log = recognized_columns(write(tmp_path / "log.csv", "customer", "sku", "title"))
    (tmp_path / "pairs.csv").write_text("segment\titem_id\tuser\nx\t007\tann\n")
    table, user, item = recognized_pairs(tmp_path / "pairs.csv", log)
    assert (user, item) == ("user", "item_id")
    assert table.to_pylist() == [{"segment": "x", "item_id": "007", "user": "ann"}]
    (tmp_path / "pairs.csv").write_text("who,sku\nann,1\n")
    with pytest.raises(DataError, match=r"pairs.csv: which column is the user\? call it 'customer', as in .*log.csv"):
        recognized_pairs(tmp_path / "pairs.csv", log)
    (tmp_path / "pairs.csv").write_text("customer,sku\nann,\n")
    with pytest.raises(DataError, match="column 'sku', row 1: the id is missing"):
        recognized_pairs(tmp_path / "pairs.csv", log)


def test_a_header_that_repeats_a_name_is_refused(tmp_path):
    with pytest.raises(DataError, match="two columns are called 'user'"):
        recognized_columns(write(tmp_path / "log.csv", "user", "item", "user"))


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
        assert columns.items_id == found
        assert columns.texts == tuple(name for name in header if name != found)


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
