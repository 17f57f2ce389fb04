"""Every route to a saved folder gives right ids or fails, and nothing of transformers' own is displaced.

What a folder without its `auto_map` or `tokenizer.json` loads as is transformers' private behavior: it is written down
here, a test for each kind of folder, so that a change upstream is noticed.
"""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

import recbase_hf
from auto_routes import tokenizer_of
from recbase_hf import RecBaseTokenizer

OURS = "recbase_hf RecBaseTokenizer, right ids"
SHIPPED = "transformers_modules RecBaseTokenizer, right ids"
PLAIN = "transformers TokenizersBackend, right ids"
QWEN2_WRONG = "transformers Qwen2Tokenizer, WRONG IDS"
NO_REASON = "fails without saying why"
ASKS = "asks for trust"


@pytest.fixture
def routes(folders, without_package, modules_cache):
    """What `AutoTokenizer` gives for a folder: with the package by default and trusting, without it likewise."""

    def of(name):
        here = [tokenizer_of(folders[name]), tokenizer_of(folders[name], trust_remote_code=True)]
        return [*here, *(without_package[trust]["tokenizers"][name] for trust in (False, True))]

    return of


def test_the_fresh_processes_had_no_package(without_package):
    assert not any(answer["package"] for answer in without_package.values())


def test_tokenizer_folder_as_written(routes):
    assert routes("tokenizer") == [OURS, OURS, ASKS, SHIPPED]


def test_tokenizer_folder_without_auto_map(routes):
    assert routes("tokenizer without auto_map") == [OURS, OURS, PLAIN, PLAIN]


def test_tokenizer_folder_without_tokenizer_json(routes):
    assert routes("tokenizer without tokenizer.json") == [OURS, OURS, ASKS, SHIPPED]


def test_tokenizer_folder_without_auto_map_and_tokenizer_json(routes):
    assert routes("tokenizer without auto_map and tokenizer.json") == [OURS, OURS, NO_REASON, NO_REASON]


def test_bundle_as_written(routes):
    assert routes("bundle") == [OURS, SHIPPED, PLAIN, SHIPPED]


def test_bundle_without_auto_map(routes):
    assert routes("bundle without auto_map") == [QWEN2_WRONG] * 4


def test_bundle_without_tokenizer_json(routes):
    assert routes("bundle without tokenizer.json") == [OURS, SHIPPED, NO_REASON, SHIPPED]


def test_bundle_without_auto_map_and_tokenizer_json(routes):
    assert routes("bundle without auto_map and tokenizer.json") == [QWEN2_WRONG] * 4


@pytest.mark.parametrize("kind", ["tokenizer", "bundle"])
@pytest.mark.parametrize(
    "lacking", ["", " without auto_map", " without tokenizer.json", " without auto_map and tokenizer.json"]
)
def test_the_class_itself_loads_every_folder(folders, world, kind, lacking):
    tokenizer = RecBaseTokenizer.from_pretrained(folders[kind + lacking])
    assert type(tokenizer) is RecBaseTokenizer
    assert tokenizer.fingerprint == world.tokenizer.fingerprint


def test_the_shipped_tokenizer_encodes_items_as_ours_does(world, without_package):
    answer = without_package[True]
    assert answer["fingerprint"] == world.tokenizer.fingerprint
    assert answer["codes"] == world.tokenizer.encode_items(world.catalog.texts).tolist()


def test_texts_without_the_package_are_refused_with_the_command_that_installs_it(without_package):
    assert "tests/hash-encoder needs the recbase_hf package (pip install" in without_package[True]["texts"]


def test_the_shipped_tokenizer_finds_the_text_encoder_of_an_imported_package(bundle, world, modules_cache, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(bundle, trust_remote_code=True)
    assert not isinstance(tokenizer, RecBaseTokenizer)
    encoder = world.tokenizer.attached_text_encoder
    monkeypatch.setattr(recbase_hf, "load_text_encoder", lambda name, revision: encoder, raising=False)
    assert (
        tokenizer.encode_items(world.catalog.texts).tolist()
        == world.tokenizer.encode_items(world.catalog.texts).tolist()
    )


def test_a_bundle_is_a_plain_qwen2_with_and_without_the_package(bundle, without_package):
    assert type(AutoModelForCausalLM.from_pretrained(bundle)) is Qwen2ForCausalLM
    assert [answer["model"] for answer in without_package.values()] == ["Qwen2ForCausalLM"] * 2


def test_other_qwen2_tokenizers_stay_what_they_are(tmp_path):
    vocabulary = {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}
    Qwen2Tokenizer(vocab=vocabulary, merges=[("a", "b")]).save_pretrained(tmp_path)
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is Qwen2Tokenizer
