"""What one process publishes, others load by its id: from the Hub, a revision, or the cache without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hub_server import LFS_FROM, READER, WRITER, HubServer
from tiny_world import make_items
from training_record import make_training_record

# PEFT still asks transformers for it by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

MINI, SECRET, ADAPTER, SHOP = "reczoo/recbase-mini", "reczoo/secret", "ann/adapter", "ann/shop"
TOKENIZER, TOYS = "ann/tokenizer", "ann/toys"
TESTS = Path(__file__).parents[1]
OPEN = ["--license", "apache-2.0", "--data-licenses", "toys=own"]

PUSH = "import sys; from recbase_hf.cli import main; main(['push', *sys.argv[1:]])"
PUSH_ALL = """
import json, sys
from recbase_hf.cli import main

for arguments in json.loads(sys.argv[1]):
    main(["push", *arguments])
"""
LOAD = """
import json, re, sys
from pathlib import Path
import recbase_hf.text.vector_cache
from tiny_world import HashEncoder

recbase_hf.load_text_encoder = recbase_hf.text.vector_cache.load_text_encoder = lambda *_, **__: HashEncoder()
from huggingface_hub import hf_hub_download
from peft import AutoPeftModelForCausalLM
from recbase_hf import ItemCatalog, RecBaseScorer

def run_example(repo, repo_type=None, result="found"):
    card = Path(hf_hub_download(repo, "README.md", repo_type=repo_type)).read_text()
    lines = re.search(r"## Use\\n\\n```python\\n(.*?)```", card, re.DOTALL)[1].strip().splitlines()
    namespace = {}
    if result == "found":  # what the last line shows
        lines[-1] = "found = " + lines[-1]
    exec("\\n".join(lines), namespace)
    return [list(item) for item in namespace["found"]] if result == "found" else len(namespace[result])

def scores(scorer, catalog):
    return scorer.score(["item-4", "item-9"], ["item-1", "item-7"], catalog=catalog).tolist()

found = {"examples": [run_example("MINI"), run_example("ADAPTER"), run_example("SHOP", "dataset")]}
found["sizes"] = [run_example("TOKENIZER", result="catalog"), run_example("TOYS", "dataset", "interactions")]
scorer = RecBaseScorer.from_pretrained("MINI", device="cpu")
catalog = ItemCatalog.from_pretrained("SHOP", tokenizer=scorer.tokenizer)
found["scores"] = scores(scorer, catalog)
found["revision"] = scores(RecBaseScorer.from_pretrained("MINI", device="cpu", revision="v2"), catalog)
adapted = AutoPeftModelForCausalLM.from_pretrained("ADAPTER").merge_and_unload()
found["adapted"] = scores(RecBaseScorer(adapted.eval(), scorer.tokenizer), catalog)
for name, options in {"reader": {"token": "READER"}, "expired": {"token": "hf_expired"}}.items():
    try:
        RecBaseScorer.from_pretrained("SECRET", **options)
    except OSError as error:
        found[name] = str(error)
