"""Folders to publish, and a loopback Hub that this process takes for the Hub."""

from __future__ import annotations

import json
import shutil

import pytest

from hub_server import WRITER, HubServer
from training_record import make_training_record


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub."""
    from huggingface_hub import constants

    with HubServer() as server:
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # uploads by xet go to a server of their own
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        assert server.unknown == []


@pytest.fixture(scope="session")
def folders(world, tmp_path_factory):
    """A bundle, a tokenizer, a catalog and a data set, as `save_pretrained` and `recbase data` leave them."""
    from recbase_hf.bundle import save_bundle

    root = tmp_path_factory.mktemp("folders")
    save_bundle(root / "bundle", world.model, world.tokenizer, record=make_training_record())
    world.tokenizer.save_pretrained(root / "tokenizer")
    (root / "tokenizer" / "training.json").write_text(json.dumps({"settings": {"data": {"toys": "h"}}}))
    world.catalog.save_pretrained(root / "catalog")
    data = root / "toys"
    data.mkdir()
    rows = [f"{row['item_id']},{row['title']}\n" for row in world.items]
    (data / "items.csv").write_text("item_id,title\n" + "".join(rows))
    (data / "interactions.csv").write_text("user_id,item_id\nann,item-1\nann,item-2\n")
    return root


@pytest.fixture
def folder_of(folders, tmp_path):
    """A copy of one of the folders that a test may change."""
    return lambda name: shutil.copytree(folders / name, tmp_path / "copies" / name)
