"""A bundle comes back whole in another process, or is refused with the name of the part that is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbase_hf import FingerprintMismatchError, RecBaseScorer
from recbase_hf.bundle import load_bundle, save_bundle
from tiny_world import HashEncoder, make_model, make_tokenizer

SCORE_ELSEWHERE = """
import json, sys
from recbase_hf import ItemCatalog, RecBaseScorer

scorer = RecBaseScorer.from_pretrained(sys.argv[1], device="cpu")
catalog = ItemCatalog.from_pretrained(sys.argv[2], tokenizer=scorer.tokenizer)
scores = {
    method: scorer.score(["item-4", "item-9"], catalog.item_ids, catalog=catalog, method=method).tolist()
    for method in ("joint", "catalog")
}
best = [list(item) for item in scorer.recommend(["item-4"], 5, catalog=catalog)]
codes = scorer.tokenizer.encode_items(catalog.vectors).tolist()
print(json.dumps({"scores": scores, "best": best, "codes": codes}))
"""


@pytest.fixture(scope="module")
def saved(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    RecBaseScorer(world.model, world.tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A bundle of the same shape with another quantizer and other weights."""
    folder = tmp_path_factory.mktemp("bundles") / "other"
    tokenizer = make_tokenizer(seed=1)
    save_bundle(folder, make_model(tokenizer.layout, seed=1), tokenizer)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- whole ---------------------------------------------------------------------------------------------------------


def test_a_fresh_process_gives_identical_scores(world, saved, tmp_path):
    world.catalog.save_pretrained(tmp_path / "catalog")
    done = subprocess.run(
        [sys.executable, "-c", SCORE_ELSEWHERE, str(saved), str(tmp_path / "catalog")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    scorer = RecBaseScorer(world.model, world.tokenizer)
    for method, scores in found["scores"].items():
        here = scorer.score(["item-4", "item-9"], world.catalog.item_ids, catalog=world.catalog, method=method)
        assert scores == here.tolist()
    best = scorer.recommend(["item-4"], 5, catalog=world.catalog)
    assert [item[0] for item in found["best"]] == [item.item_id for item in best]
    assert found["codes"] == world.tokenizer.encode_items(world.catalog.texts).tolist()


def test_a_loaded_bundle_is_the_saved_one(world, saved):
    model, tokenizer = load_bundle(saved, device="cpu")
    assert not model.training
    assert tokenizer.fingerprint == world.tokenizer.fingerprint
    for name, tensor in world.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_saving_a_loaded_bundle_writes_the_same_bytes(saved, tmp_path):
    save_bundle(tmp_path / "again", *load_bundle(saved, device="cpu"))
    assert contents(tmp_path / "again") == contents(saved)


def test_the_folder_holds_no_pickle_and_no_path(saved, tmp_path):
    model, tokenizer = load_bundle(saved, device="cpu")
    save_bundle(tmp_path / "again", model, tokenizer, card="# A card\n", record={"seed": 3})
    for path, content in contents(tmp_path / "again").items():
        assert path.suffix in {".json", ".py", ".safetensors", ".md"}, path
        for folder in (saved, tmp_path, os.path.expanduser("~"), os.getcwd()):
            assert str(folder).encode() not in content, path
    assert (tmp_path / "again" / "README.md").read_text() == "# A card\n"
    assert json.loads((tmp_path / "again" / "training.json").read_text()) == {"seed": 3}


def test_saving_changes_neither_mode_nor_device_of_the_model(tmp_path, monkeypatch):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer.layout).train()
    moves = []
    monkeypatch.setattr(model, "to", lambda *args: moves.append(args))
    save_bundle(tmp_path / "bundle", model, tokenizer)
    assert model.training
    assert moves == []


def test_files_have_the_usual_permissions(saved):
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o666 & ~umask}


def test_dtype_device_and_text_encoder_can_be_chosen(saved):
    scorer = RecBaseScorer.from_pretrained(saved, dtype=torch.bfloat16, device="cpu", text_encoder=HashEncoder())
    assert scorer.model.dtype == torch.bfloat16
    assert scorer.tokenizer.encode_items(["red shoe"]).shape == (1, 4)
    assert load_bundle(saved, device="cpu")[0].dtype == torch.float32


