"""What is pushed arrives whole in one commit, or nothing changes on the Hub."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from hub_server import READER, WRITER, Answer
from recbase_hf import ItemCatalog, RecBaseScorer, RecBaseTokenizer
from recbase_hf.bundle import hash_of_weights
from recbase_hf.cli import main
from recbase_hf.errors import FingerprintMismatchError, PublishingError
from recbase_hf.publishing import CardOptions, push_folder
from tiny_world import make_items, make_model, make_tokenizer

MINI = "reczoo/recbase-mini"
OPEN = CardOptions(license="apache-2.0", data_licenses={"toys": "own"})


def commits(hub, repo_id=MINI, repo_type="model"):
    return len(hub.repositories[repo_type, repo_id].commits) - 1  # the first one is the Hub's


def test_a_bundle_goes_in_one_commit_with_its_card(hub, folders):
    done = push_folder(folders / "bundle", MINI, card=OPEN)
    assert commits(hub) == 1
    assert set(hub.files(MINI)) == {*done.files, ".gitattributes"}
    assert hub.files(MINI)["model.safetensors"] == (folders / "bundle" / "model.safetensors").read_bytes()
    assert f'from_pretrained("{MINI}")'.encode() in hub.files(MINI)["README.md"]
    assert not (folders / "bundle" / "README.md").exists()
    assert done.url.startswith(f"{hub.url}/{MINI}/commit/")


def test_a_later_state_takes_away_what_would_contradict_it(hub, folders, folder_of):
    older = folder_of("bundle")
    (older / "photo.png").write_bytes(b"\x89PNG")
    (older / "model-00002-of-00002.safetensors").write_bytes((older / "model.safetensors").read_bytes())
    push_folder(older, MINI, card=OPEN)
    done = push_folder(folders / "bundle", MINI, card=OPEN)
    assert done.deleted == ["model-00002-of-00002.safetensors"]
    assert "photo.png" in hub.files(MINI)
    assert commits(hub) == 2


@pytest.mark.parametrize("other", ["tokenizer", "files", "fingerprint"])
def test_a_repository_with_other_contents_is_refused_unless_told(hub, folders, tmp_path, other):
    push_folder(folders / "bundle", MINI, card=OPEN)
    if other == "tokenizer":
        push_folder(folders / "tokenizer", "reczoo/x", card=OPEN)
    elif other == "files":
        hub.repositories["model", "reczoo/x"] = repository = type(hub.repositories["model", MINI])()
        repository.commit({"pytorch_model.bin": b"", "notes.txt": b""}, "main")
    else:
        tokenizer = make_tokenizer(seed=1)
        RecBaseScorer(make_model(tokenizer.layout), tokenizer).push_to_hub("reczoo/x", license="mit")
    before = hub.files("reczoo/x")
    with pytest.raises(PublishingError, match=r"reczoo/x holds (a tokenizer|other files|another bundle).*--replace"):
        push_folder(folders / "bundle", "reczoo/x", card=OPEN)
    assert hub.files("reczoo/x") == before
    push_folder(folders / "bundle", "reczoo/x", card=OPEN, replace=True)
    assert set(hub.files("reczoo/x")) - {".gitattributes"} == set(hub.files(MINI)) - {".gitattributes"}


def test_a_failed_upload_leaves_the_hub_as_it_was(hub, folders):
    hub.refuse_uploads = True
    with pytest.raises(ConnectionError, match=f"the upload to {MINI} broke off"):
        push_folder(folders / "bundle", MINI, card=OPEN)
    assert hub.repositories == {}
    hub.refuse_uploads = False
    push_folder(folders / "bundle", MINI, card=OPEN)
    hub.refuse_uploads = True
    hub.blobs.clear()
    before = dict(hub.repositories["model", MINI].branches)
    with pytest.raises(ConnectionError, match="nothing was changed there"):
        push_folder(folders / "bundle", MINI, card=OPEN, revision="v2")
    assert hub.repositories["model", MINI].branches == before


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(hub, folders, folder_of):
    push_folder(folders / "bundle", MINI, card=OPEN)
    hub.blobs.clear()
    changed = folder_of("bundle")
    hub.on_upload = lambda: hub.repositories["model", MINI].commit({"theirs": b""}, "main")
    with pytest.raises(OSError, match="changed by somebody else meanwhile"):
        push_folder(changed, MINI, card=OPEN)
    assert hub.files(MINI) == {"theirs": b""}


def test_a_branch_is_made_and_main_stays(hub, folders, folder_of):
    push_folder(folders / "bundle", MINI, card=OPEN)
    before = hub.files(MINI)
    folder = folder_of("bundle")
    (folder / "generation_config.json").write_text("{}\n")
    push_folder(folder, MINI, card=OPEN, revision="v2")
    assert hub.files(MINI) == before
    assert hub.files(MINI, "v2")["generation_config.json"] == b"{}\n"


def test_a_dry_run_sends_nothing(hub, folders):
    found = push_folder(folders / "bundle", MINI, card=OPEN, dry_run=True)
    assert found.checked
    assert found.url is None
    assert hub.repositories == {}
    assert {verb for verb, _ in hub.requests} == {"GET"}


# ---- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_" + "expired" * 5, "wrong or has expired"),
        (READER, "may not write"),
        ("", "without a token: log in"),
    ],
)
def test_tokens_that_do_not_do_are_told_apart(hub, folders, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PermissionError, match=message):
        push_folder(folders / "bundle", MINI, card=OPEN)
    assert hub.repositories == {}


def test_private_is_for_new_repositories(hub, folders, monkeypatch):
    push_folder(folders / "bundle", MINI, card=OPEN, private=True)
    assert hub.repositories["model", MINI].private
    push_folder(folders / "bundle", MINI, card=OPEN, private=True)
    hub.repositories["model", MINI].private = False
    with pytest.raises(PublishingError, match="there already and public"):
        push_folder(folders / "bundle", MINI, card=OPEN, private=True)


def test_no_network_is_told(folders, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", WRITER)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        push_folder(folders / "bundle", MINI, card=OPEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"the Hub was not reached.*look at the network"):
        push_folder(folders / "bundle", MINI, card=OPEN)


def test_a_repository_that_the_token_may_not_see_is_told(hub, folders, monkeypatch):
    push_folder(folders / "bundle", MINI, card=OPEN, private=True)
    monkeypatch.setattr(type(hub), "_readable", lambda *_: (_ for _ in ()).throw(Answer(404, "RepoNotFound")))
    with pytest.raises(PermissionError, match="there already, but this token may not see it"):
        push_folder(folders / "bundle", MINI, card=OPEN)


@pytest.fixture
def adapter(folders, world, tmp_path):
    """An adapter as `recbase finetune` leaves it: over a local folder."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    base = {"name": str(folders / "bundle"), "fingerprint": world.tokenizer.fingerprint}
    base["weights"] = hash_of_weights(folders / "bundle")
    config = {"peft_type": "LORA", "base_model_name_or_path": base["name"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"a": np.zeros(1)}, folder / "adapter_model.safetensors")
    settings = {"data": {"shop": "h"}, "base_data": {"toys": "h"}, "epochs": 1.0}
    (folder / "training.json").write_text(json.dumps({"base": base, "settings": settings}))
    return folder


