"""What the documentation shows, runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import recbase_hf
from recbase_hf import RecBaseScorer
from tiny_world import HashEncoder, make_model, make_tokenizer

REPOSITORY = Path(__file__).parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(recbase_hf.__path__, "recbase_hf.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    block = re.search(r"<!-- use-example -->\s*```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    model, items = tmp_path / "model", tmp_path / "items.csv"
    tokenizer = make_tokenizer()
    RecBaseScorer(make_model(tokenizer.layout), tokenizer).save_pretrained(model)
    names = ["json.loads", "json.dumps", "pathlib.Path", "tkinter.Tk", *(f"module.name{i}" for i in range(10))]
    items.write_text("item_id,title\n" + "".join(f"{name},{name.replace('.', ' ')}\n" for name in names))
    monkeypatch.setattr("recbase_hf.text.vector_cache.load_text_encoder", lambda *_, **__: HashEncoder())
    code = block[1].replace('"recbase-mini"', repr(str(model)))
    code = code.replace("runs/demo/python-api/stdlib/items.parquet", str(items))
    assert str(model) in code
    assert str(items) in code
    lines = code.strip().splitlines()
    lines[-2:] = ["scores = " + lines[-2], "found = " + lines[-1]]
    namespace: dict = {}
    exec("\n".join(lines), namespace)
    assert namespace["scores"].shape == (2,)
    assert np.isfinite(namespace["scores"]).all()
    assert len({item.item_id for item in namespace["found"]}) == 10