# ---- parts that do not belong together -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("swapped", "complaint"),
    [
        (["quantizer.safetensors"], "quantizer.safetensors, .* was changed since"),
        (["quantizer.safetensors", "quantizer_config.json"], "quantizer.safetensors, .* was changed since"),
        (["tokenizer_config.json"], "tokenizer_config.json was changed since"),
        (["quantizer.safetensors", "tokenizer_config.json"], "the model .* and the tokenizer"),
        (["config.json"], "the model .* and the tokenizer"),
        (["config.json", "model.safetensors"], "the model .* and the tokenizer"),
    ],
)
def test_files_of_another_bundle_are_refused(copied, other, swapped, complaint):
    for name in swapped:
        shutil.copy(other / name, copied / name)
    with pytest.raises(ValueError, match=complaint) as caught:
        load_bundle(copied)
    assert isinstance(caught.value, FingerprintMismatchError) == ("the model" in complaint)


def test_a_scorer_refuses_the_model_of_one_bundle_with_the_tokenizer_of_another(saved, other):
    (model, _), (_, tokenizer) = load_bundle(saved, device="cpu"), load_bundle(other, device="cpu")
    with pytest.raises(FingerprintMismatchError, match=r"the model .* and the tokenizer"):
        RecBaseScorer(model, tokenizer)


# ---- damaged -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 100, -64])
def test_truncated_weights_are_damaged(copied, kept):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"weights in {copied} are damaged"):
        load_bundle(copied)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda state: state.pop("model.norm.weight"), r"missing keys: \['model.norm.weight'\]"),
        (lambda state: state.update(extra=torch.zeros(1)), r"unexpected keys: \['extra'\]"),
        (lambda state: state.update({"model.norm.weight": torch.zeros(3)}), "mismatched keys: .*model.norm.weight"),
    ],
)
def test_weights_that_are_not_whole_are_named(copied, edit, complaint):
    state = load_file(copied / "model.safetensors")
    edit(state)
    save_file(state, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=complaint):
        load_bundle(copied)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "quantizer_config.json", "quantizer.safetensors"]
)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"not a whole RecBase bundle: {name} missing"):
        load_bundle(copied)


def test_missing_weights_are_named_and_pickled_ones_not_read(copied):
    (copied / "model.safetensors").unlink()
    torch.save({}, copied / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load_bundle(copied)


def test_what_is_no_bundle_is_called_so(copied, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config.json, .*quantizer.safetensors missing"):
        load_bundle(tmp_path)
    for block in (None, {}):
        edit_json(copied / "config.json", recbase=block)
        with pytest.raises(ValueError, match=r"is not a RecBase bundle: its config\.json has no `recbase` block"):
            load_bundle(copied)
    with pytest.raises(OSError, match=r"nobody/nothing|connect"):
        load_bundle("nobody/nothing")


def test_a_newer_format_asks_for_an_upgrade(copied):
    edit_json(copied / "config.json", recbase={"format_version": 2})
    with pytest.raises(ValueError, match="newer recbase-hf; upgrade"):
        load_bundle(copied)


# ---- overwriting ---------------------------------------------------------------------------------------------------


def test_a_failure_midway_leaves_the_old_bundle_whole(saved, other, copied, monkeypatch):
    before = contents(copied)
    model, tokenizer = load_bundle(other, device="cpu")

    def fail(folder, *args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space"):
        save_bundle(copied, model, tokenizer)
    assert contents(copied) == before
    assert [path.name for path in copied.parent.iterdir()] == ["copy"]


def test_saving_over_a_bundle_replaces_its_files_and_keeps_all_others(other, copied):
    (copied / ".git").mkdir()
    (copied / ".git" / "HEAD").write_text("ref")
    (copied / "notes.txt").write_text("years of work")
    save_bundle(copied, *load_bundle(other, device="cpu"))
    assert (copied / ".git" / "HEAD").read_text() == "ref"
    assert (copied / "notes.txt").read_text() == "years of work"
    shutil.rmtree(copied / ".git")
    (copied / "notes.txt").unlink()
    assert contents(copied) == contents(other)


@pytest.mark.parametrize("name", ["runs/no/such", "./nothing", "~/nothing"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name):
    with pytest.raises(FileNotFoundError, match=f"no folder {name}"):
        load_bundle(name)
