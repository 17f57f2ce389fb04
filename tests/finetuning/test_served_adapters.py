"""Several adapters over one base: each scores as if it were merged, and what does not belong to the base is refused."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from finetuning.small_shop import write_base
from recbase_hf import ItemCatalog, RecBaseScorer
from recbase_hf.adapters import Base, merged_bundle
from recbase_hf.bundle import hash_of_weights, load_bundle, save_bundle
from recbase_hf.errors import FingerprintMismatchError
from recbase_hf.finetuning.adapters import add_adapter, save_adapter
from recbase_hf.finetuning.settings import FineTuning
from tiny_world import HashEncoder, make_items, make_tokenizer

KINDS = {
    "lora": {"target": "attention"},  # also a word of PEFT's
    "rows.too": {"train_rows": ("codes",)},
    "rows/alone": {"method": "embeddings"},
}
HISTORY, CANDIDATES = ["item-3", "item-17"], [f"item-{item}" for item in range(40)]


def write_adapter(folder: Path, base: Path, *, seed: int = 1, **settings) -> Path:
    """An adapter whose weights are large enough to be noticed."""
    model, tokenizer = load_bundle(base, device="cpu")
    wrapped = add_adapter(model, FineTuning(**settings), tokenizer.layout, base=str(base))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    identity = Base(str(base), tokenizer.fingerprint, hash_of_weights(base))
    save_adapter(folder, wrapped, model.state_dict(), base=identity, record={"settings": {}})
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("bases") / "base", initializer_range=0.3)


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: write_adapter(folder / str(number), base, seed=number, **settings)
        for number, (name, settings) in enumerate(KINDS.items())
    }


@pytest.fixture(scope="module")
def catalog():
    return ItemCatalog.from_items(make_items(40), tokenizer=make_tokenizer())


def new_scorer(base) -> RecBaseScorer:
    return RecBaseScorer.from_pretrained(base, device="cpu", text_encoder=HashEncoder())


@pytest.fixture
def scorer(base, adapters):
    scorer = new_scorer(base)
    for name, folder in adapters.items():
        scorer.load_adapter(folder, name)
    return scorer


def test_each_adapter_scores_as_if_it_were_merged(scorer, base, adapters, catalog):
    alone = new_scorer(base).score(HISTORY, CANDIDATES, catalog=catalog)
    assert scorer.adapters == tuple(KINDS)
    assert scorer.active_adapter is None
    np.testing.assert_array_equal(scorer.score(HISTORY, CANDIDATES, catalog=catalog), alone)
    for name in [*KINDS, *reversed(KINDS)]:
        scorer.set_adapter(name)
        model, tokenizer, _ = merged_bundle(adapters[name])
        expected = RecBaseScorer(model, tokenizer).score(HISTORY, CANDIDATES, catalog=catalog)
        found = scorer.score(HISTORY, CANDIDATES, catalog=catalog)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert np.abs(found - alone).max() > 0.1
    scorer.set_adapter(None)
    np.testing.assert_array_equal(scorer.score(HISTORY, CANDIDATES, catalog=catalog), alone)


@pytest.mark.parametrize("name", KINDS)
def test_the_fast_scores_of_an_adapter_are_the_naive_ones(scorer, catalog, name):
    scorer.set_adapter(name)
    naive = RecBaseScorer(scorer.model, scorer.tokenizer, strategy="naive")
    for method in ("joint", "catalog"):
        scores = [each.score(HISTORY, CANDIDATES, catalog=catalog, method=method) for each in (scorer, naive)]
        np.testing.assert_allclose(*scores, rtol=1e-5)


def test_what_a_catalog_and_a_session_keep_is_of_the_active_adapter(scorer, base, adapters, catalog):
    session = scorer.session(HISTORY, catalog=catalog)
    for name in ("lora", None, "rows.too"):
        scorer.set_adapter(name)
        fresh = new_scorer(base)
        if name is not None:
            fresh.load_adapter(adapters[name], name)
            fresh.set_adapter(name)
        own = ItemCatalog.from_items(make_items(40), tokenizer=scorer.tokenizer)
        expected = fresh.score(HISTORY, CANDIDATES, catalog=own, alpha=0.5)
        np.testing.assert_allclose(scorer.score(HISTORY, CANDIDATES, catalog=catalog, alpha=0.5), expected, rtol=1e-5)
        np.testing.assert_allclose(session.score(CANDIDATES, alpha=0.5), expected, rtol=1e-5)
        found = [item.item_id for item in scorer.recommend(HISTORY, 5, catalog=catalog, alpha=0.5)]
        assert [item.item_id for item in session.recommend(5, alpha=0.5)] == found


def test_peft_itself_loads_an_adapter_by_its_folder_alone(adapters, base, catalog, monkeypatch):
    from peft import AutoPeftModelForCausalLM

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    scorer = new_scorer(base)
    for name, folder in adapters.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = AutoPeftModelForCausalLM.from_pretrained(folder).get_base_model().eval()
        scorer.load_adapter(folder, name)
        scorer.set_adapter(name)
        found = RecBaseScorer(model, scorer.tokenizer).score(HISTORY, CANDIDATES, catalog=catalog)
        np.testing.assert_allclose(found, scorer.score(HISTORY, CANDIDATES, catalog=catalog), rtol=1e-5)


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_an_adapter_over_other_weights_is_refused(adapters, tmp_path):
    other = new_scorer(write_base(tmp_path / "other", seed=1))
    with pytest.raises(FingerprintMismatchError, match=r"was trained over .*base .* has other weights"):
        other.load_adapter(adapters["lora"], "shop")
    assert (other.adapters, other.active_adapter) == ((), None)


def test_an_adapter_of_another_tokenizer_is_refused(adapters, base, tmp_path):
    model, _ = load_bundle(base)
    tokenizer, folder = make_tokenizer(seed=1), tmp_path / "other"
    model.config.recbase = None
    save_bundle(folder, model, tokenizer)
    with pytest.raises(FingerprintMismatchError, match=r"the adapter .* different tokenizers"):
        new_scorer(folder).load_adapter(adapters["lora"], "shop")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "damaged"),
        ("missing", "is missing"),
        ("shape", r"has the shape \(9, 32\)"),
        ("extra", "not a weight"),
    ],
)
def test_a_damaged_adapter_changes_nothing(scorer, base, adapters, catalog, tmp_path, fault, message):
    folder = tmp_path / "damaged"
    shutil.copytree(adapters["lora"], folder)
    weights = folder / "adapter_model.safetensors"
    state = load_file(weights)
    name = next(name for name in state if "lora_A" in name)
    if fault == "missing":
        del state[name]
    elif fault == "extra":
        state["other"] = torch.zeros(1)
    elif fault == "shape":
        state[name] = torch.zeros(9, 32)
    save_file(state, weights)
    if fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    scorer.set_adapter("rows.too")
    for each in (scorer, new_scorer(base)):
        before = each.score(HISTORY, CANDIDATES, catalog=catalog)
        with pytest.raises(ValueError, match=message):
            each.load_adapter(folder, "damaged")
        np.testing.assert_array_equal(each.score(HISTORY, CANDIDATES, catalog=catalog), before)
        each.load_adapter(adapters["lora"], "whole")
        assert "damaged" not in each.adapters


def test_names_are_checked(scorer, adapters):
    with pytest.raises(ValueError, match="'lora' is loaded already"):
        scorer.load_adapter(adapters["lora"], "lora")
    with pytest.raises(ValueError, match="no adapter 'shop': there are lora"):
        scorer.set_adapter("shop")


def test_a_folder_without_an_adapter_is_refused(base, tmp_path, adapters):
    scorer = new_scorer(base)
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        scorer.load_adapter(base, "shop")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        scorer.load_adapter(tmp_path / "nothing", "shop")
    with pytest.raises(ValueError, match="none is loaded"):
        scorer.set_adapter("shop")
    with pytest.raises(
        FileNotFoundError, match=r"is an adapter, not a bundle: load its base, then scorer.load_adapter"
    ):
        RecBaseScorer.from_pretrained(adapters["lora"])


def test_an_adapter_that_records_no_base_is_warned_of(base, adapters, tmp_path, caplog):
    folder = tmp_path / "foreign"
    shutil.copytree(adapters["lora"], folder)
    (folder / "training.json").unlink()
    new_scorer(base).load_adapter(folder, "foreign")
    assert "does not record its base" in caplog.text


def test_other_kinds_of_adapters_are_refused(base, adapters, tmp_path):
    folder = tmp_path / "prompt"
    shutil.copytree(adapters["lora"], folder)
    config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"kind .*PROMPT_TUNING; only LoRA"):
        new_scorer(base).load_adapter(folder, "prompt")


def test_without_peft_the_error_says_how_to_get_it(base, adapters, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "recbase-hf\[train\]"'):
        new_scorer(base).load_adapter(adapters["lora"], "shop")


def test_a_scorer_with_adapters_is_not_saved_as_a_bundle(scorer, tmp_path):
    with pytest.raises(ValueError, match="recbase merge"):
        scorer.save_pretrained(tmp_path / "bundle")


def test_the_calibration_of_the_base_is_not_used_for_an_adapter(scorer, catalog):
    from recbase_hf.scoring.calibration import Calibration

    parts = {"fitted_on": {}, "items_of": {}, "fingerprint": scorer.tokenizer.fingerprint, "figures": {}}
    scorer.calibration = Calibration(method="joint", alpha=0.0, text_weight=0.0, **parts)
    scorer.score_calibrated(HISTORY, CANDIDATES, catalog=catalog)
    scorer.set_adapter("lora")
    with pytest.raises(ValueError, match="fitted for the base, and adapter 'lora' is active"):
        scorer.score_calibrated(HISTORY, CANDIDATES, catalog=catalog)


def test_a_base_that_comes_with_the_package_is_found_where_the_package_lies(base, adapters, tmp_path, monkeypatch):
    packaged = {"base-of-the-package": str(base)}
    for module in ("adapters", "bundle"):
        monkeypatch.setattr(f"recbase_hf.{module}.located", lambda name: packaged.get(str(name), name))
    moved = shutil.copytree(next(iter(adapters.values())), tmp_path / "moved")
    config, record = (json.loads((moved / name).read_text()) for name in ("adapter_config.json", "training.json"))
    config["base_model_name_or_path"] = "/another/machine/base-of-the-package"
    record["base"]["name"] = "base-of-the-package"
    (moved / "adapter_config.json").write_text(json.dumps(config))
    (moved / "training.json").write_text(json.dumps(record))
    model, _, found = merged_bundle(moved)
    expected, _, _ = merged_bundle(next(iter(adapters.values())))
    assert found == "base-of-the-package"
    for (name, tensor), (_, other) in zip(model.state_dict().items(), expected.state_dict().items(), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), other.numpy(), err_msg=name)
