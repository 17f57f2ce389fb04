"""Items that are read in blocks are those that are read one by one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbase_hf.data.prepare import raw_files
from recbase_hf.data.prepare.adapters import amazon
from recbase_hf.data.prepare.ratings import plain_lists, plain_text, plain_texts
from recbase_hf.data.prepare.raw_files import JsonBlock, RawFolder
from recbase_hf.data.prepare.registry import published_data
from recbase_hf.errors import DataError

SPACES = "".join(chr(code) for code in range(0x3100) if chr(code).isspace())
TEXTS = (
    st.none()
    | st.text(st.sampled_from(f"ab&<>/;#é1{SPACES}\u200b"), max_size=12)
    | st.sampled_from(["&amp;", "<b>x</b>"])
)
LISTS = st.none() | st.lists(TEXTS, max_size=4)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, max_size=8), lists=st.lists(LISTS, max_size=8))
def test_columns_become_plain_as_texts_do(texts: list[str | None], lists: list[list[str | None] | None]) -> None:
    assert plain_texts(pa.array(texts, pa.string())).to_pylist() == list(map(plain_text, texts))
    column = pa.array(lists, pa.list_(pa.string()))
    assert plain_lists(column, ", ").to_pylist() == [plain_text(each, ", ") for each in lists]


@pytest.mark.parametrize("space", SPACES)
def test_every_white_space_is_one(space: str) -> None:
    assert plain_texts(pa.array([f"a{space}b", f"{space}a", f"a{space}"])).to_pylist() == ["a b", "a", "a"]


PRODUCTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "parent_asin": st.none() | st.sampled_from(["", "B1", "B2", "B3"]),
            "title": TEXTS,
            "store": TEXTS,
            "main_category": TEXTS,
            "categories": LISTS,
            "description": LISTS,
            "details": st.just({"a": [{}, 1]}),
        },
    ),
    max_size=6,
)


def items_of(folder: Path, lines: list[str]) -> tuple[list[dict[str, Any]], Counter[str]]:
    (folder / "meta_Books.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (folder / "Books.jsonl").write_text("")
    tables = published_data("amazon-2023-books").adapter(RawFolder(folder))
    return [row for table in tables.items for row in table.to_pylist()], Counter(tables.left_out)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(products=PRODUCTS, odd=st.sampled_from([None, {"title": 5}, {"description": "text"}, {"title": float("nan")}]))
def test_products_in_blocks_are_those_of_rows(tmp_path: Path, products: list[dict[str, Any]], odd: Any) -> None:
    lines = [json.dumps(product) for product in products + ([] if odd is None else [{"parent_asin": "B9", **odd}])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_files, "_BLOCK_BYTES", 200)
        blocks = items_of(tmp_path, lines)
        patch.setattr(JsonBlock, "table", lambda block, schema: None)
        rows = items_of(tmp_path, lines)
    assert blocks == rows


def test_products_that_are_no_text_take_the_long_way(tmp_path: Path) -> None:
    lines = [json.dumps({"parent_asin": "B1", "title": 5, "description": "of text"})]
    assert items_of(tmp_path, lines)[0] == [
        {"item_id": "B1", "title": None, "brand": None, "categories": None, "description": "of text"}
    ]


def test_a_damaged_product_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "_BLOCK_BYTES", 40)
    good = json.dumps({"parent_asin": "B1", "title": "A"})
    with pytest.raises(DataError, match=r"meta_Books\.jsonl, line 4: no json object"):
        items_of(tmp_path, [good, "", good, good[:-3]])
    (tmp_path / "meta_Books.jsonl").write_bytes(f"{good}\n".encode() + b'{"parent_asin": "\xff"}\n')
    with pytest.raises(DataError, match=r"meta_Books\.jsonl, line 2: not utf-8"):
        list(amazon.amazon_2023(RawFolder(tmp_path), "Books").items)
