"""`recbase catalog`: what a catalog is put through from the command line."""

from __future__ import annotations

import csv
import json

import pytest

from recbase_hf import ItemCatalog, RecBaseTokenizer, cli
from recbase_hf.commands.catalog import COMMAND
from tiny_world import HashEncoder, make_items, make_tokenizer

ITEMS = make_items(30)


def run(*arguments):
    cli.main(["catalog", *map(str, arguments)])


def write_items(path, items):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["item_id", "title"])
        writer.writeheader()
        writer.writerows(items)
    return path


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with a tokenizer, a catalog of 20 items, and tables of these and of 10 more."""
    monkeypatch.setattr("recbase_hf.text.vector_cache.load_text_encoder", lambda *_args, **_options: HashEncoder())
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    ItemCatalog.from_items(ITEMS[:20], tokenizer=tokenizer).save_pretrained(tmp_path / "catalog")
    write_items(tmp_path / "items.csv", ITEMS[:20])
    write_items(tmp_path / "new.csv", ITEMS[20:])
    return tmp_path


def test_items_are_added_and_removed_in_place(shop, capsys):
    before = ItemCatalog.from_pretrained(shop / "catalog")
    run("add", "--catalog", shop / "catalog", "--model", shop / "tokenizer", "--items", shop / "new.csv")
    assert "10 items added to 20" in capsys.readouterr().out
    assert ItemCatalog.from_pretrained(shop / "catalog").item_ids == [item["item_id"] for item in ITEMS]
    run("remove", "--catalog", shop / "catalog", "--item-ids", *(item["item_id"] for item in ITEMS[20:]))
    assert before.diff(ItemCatalog.from_pretrained(shop / "catalog")).is_empty


def test_another_output_leaves_the_catalog_as_it_is_and_differences_are_printed(shop, capsys):
    run("remove", "--catalog", shop / "catalog", "--item-ids", "item-3", "--output", shop / "less")
    assert "19 items, 18 semantic IDs" in capsys.readouterr().out
    run("diff", "--old", shop / "catalog", "--new", shop / "less")
    assert capsys.readouterr().out == "1 removed: item-3\n"
    assert len(ItemCatalog.from_pretrained(shop / "catalog")) == 20


def test_a_catalog_migrates_to_another_tokenizer(shop):
    make_tokenizer(seed=1).save_pretrained(shop / "other")
    run("migrate", "--catalog", shop / "catalog", "--model", shop / "other", "--items", shop / "items.csv")
    catalog = ItemCatalog.from_pretrained(shop / "catalog", tokenizer=make_tokenizer(seed=1))
    assert catalog.item_ids == [item["item_id"] for item in ITEMS[:20]]


@pytest.mark.parametrize("form", ["offset", "tokens"])
def test_codes_are_exported_and_imported(shop, form):
    index = shop / "shop.index.json"
    run("export", "--catalog", shop / "catalog", "--output", index, "--form", form)
    assert len(json.loads(index.read_text())) == 20
    flags = ["--items", shop / "items.csv", "--codes", index]
    run("import", *flags, "--output", shop / "free", "--codebook-size", "8")
    assert ItemCatalog.from_pretrained(shop / "free").fingerprint.startswith("codes-")
    run("import", *flags, "--output", shop / "known", "--model", shop / "tokenizer")
    before, after = (ItemCatalog.from_pretrained(shop / name) for name in ("catalog", "known"))
    assert before.diff(after).is_empty


def test_codes_that_count_from_1_are_imported_where_that_is_said(shop):
    index = shop / "shop.index.json"
    run("export", "--catalog", shop / "catalog", "--output", index)
    index.write_text(json.dumps({str(int(key) + 1): codes for key, codes in json.loads(index.read_text()).items()}))
    flags = ["--items", shop / "items.csv", "--codes", index, "--codebook-size", "8", "--model", shop / "tokenizer"]
    with pytest.raises(SystemExit, match="--first-key 1"):
        run("import", *flags, "--output", shop / "made")
    run("import", *flags, "--output", shop / "made", "--first-key", "1")
    before, after = (ItemCatalog.from_pretrained(shop / name) for name in ("catalog", "made"))
    assert before.diff(after).is_empty


class CountingEncoder(HashEncoder):
    def __init__(self, loaded, options):
        loaded.append(options)
        self.loaded = loaded

    def encode(self, texts):
        self.loaded.append(len(texts))
        return super().encode(texts)


@pytest.fixture
def loaded(shop, monkeypatch):
    """With which options encoders were loaded, and how many texts they encoded, in an empty cache."""
    found = []
    monkeypatch.setenv("RECBASE_CACHE", str(shop / "cache"))
    monkeypatch.setattr(
        "recbase_hf.text.vector_cache.load_text_encoder", lambda *_names, **options: CountingEncoder(found, options)
    )
    return found


@pytest.mark.parametrize(("flags", "trusted"), [([], False), (["--trust-remote-code"], True)])
def test_vectors_are_cached_whether_the_encoder_is_trusted_or_not(shop, loaded, flags, trusted):
    model = ["--model", str(shop / "tokenizer"), *flags]
    for name in ("first", "second"):
        cli.main(["build-catalog", *model, "--items", str(shop / "items.csv"), "--output", str(shop / name)])
    cli.main(["doctor", *model, "--items", str(shop / "items.csv"), "--fail-on", "never"])
    run("add", "--catalog", shop / "first", "--items", shop / "new.csv", *model)
    run("migrate", "--catalog", shop / "second", "--items", shop / "items.csv", *model)
    options = {"trust_remote_code": trusted}
    assert [entry for entry in loaded if isinstance(entry, dict)] == [options] * (len(loaded) - 2)
    assert [entry for entry in loaded if isinstance(entry, int)] == [19, 10], "each different text once"


def test_code_of_an_encoder_that_the_tokenizer_does_not_name_cannot_be_trusted(shop):
    nameless = RecBaseTokenizer(quantizer=make_tokenizer().quantizer)
    nameless.save_pretrained(shop / "nameless")
    flags = ["--model", shop / "nameless", "--items", shop / "items.csv", "--trust-remote-code"]
    for command_of in (
        lambda: run("add", "--catalog", shop / "catalog", *flags),
        lambda: cli.main(["build-catalog", *map(str, flags), "--output", str(shop / "made")]),
        lambda: cli.main(["doctor", *map(str, flags)]),
    ):
        with pytest.raises(SystemExit, match="nameless names no text encoder whose code could be trusted; leave out"):
            command_of()


def test_a_failed_change_leaves_the_catalog_whole(shop):
    before = ItemCatalog.from_pretrained(shop / "catalog")
    with pytest.raises(SystemExit, match="in the catalog already"):
        run("add", "--catalog", shop / "catalog", "--model", shop / "tokenizer", "--items", shop / "items.csv")
    assert before.diff(ItemCatalog.from_pretrained(shop / "catalog")).is_empty


def test_an_item_that_is_there_already_can_be_added_as_the_error_says(shop):
    both = write_items(shop / "both.csv", ITEMS[19:])
    add = ("add", "--catalog", shop / "catalog", "--model", shop / "tokenizer", "--items", both)
    with pytest.raises(SystemExit, match=r"'item-19'.*remove the old ones first \(recbase catalog remove,"):
        run(*add)
    run("remove", "--catalog", shop / "catalog", "--item-ids", "item-19")
    run(*add)
    assert len(ItemCatalog.from_pretrained(shop / "catalog")) == 30


def test_no_other_catalog_is_overwritten(shop):
    run("remove", "--catalog", shop / "catalog", "--item-ids", "item-3", "--output", shop / "other")
    kept = ItemCatalog.from_pretrained(shop / "other")
    run("export", "--catalog", shop / "catalog", "--output", shop / "shop.index.json")
    model, output = ("--model", shop / "tokenizer"), ("--output", shop / "other")
    items = ("--items", shop / "items.csv")
    for command_of in (
        lambda: cli.main(["build-catalog", *map(str, (*model, *items, *output))]),
        lambda: run("import", *items, "--codes", shop / "shop.index.json", "--codebook-size", "8", *output),
        lambda: run("add", "--catalog", shop / "catalog", *model, "--items", shop / "new.csv", *output),
        lambda: run("remove", "--catalog", shop / "catalog", "--item-ids", "item-4", *output),
        lambda: run("migrate", "--catalog", shop / "catalog", *model, *output),
    ):
        with pytest.raises(SystemExit, match="other holds a catalog already; choose another --output, or delete"):
            command_of()
    assert kept.diff(ItemCatalog.from_pretrained(shop / "other")).is_empty


def test_a_catalog_that_is_named_as_its_own_output_is_changed_in_place(shop):
    output = shop / "nowhere" / ".." / "catalog"
    run("remove", "--catalog", shop / "catalog", "--item-ids", "item-3", "--output", output)
    assert len(ItemCatalog.from_pretrained(shop / "catalog")) == 19


def test_help_lists_the_verbs_and_a_wrong_one_is_refused(capsys):
    for arguments in ([], ["--help"]):
        run(*arguments)
        shown = capsys.readouterr().out
        assert all(f"  {verb} " in shown for verb in COMMAND.commands)
    with pytest.raises(SystemExit) as end:
        run("grow")
    assert str(end.value).startswith("recbase catalog: unknown command 'grow'")


@pytest.mark.parametrize("verb", COMMAND.commands)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as end:
        run(verb, "--help")
    assert end.value.code == 0
    assert f"usage: recbase catalog {verb}" in capsys.readouterr().out
