"""Item texts: what is written, what is left out, and the same for rows as for tables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.errors import DataError
from recbase_hf.text.template import ItemTemplate


def test_lead_comes_first_then_one_named_field_per_line_in_the_order_of_fields() -> None:
    template = ItemTemplate(fields=("release_year", "title"), lead="Describe a movie:")
    assert template.render({"title": "Heat", "release_year": 1995, "plot": "a heist"}) == (
        "Describe a movie:\nRelease year: 1995\nTitle: Heat"
    )


def test_one_configured_field_keeps_its_name_even_if_it_is_called_text() -> None:
    assert ItemTemplate(fields=("text",)).render({"text": "Heat"}) == "Text: Heat"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Tom &amp; Viv &lt;3", "Tom & Viv <3"),
        ("  a\n\n b\t c&nbsp;d ", "a b c d"),
        (["Drama", " ", None, "Sci &amp; Fi"], "Drama, Sci & Fi"),
        (np.array(["x", "y"]), "x, y"),
        ([1, 2.0], "1, 2"),
        (7, "7"),
        (7.0, "7"),
        (7.5, "7.5"),
        (np.float32(3), "3"),
        (np.int64(3), "3"),
        (True, "True"),
    ],
)
def test_values_are_written_clean(value: Any, written: str) -> None:
    assert ItemTemplate(fields=("x",)).render({"x": value}) == f"X: {written}"


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("nan"), "", " \n", "&nbsp;", [], [None, ""]])
def test_an_item_whose_fields_are_all_empty_has_an_empty_text_without_the_lead(value: Any) -> None:
    assert ItemTemplate(fields=("x",), lead="A film.").render({"x": value}) == ""


def test_pandas_missing_values_are_empty() -> None:
    pandas = pytest.importorskip("pandas")
    assert ItemTemplate(fields=("x", "y")).render({"x": pandas.NA, "y": pandas.NaT}) == ""


def test_each_value_is_cut_at_2000_characters_after_cleaning() -> None:
    text = ItemTemplate(fields=("x", "y")).render({"x": "&amp;" * 3_000, "y": "a " * 1_500})
    assert text == "X: " + "&" * 2_000 + "\nY: " + ("a " * 1_000).rstrip()


def test_without_fields_the_text_column_alone_is_written_bare() -> None:
    assert ItemTemplate().render({"item_id": "i", "title": "Heat", "text": "A heist."}) == "A heist."
    assert ItemTemplate(lead="A film.").render({"text": "A heist."}) == "A film.\nA heist."
    assert ItemTemplate().render({"title": "Heat", "text": None}) == ""


def test_without_fields_or_text_column_all_columns_of_strings_are_written_but_the_id() -> None:
    row = {"item_id": "i", "title": "Heat", "year": 1995, "genres": ["Crime"], "vector": [0.5], "good": True}
    assert ItemTemplate().render(row) == "Title: Heat\nGenres: Crime"


def test_a_field_that_the_table_lacks_is_named_with_the_columns_there_are() -> None:
    template = ItemTemplate(fields=("title", "brand"))
    for render in (lambda: template.render({"title": "a"}), lambda: template.render_all({"title": []})):
        with pytest.raises(DataError, match=r"'brand'.*\['title'\]"):
            render()


@pytest.mark.parametrize("value", [{"a": 1}, b"bytes"])
def test_a_value_without_plain_text_is_refused_by_name(value: Any) -> None:
    with pytest.raises(DataError, match="'extra' holds a value of type"):
        ItemTemplate(fields=("extra",)).render({"extra": value})


CELLS = st.one_of(st.none(), st.text(max_size=8))
TABLES = st.integers(0, 4).flatmap(
    lambda rows: st.fixed_dictionaries(
        {
            "item_id": st.lists(st.text(max_size=3), min_size=rows, max_size=rows),
            "title": st.lists(CELLS, min_size=rows, max_size=rows),
            "tags": st.lists(st.one_of(st.none(), st.lists(CELLS, max_size=3)), min_size=rows, max_size=rows),
            "price": st.lists(st.one_of(st.none(), st.floats()), min_size=rows, max_size=rows),
        }
    )
)
TYPES = {"item_id": pa.string(), "title": pa.large_string(), "tags": pa.list_(pa.string()), "price": pa.float64()}


@settings(max_examples=50, deadline=None)
@given(columns=TABLES, fields=st.sampled_from([None, ("price", "tags"), ("title",)]))
def test_a_table_gives_the_texts_of_its_rows_in_every_container(
    columns: dict[str, list[Any]], fields: tuple[str, ...] | None
) -> None:
    template = ItemTemplate(fields=fields, lead="An item.")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    expected = [template.render(row) for row in rows]
    assert template.render_all(columns) == expected
    assert template.render_all(pa.table({name: pa.array(columns[name], TYPES[name]) for name in columns})) == expected
    for text in expected:
        assert all(line == line.strip() and line for line in text.splitlines())


def test_a_dataset_is_read_through_its_selection() -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"], "year": [1, 2, 3]})
    assert ItemTemplate().render_all(dataset.select([2, 0])) == ["Title: C", "Title: A"]
    assert ItemTemplate(fields=("year",)).render_all(dataset.with_format("numpy")) == ["Year: 1", "Year: 2", "Year: 3"]


def test_categories_and_tables_without_any_text_column() -> None:
    category = pa.array(["x", "y", "x"]).dictionary_encode()
    assert ItemTemplate().render_all(pa.table({"kind": category})) == ["Kind: x", "Kind: y", "Kind: x"]
    assert ItemTemplate().render_all(pa.table({"item_id": ["a", "b"], "n": [1, 2]})) == ["", ""]
    assert ItemTemplate().render_all({"item_id": ["a", "b"], "n": [1, 2]}) == ["", ""]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="differ in length"):
        ItemTemplate().render_all({"a": ["x"], "b": ["x", "y"]})


@pytest.mark.parametrize("template", [ItemTemplate(), ItemTemplate(("title", "brand"), "A product.")])
def test_a_template_survives_json(template: ItemTemplate) -> None:
    assert ItemTemplate.from_dict(json.loads(json.dumps(template.to_dict()))) == template


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 2, "separator": "|"}, "version 2 is unknown.*install"),
        ({"field": ["a"]}, r"unknown keys \['field'\].*known: fields"),
        ({"fields": "title"}, r"fields=\('title',\)"),
        ({"fields": []}, "names no column"),
    ],
)
def test_a_template_that_cannot_be_understood_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemTemplate.from_dict(content)
