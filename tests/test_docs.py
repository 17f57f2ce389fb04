"""What docstrings show, runs; the reference is made of them."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import runpy
from pathlib import Path

import pytest

import recbase_hf

DOCS = Path(__file__).parents[1] / "docs"
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(recbase_hf.__path__, "recbase_hf.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["commands.md", "python.md"])
def test_the_reference_is_that_of_the_code(name):
    pages = runpy.run_path(str(DOCS / "reference.py"))["PAGES"]
    assert (DOCS / name).read_text(encoding="utf-8") == pages[name](), "make reference writes it anew"