print(json.dumps(found))
"""
for name in ("MINI", "ADAPTER", "SHOP", "SECRET", "READER", "TOKENIZER", "TOYS"):
    LOAD = LOAD.replace(f'"{name}"', f'"{globals()[name]}"')

LOAD_CATALOG = """
import sys, time
time.sleep = lambda seconds: None  # between the attempts of huggingface_hub
from recbase_hf import ItemCatalog
try:
    ItemCatalog.from_pretrained(sys.argv[1])
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def run(code, *arguments, environment, cwd=None):
    """A fresh process; a deadline, because a Hub that does not answer is tried again."""
    path = {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **path, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server
        assert server.unknown == []


@pytest.fixture(scope="module")
def other_bundle(folders, world, tmp_path_factory):
    """The next state of the bundle, with other weights."""
    import torch

    from recbase_hf.bundle import save_bundle
    from tiny_world import make_model

    folder = tmp_path_factory.mktemp("next") / "bundle"
    model = make_model(world.tokenizer.layout, seed=1)
    assert not torch.equal(model.lm_head.weight, world.model.lm_head.weight)
    save_bundle(folder, model, world.tokenizer, record=make_training_record())
    return folder


@pytest.fixture(scope="module")
def adapter(folders, tmp_path_factory):
    """A LoRA adapter as PEFT leaves it: over a local folder, with a card for others to fill in."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    base = AutoModelForCausalLM.from_pretrained(folders / "bundle", dtype="float32")
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, settings).save_pretrained(folder)
    assert "[More Information Needed]" in (folder / "README.md").read_text()
    training = {"settings": {"data": {"toys": "h-toys"}, "epochs": 1.0}}
    (folder / "training.json").write_text(json.dumps(training))
    return folder


@pytest.fixture(scope="module")
def published(hub, folders, other_bundle, adapter, tmp_path_factory):
    """Everything pushed by one fresh process."""
    bundle, catalog = str(folders / "bundle"), str(folders / "catalog")
    pushes = [
        [bundle, MINI, *OPEN],
        [str(other_bundle), MINI, *OPEN, "--revision", "v2"],
        [bundle, SECRET, *OPEN, "--private"],
        [str(adapter), ADAPTER, *OPEN, "--base", MINI],
        [str(folders / "tokenizer"), TOKENIZER, *OPEN],
        [str(folders / "toys"), TOYS, "--license", "cc0-1.0"],
        [catalog, SHOP, "--license", "mit", "--base", MINI, "--private"],
    ]
    home = tmp_path_factory.mktemp("publisher")
    done = run(PUSH_ALL, json.dumps(pushes), environment=hub.environment(home))
    assert done.returncode == 0, done.stderr
    return hub


@pytest.fixture(scope="module")
def loaded(published, tmp_path_factory):
    """What another fresh process made of it, and the home that it leaves with its cache."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    home = tmp_path_factory.mktemp("reader")
    rows = [{**row, "item_id": f"id-{number}"} for number, row in enumerate(make_items(12))]
    pq.write_table(pa.Table.from_pylist(rows), home / "items.parquet")
    done = run(LOAD, environment=published.environment(home), cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), home


@pytest.fixture(scope="module")
def expected(folders, other_bundle, adapter, world):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from recbase_hf import RecBaseScorer

    def scores(model):
        scorer = RecBaseScorer(model.eval(), world.tokenizer)
        return scorer.score(["item-4", "item-9"], ["item-1", "item-7"], catalog=world.catalog)

    base = AutoModelForCausalLM.from_pretrained(folders / "bundle", dtype="float32")
    adapted = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    other = AutoModelForCausalLM.from_pretrained(other_bundle, dtype="float32")
    return {"scores": scores(world.model), "revision": scores(other), "adapted": scores(adapted)}


def test_everything_arrived(published, folders):
    weights = (folders / "bundle" / "model.safetensors").read_bytes()
    assert published.files(MINI)["model.safetensors"] == weights
    assert len(weights) >= LFS_FROM
    assert ("PUT", "/lfs/") in {(verb, path[:5]) for verb, path in published.requests}
    config = json.loads(published.files(ADAPTER)["adapter_config.json"])
    assert config["base_model_name_or_path"] == MINI
    card = published.files(ADAPTER)["README.md"].decode()
    assert re.search(f"base_model: {MINI}\n", card)
    assert "[More Information Needed]" not in card
    assert "| toys | training | own |" in card


@pytest.mark.parametrize("name", ["scores", "revision", "adapted"])
def test_another_process_scores_the_same(loaded, expected, name):
    np.testing.assert_allclose(loaded[0][name], expected[name], rtol=1e-5)


def test_models_differ_so_that_the_comparison_says_something(expected):
    assert abs(expected["scores"] - expected["revision"]).max() > 0.1
    assert abs(expected["scores"] - expected["adapted"]).max() > 0.001


def test_the_examples_of_the_cards_run_as_they_stand(loaded):
    bundle, adapter, catalog = loaded[0]["examples"]
    assert {item[0] for item in bundle} == {f"id-{number}" for number in range(12)} - {"id-1", "id-2"} or len(
        bundle
    ) == 10
    assert len(adapter) == 10
    assert len(catalog) == 3
    assert loaded[0]["sizes"] == [12, 2]


def test_a_private_repository_is_not_there_for_others(loaded):
    assert "If this is a private repository, make sure to pass a token" in loaded[0]["reader"]
    assert "the Hub does not accept the token for reczoo/secret" in loaded[0]["expired"]


def test_the_cache_serves_without_a_network(loaded, published):
    before = len(published.requests)
    found, home = loaded
    offline = {**published.environment(home), "HF_HUB_OFFLINE": "1"}
    done = run(LOAD, environment=offline, cwd=home)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout.splitlines()[-1])
    for name in ("scores", "revision", "adapted", "examples"):
        assert again[name] == found[name]
    assert len(published.requests) == before


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_TOKEN": READER}, "FileNotFoundError: there is no repository ann/shop on the Hub for this token"),
        ({"HF_TOKEN": "hf_expired"}, "PermissionError: the Hub does not accept the token for ann/shop"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "ConnectionError: ann/shop is not in the cache and the Hub cannot be"),
        ({"HF_HUB_OFFLINE": "1"}, "ConnectionError: ann/shop is not in the cache and the Hub cannot be reached"),
    ],
)
def test_a_catalog_that_cannot_be_had_is_an_error_in_words(published, tmp_path, environment, message):
    done = run(LOAD_CATALOG, SHOP, environment={**published.environment(tmp_path), **environment})
    assert done.returncode == 1
    assert message in done.stderr


def test_a_push_that_is_killed_leaves_the_hub_as_it_was_and_can_be_given_again(published, other_bundle, tmp_path):
    before = dict(published.repositories["model", MINI].branches)
    arguments = [str(other_bundle), MINI, *OPEN]
    environment = {**os.environ, **published.environment(tmp_path), "OMP_NUM_THREADS": "1"}
    published.blobs.clear()
    process = subprocess.Popen(
        [sys.executable, "-c", PUSH, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    published.on_upload = process.kill
    assert process.wait(60) < 0
    published.on_upload = lambda: None
    assert published.repositories["model", MINI].branches == before
    done = run(PUSH, *arguments, environment=published.environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert published.files(MINI)["model.safetensors"] == (other_bundle / "model.safetensors").read_bytes()


def test_an_expired_token_is_told_by_the_command(published, folders, tmp_path):
    environment = published.environment(tmp_path, token="hf_expired")
    done = run(PUSH, str(folders / "bundle"), "ann/new", *OPEN, environment=environment)
    assert done.returncode == 2
    assert "recbase push: the Hub does not accept the token for ann/new: it is wrong or has expired" in done.stderr
    assert WRITER not in done.stderr
    assert ("model", "ann/new") not in published.repositories
