"""What docstrings show, runs; the reference is made of them; links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import recbase_hf

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(recbase_hf.__path__, "recbase_hf.")
    if not module.name.endswith("__main__")
)
PAGES = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "benchmarks/README.md", "hub_cards/reczoo/*.md")
    for path in REPOSITORY.glob(pattern)
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["commands.md", "python.md"])
def test_the_reference_is_that_of_the_code(name):
    pages = runpy.run_path(str(DOCS / "reference.py"))["PAGES"]
    assert (DOCS / name).read_text(encoding="utf-8") == pages[name](), "make reference writes it anew"


# ---- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    published = REPOSITORY / "checkpoints" / page.stem  # a card of the Hub lies beside the files of its repository
    assert dead_links(page, published if published.is_dir() else page.parent) == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Of `this`, and that!\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n")
    links = ["other.md", "other.md#of-this-and-that", "other.md#twice-1", "#here", ".", "https://nobody.example/x"]
    dead = ["absent.md", "other.md#twice-2", "other.md#no-heading", "#there"]
    page = tmp_path / "page.md"
    page.write_text("# Here\n\n" + "\n".join(f"[a\nlink]({link})" for link in [*links, *dead]))
    page.write_text(page.read_text() + '\n<img src="absent.svg">\n`[no](link)`\n\n[way]: absent/way.md\n')
    assert dead_links(page, tmp_path) == [*dead, "absent.svg", "absent/way.md"]


def dead_links(page: Path, folder: Path) -> list[str]:
    """Links of a page of Markdown, in order, to files that are not there or headings that they lack.

    Args:
        page: the page.
        folder: that its links start from.
    """
    text = re.sub(r"`[^`\n]*`", "", without_blocks(page))
    found = re.findall(
        r"\]\(([^)\s]+)[^)]*\)|\b(?:src|srcset|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE
    )
    dead = []
    for link in map("".join, found):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = folder / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    slugs: list[str] = []
    for heading in re.findall(r"^#+ +(.*?)[ #]*$", without_blocks(page), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slugs.append(re.sub(r"[^\w -]", "", words).replace(" ", "-"))
    return {f"{slug}-{before}" if (before := slugs[:place].count(slug)) else slug for place, slug in enumerate(slugs)}


def without_blocks(page: Path) -> str:
    """Its text without the code between fences."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
