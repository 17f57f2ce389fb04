"""What docstrings show, runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import recbase_hf

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(recbase_hf.__path__, "recbase_hf.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