def adapter_card(license="mit"):
    return CardOptions(license=license, base=MINI, data_licenses={"toys": "own", "shop": "own"})


def test_an_adapter_names_its_base_by_the_id(hub, folders, adapter):
    push_folder(folders / "bundle", MINI, card=OPEN)
    push_folder(adapter, "ann/adapter", card=adapter_card())
    files = hub.files("ann/adapter")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == MINI
    assert json.loads(files["training.json"])["base"]["name"] == MINI
    assert f"finetune_lora.py --model {MINI} --config settings.yaml --data shop\n".encode() in files["README.md"]
    assert b"| toys | base model | own |" in files["README.md"]
    assert str(folders).encode() not in b"".join(files.values())


def test_an_adapter_without_its_base_is_refused_and_all_that_names_the_folder(hub, adapter):
    with pytest.raises(PublishingError) as error:
        push_folder(
            adapter, "ann/adapter", card=CardOptions(license="mit", data_licenses={"toys": "own", "shop": "own"})
        )
    assert "field base_model: missing" in str(error.value)
    assert "adapter_config.json, line 1: the local path" in str(error.value)


def test_an_adapter_over_another_base_is_refused(hub, folders, adapter, world):
    RecBaseScorer(make_model(world.tokenizer.layout, seed=3), world.tokenizer).push_to_hub(MINI, license="mit")
    with pytest.raises(PublishingError, match=f"was trained over the weights .*, but {MINI} has"):
        push_folder(adapter, "ann/adapter", card=adapter_card())
    other = make_tokenizer(seed=1)
    RecBaseScorer(make_model(other.layout), other).push_to_hub(MINI, license="mit", replace=True)
    with pytest.raises(FingerprintMismatchError, match=r"the adapter \(fingerprint "):
        push_folder(adapter, "ann/adapter", card=adapter_card())
    assert ("model", "ann/adapter") not in hub.repositories


