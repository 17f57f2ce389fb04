"""Saved folders, whole and mutilated, and what a process without the package makes of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def bundle(world, tmp_path_factory):
    from recbase_hf import RecBaseScorer

    folder = tmp_path_factory.mktemp("saved") / "bundle"
    RecBaseScorer(world.model, world.tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(world, bundle, tmp_path_factory):
    """Folders by name: `tokenizer` and `bundle` as written, and what remains of them without some part."""
    root = tmp_path_factory.mktemp("folders")
    world.tokenizer.save_pretrained(root / "tokenizer")
    shutil.copytree(bundle, root / "bundle")
    for kind in ("tokenizer", "bundle"):
        for removed in ({"auto_map"}, {"tokenizer.json"}, {"auto_map", "tokenizer.json"}):
            folder = root / " without ".join([kind, " and ".join(sorted(removed))])
            shutil.copytree(root / kind, folder)
            if "auto_map" in removed:
                config = json.loads((folder / "tokenizer_config.json").read_text())
                del config["auto_map"]
                (folder / "tokenizer_config.json").write_text(json.dumps(config))
            if "tokenizer.json" in removed:
                (folder / "tokenizer.json").unlink()
    return {folder.name: folder for folder in root.iterdir()}


@pytest.fixture(scope="session")
def scoring_request(world):
    """An input of the scoring pipeline, codes as lists."""
    codes = world.catalog.codes.tolist()
    return {"history": codes[2:7], "candidates": codes[7:20]}


@pytest.fixture(scope="session")
def without_package(world, bundle, folders, scoring_request, tmp_path_factory):
    """Answers of two fresh processes that have transformers but not recbase_hf, by `trust_remote_code`."""
    request = {
        "folders": {name: str(folder) for name, folder in folders.items()},
        "bundle": str(bundle),
        "vectors": np.asarray(world.catalog.vectors, dtype=float).tolist(),
        "scoring": scoring_request,
    }

    def answer(trust: bool) -> dict:
        home = str(tmp_path_factory.mktemp("home"))
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": home, "PYTHONSAFEPATH": "1"}
        done = subprocess.run(
            [sys.executable, str(TESTS / "auto_routes.py")],
            input=json.dumps({**request, "trust": trust}) + "\n",
            env=environment,
            cwd=tmp_path_factory.mktemp("elsewhere"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor() as side_by_side:
        return dict(zip((False, True), side_by_side.map(answer, (False, True)), strict=True))


@pytest.fixture(scope="session")
def modules_cache(tmp_path_factory):
    """Keeps the code that `trust_remote_code=True` copies out of the user's cache."""
    import transformers.dynamic_module_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", list(sys.path))
        yield
