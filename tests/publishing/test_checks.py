"""What may not leave is named with file, line and fix, all of it at once."""

from __future__ import annotations

import json
import pickle
import zipfile
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from recbase_hf.errors import FingerprintMismatchError, PublishingError
from recbase_hf.publishing import CardOptions, push_folder
from recbase_hf.publishing.kinds import kind_of_folder
from recbase_hf.publishing.scan import scan_file, scan_files
from recbase_hf.publishing.terms import is_permissive, known_terms

OPEN = CardOptions(license="apache-2.0", data_licenses={"toys": "own"})
TOKEN = "hf_" + "a1B2" * 9


def refusals_of(folder, card=OPEN):
    with pytest.raises(PublishingError) as error:
        push_folder(folder, "ann/thing", card=card, dry_run=True)
    return str(error.value)


@pytest.mark.parametrize("name", ["bundle", "tokenizer", "catalog", "toys"])
def test_folders_are_recognized(folders, name):
    assert kind_of_folder(folders / name).name == {"toys": "data set"}.get(name, name)


def test_a_folder_above_says_which_one_was_meant(folders, tmp_path):
    with pytest.raises(PublishingError, match=r"did you mean .*bundle"):
        kind_of_folder(folders)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        kind_of_folder(tmp_path / "absent")


def test_all_refusals_come_at_once(folder_of):
    folder = folder_of("bundle")
    (folder / "optimizer.pt").write_bytes(pickle.dumps([1]))
    (folder / "notes.json").write_text(f'{{\n"data": "/home/ann/shop",\n"token": "{TOKEN}"\n}}')
    (folder / "README.md").write_text("---\nlicense: Apache 2.0\n---\n# A model\n\nTODO: say more\n\n| GAUC | nan |\n")
    (folder / "tokenizer.json").unlink()
    message = refusals_of(folder, CardOptions(data_licenses={"stdlib": "research use"}))
    assert "tokenizer.json: missing" in message
    assert "optimizer.pt: a pickle" in message
    assert "notes.json, line 2: the local path /home/ann/shop;" in message
    assert "notes.json, line 3: a Hugging Face token (hf_a1B2a…); take it out, and revoke it" in message
    assert "perhaps apache-2.0" in message
    assert "TODO is not filled in" in message
    assert "a figure is missing in '| GAUC | nan |'" in message
    assert TOKEN not in message


def test_pickles_are_found_under_any_name(tmp_path):
    disguised = {
        "weights.safetensors": pickle.dumps({"a": 1}),
        "data.dat": pickle.dumps(list(range(9))),
        "squeezed.dat": zlib.compress(pickle.dumps(list(range(9)))),
        "model.bin": b"anything",
    }
    for name, content in disguised.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "some.npz", numbers=np.zeros(3), objects=np.array([{}], dtype=object))
    with zipfile.ZipFile(tmp_path / "squeezed.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", pickle.dumps(list(range(9))))
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "torch.weights")
    found = scan_files({path.name: path for path in tmp_path.iterdir()})
    assert {refusal.file for refusal in found} == {
        *disguised,
        *("objects.npy", "some.npz", "squeezed.npz", "torch.weights"),
    }


def test_arrays_and_safetensors_of_any_header_length_are_no_pickles(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros(3))
    np.savez_compressed(tmp_path / "plain.npz", a=np.zeros(3), b=np.array(["a", "b"]))
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "plain.npz").read_bytes()[:200])
    for length in range(540, 660, 8):  # headers whose first bytes look like those of a pickle are among them
        save_file({"a": np.zeros(1)}, tmp_path / f"{length}.safetensors", metadata={"pad": "x" * length})
    assert scan_files({path.name: path for path in tmp_path.iterdir()}) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"data": "/home/ann/shop"}',
        '{"data": "/shop"}',
        "path: /mnt/disk/items.parquet",
        "see `/tmp/run-3/log.jsonl`",
        'file: "C:\\\\Users\\\\ann"',
        "[log](file:///srv/log)",
    ],
)
def test_local_paths_are_found(line):
    assert [refusal.place for refusal in scan_file("a.json", f"\n{line}\n".encode())] == ["line 2"]