def test_an_adapter_does_not_go_beyond_the_license_of_its_base(hub, folders, adapter):
    push_folder(folders / "bundle", MINI, card=CardOptions(license="cc-by-nc-4.0"))
    with pytest.raises(PublishingError, match=f"the license of its base {MINI} is cc-by-nc-4.0"):
        push_folder(adapter, "ann/adapter", card=adapter_card())
    assert push_folder(adapter, "ann/adapter", card=adapter_card("cc-by-nc-4.0")).kind == "adapter"


# ---- objects ---------------------------------------------------------------------------------------------------------


def test_a_catalog_is_pushed_and_comes_back(hub, folders, world):
    push_folder(folders / "bundle", MINI, card=OPEN)
    world.catalog.push_to_hub("ann/shop", base=MINI, license="mit")
    back = ItemCatalog.from_pretrained("ann/shop", tokenizer=world.tokenizer)
    assert (back.codes == world.catalog.codes).all()
    assert back.item_ids == world.catalog.item_ids
    with pytest.raises(FileNotFoundError, match="there is no repository ann/absent on the Hub for this token"):
        ItemCatalog.from_pretrained("ann/absent")
    push_folder(folders / "toys", "ann/toys", card=CardOptions(license="cc0-1.0"))
    with pytest.raises(FileNotFoundError, match="is not a catalog"):
        ItemCatalog.from_pretrained("ann/toys")
    with pytest.raises(FileNotFoundError, match="no such revision"):
        ItemCatalog.from_pretrained("ann/shop", revision="v7")


def test_a_catalog_of_another_tokenizer_is_refused_at_both_ends(hub, folders, world):
    push_folder(folders / "bundle", MINI, card=OPEN)
    other = make_tokenizer(seed=1)
    catalog = ItemCatalog.from_items(make_items(9), tokenizer=other)
    with pytest.raises(FingerprintMismatchError, match=f"the catalog .* and the tokenizer of {MINI}"):
        catalog.push_to_hub("ann/shop", base=MINI, license="mit")
    with pytest.raises(FileNotFoundError, match="no repository reczoo/absent"):
        catalog.push_to_hub("ann/shop", base="reczoo/absent", license="mit")
    assert ("dataset", "ann/shop") not in hub.repositories
    world.catalog.push_to_hub("ann/shop", base=MINI, license="mit")
    with pytest.raises(FingerprintMismatchError, match="make the catalog again"):
        ItemCatalog.from_pretrained("ann/shop", tokenizer=other)


def test_a_scorer_pushes_its_bundle(hub, world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    with pytest.raises(PublishingError, match="field license: missing"):
        scorer.push_to_hub(MINI)
    scorer.push_to_hub(MINI, license="mit")
    assert b"Nothing says that these weights were trained" in hub.files(MINI)["README.md"]


def test_a_data_set_is_pushed_as_one(hub, folders):
    push_folder(folders / "toys", "ann/toys", card=CardOptions(license="cc0-1.0"))
    files = hub.files("ann/toys", repo_type="dataset")
    assert b"config_name: items\n  data_files: items.csv" in files["README.md"]
    assert files["items.csv"] == (folders / "toys" / "items.csv").read_bytes()


def test_tokenizers_and_quantizers_push_themselves(hub, world):
    world.tokenizer.push_to_hub("ann/tokenizer")
    assert {"quantizer.safetensors", "tokenizer.json", "tokenization_recbase.py"} <= set(hub.files("ann/tokenizer"))
    assert RecBaseTokenizer.from_pretrained("ann/tokenizer").fingerprint == world.tokenizer.fingerprint
    world.tokenizer.quantizer.push_to_hub("ann/quantizer")
    assert {"config.json", "model.safetensors"} <= set(hub.files("ann/quantizer"))
    assert not any(name.endswith((".bin", ".pkl")) for name in hub.files("ann/quantizer"))


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_pushes_and_says_what_went(hub, folders, capsys):
    arguments = ["push", str(folders / "tokenizer"), "ann/tokenizer", "--license", "mit", "--data-licenses", "toys=own"]
    main([*arguments, "--dry-run"])
    assert "dry run, nothing was sent" in capsys.readouterr().out
    assert hub.repositories == {}
    main(arguments)
    assert f"tokenizer published: {hub.url}/ann/tokenizer/commit/" in capsys.readouterr().out
    assert json.loads(hub.files("ann/tokenizer")["training.json"])


def test_the_command_refuses_in_words(hub, folders):
    with pytest.raises(SystemExit) as stopped:
        main(["push", "--folder", str(folders / "tokenizer"), "--repo", "ann/tokenizer"])
    assert str(stopped.value).startswith(
        f"recbase push: {folders / 'tokenizer'} is not published, 1 thing is in the way:"
    )
