"""The HTML report needs nothing from elsewhere, and nothing in a user's table becomes part of the page."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from recbase_hf.doctor import ItemTable, diagnose

VOID = {"meta"}


class Page(HTMLParser):
    """The tags, attributes and visible text of a page; open tags must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def table(name: str = "toys", items: int = 60, levels: int = 4) -> ItemTable:
    rng = np.random.default_rng(len(name))
    titles = [f"{name} {row}" for row in range(items)]
    codes = rng.integers(0, 32, size=(items, levels))
    codes[:8] = codes[0]
    vectors = rng.normal(size=(items, 6)).astype(np.float32)
    return ItemTable(name, titles, titles, [*titles[:-2], "same", "same"], codes, vectors, vectors + 0.1)


def page_of(diagnosis, folder) -> Page:
    diagnosis.save_html(folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_it_shows_verdicts_plots_and_examples(tmp_path):
    diagnosis = diagnose([table(), table("shoes")], codebook_size=32, fitted_cosines=np.linspace(0, 1, 101))
    page = page_of(diagnosis, tmp_path)
    assert page.tags.count("svg") == 2 * 4 + 1
    for finding in diagnosis.findings:
        assert finding.message.replace(" %", "\xa0%") in page.text
        assert finding.fix in page.text
    for words in ("Use of the codes", "First codes in common", "Largest buckets", "Most repeated texts", "toys 3"):
        assert words in page.text


def test_it_needs_nothing_from_elsewhere(tmp_path):
    page = page_of(diagnose([table()], codebook_size=32), tmp_path)
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "srcset", "data"} & {name for name, _ in page.attributes}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_titles_names_and_ids_are_escaped(tmp_path):
    evil = '<script>alert("1")</script>\'"><img src=x onerror=alert(1)>'
    tables = [
        replace(table(), name=evil, titles=[evil] * 60, item_ids=[f"{evil} {row}" for row in range(60)]),
        table("shoes"),
    ]
    page = page_of(diagnose(tables, codebook_size=32), tmp_path)
    assert evil in page.text
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "onerror" not in {name for name, _ in page.attributes}


@pytest.mark.parametrize("levels", [1, 9])
def test_any_number_of_levels_is_drawn(tmp_path, levels):
    page = page_of(diagnose([table(levels=levels)], codebook_size=32), tmp_path)
    assert f"level {levels}" in page.text


def test_extreme_tables_are_drawn(tmp_path):
    one = ItemTable("one", ["a"], [""], [""], np.zeros((1, 2), dtype=int))
    many = replace(table("many", items=3000), vectors=None, decoded=None, codes=np.zeros((3000, 4), dtype=int))
    for diagnosis in (
        diagnose([one], codebook_size=1),
        diagnose([one], codebook_size=10**6),
        diagnose([many], codebook_size=1024),
        diagnose([replace(one, codes=None)]),
        diagnose([replace(table(), decoded=-table().vectors)], codebook_size=32),
    ):
        page = page_of(diagnosis, tmp_path)
        assert not [value for _, value in page.attributes if value and "nan" in value.split()]