@pytest.mark.parametrize(
    "line",
    [
        "https://huggingface.co/data/home/x and and/or 1/2/3",
        '{"base": "reczoo/recbase-mini", "ratio": "3/4"}',
        "runs/demo/model, ~/shop, ./data/x, ../tmp/y",
        "| bos | </s> |",
        '{"bos_token": "<bos>", "mask_token": "<mask>", "token": "a_0"}',
        "<!-- /home is not a whole path -->",
    ],
)
def test_what_is_no_local_path_and_no_secret_passes(line):
    assert list(scan_file("README.md", line.encode())) == []


@pytest.mark.parametrize(
    "secret",
    [TOKEN, "ghp_" + "a" * 36, "sk-proj-" + "a1" * 12, "AKIA" + "A1" * 8, "-----BEGIN RSA PRIVATE KEY-----",
     'API_KEY = "0123456789abcdef"'],
)  # fmt: skip
def test_secrets_are_found_in_code_too(secret):
    assert len(list(scan_file("config.py", f"x = 1\n{secret}\n".encode()))) == 1


# ---- licenses --------------------------------------------------------------------------------------------------------


def test_a_permissive_license_needs_permissive_sources(folders):
    message = refusals_of(folders / "bundle", CardOptions(license="mit"))
    assert (
        "training.json, data set toys: toys (training, tokenizer) was given out under terms that are not known"
        in message
    )
    assert "--data-licenses toys=LICENSE" in message
    assert "stdlib" not in message
    assert push_folder(folders / "bundle", "ann/thing", card=CardOptions(license="cc-by-nc-4.0"), dry_run=True).files
    assert push_folder(folders / "bundle", "ann/thing", card=OPEN, dry_run=True).files


def test_terms_of_published_data_sets_are_known():
    assert "research use" in known_terms("movielens-100k")
    assert known_terms("somebody-elses-shop") == "not known"
    assert not is_permissive(known_terms("movielens-100k"))


def test_a_license_that_the_hub_does_not_know_is_refused(folders):
    assert "field license: missing" in refusals_of(folders / "bundle", CardOptions())
    assert "perhaps cc-by-nc-4.0" in refusals_of(folders / "bundle", CardOptions(license="CC BY-NC 4.0"))
    assert "field license_link" in refusals_of(folders / "bundle", CardOptions(license="other", license_name="x"))


def test_a_data_set_that_must_not_be_passed_on_is_not(folder_of):
    folder = folder_of("toys")
    (folder / "dataset.json").write_text(json.dumps({"name": "toys", "license": "research use, no redistribution"}))
    assert "its terms forbid that it is passed on" in refusals_of(folder, CardOptions(license="cc-by-nc-4.0"))
    (folder / "dataset.json").write_text(json.dumps({"name": "toys", "license": "none is stated"}))
    assert "its terms are not permissive (none is stated)" in refusals_of(folder)
    assert push_folder(folder, "ann/toys", card=CardOptions(license="unknown"), dry_run=True).kind == "data set"


# ---- parts that do not belong together -------------------------------------------------------------------------------


def test_parts_of_different_bundles_are_refused(folder_of):
    folder = folder_of("bundle")
    config = json.loads((folder / "config.json").read_text())
    config["recbase"]["fingerprint"] = "another"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FingerprintMismatchError, match=r"the model .* and the tokenizer"):
        push_folder(folder, "ann/thing", card=OPEN, dry_run=True)


def test_adapters_and_catalogs_name_their_base(folders):
    assert "field base_model: missing" in refusals_of(folders / "catalog")


def test_an_id_without_an_owner_is_refused(folders):
    with pytest.raises(PublishingError, match="give OWNER/NAME"):
        push_folder(folders / "bundle", "mini", card=OPEN)


def test_a_dry_run_without_a_network_says_so(folders):
    found = push_folder(folders / "bundle", "ann/thing", card=OPEN, dry_run=True)
    assert not found.checked
    assert str(found).startswith("bundle for ann/thing: ")
    assert "dry run, nothing was sent and the Hub was not asked" in str(found)
    assert found.files["model.safetensors"] == (folders / "bundle" / "model.safetensors").stat().st_size
    assert f"{found.files['model.safetensors']:,} B  model.safetensors" in str(found)
