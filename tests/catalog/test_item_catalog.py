"""A catalog is the same from every kind of table, survives the disk, and names what is wrong with its input."""

from __future__ import annotations

import json
import shutil
from dataclasses import FrozenInstanceError, replace

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from recbase_hf import DataError, FingerprintMismatchError, ItemCatalog, UnknownItemError
from tiny_world import WIDTH, make_items, make_tokenizer

IDS = ["plain", "two words", "Ünïcødé 靴 👟", "007", "7", "NA", "null", "None", "1e5", "a,b", 'quote"d', " padded "]
TITLES = [f"red shoe {number}" for number in range(len(IDS))]
ROWS = [{"item_id": item_id, "title": title} for item_id, title in zip(IDS, TITLES, strict=True)]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def vectors_of(count, width=WIDTH):
    return np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)


def as_csv(folder):
    pd.DataFrame(ROWS).to_csv(folder / "items.csv", index=False)
    return folder / "items.csv"


def as_parquet(folder):
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "items.parquet")
    return str(folder / "items.parquet")


def as_json_lines_in_a_folder(folder):
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return folder


SOURCES = {
    "list": lambda folder: ROWS,
    "frame": lambda folder: pd.DataFrame(ROWS),
    "dataset": lambda folder: datasets.Dataset.from_list(ROWS),
    "csv": as_csv,
    "parquet": as_parquet,
    "folder": as_json_lines_in_a_folder,
}


def same(left, right):
    assert left.item_ids == right.item_ids
    assert left.titles == right.titles
    assert left.texts == right.texts
    for name in ("codes", "vectors", "mean"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype
    for name in ("codebook_size", "fingerprint", "text_encoder", "text_encoder_revision", "item_template"):
        assert getattr(left, name) == getattr(right, name)


# ---- building ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_table_gives_the_same_catalog(tokenizer, tmp_path, kind):
    catalog = ItemCatalog.from_items(SOURCES[kind](tmp_path), tokenizer=tokenizer)
    assert catalog.item_ids == IDS
    assert catalog.titles == TITLES
    same(catalog, ItemCatalog.from_items(ROWS, tokenizer=tokenizer))


def test_whole_numbers_as_ids_become_text_and_are_found_as_either(tokenizer):
    rows = [{"item_id": item_id, "title": f"hat {item_id}"} for item_id in (7, "007", 2**62)]
    catalog = ItemCatalog.from_items(rows, tokenizer=tokenizer)
    assert catalog.item_ids[:2] == ["7", "007"]
    assert catalog.rows([7, "7", np.int64(7), "007"]).tolist() == [0, 0, 0, 1]
    frame = pd.DataFrame({"item_id": [3, 4], "title": ["red shoe", "blue hat"]})
    assert ItemCatalog.from_items(frame, tokenizer=tokenizer).item_ids == ["3", "4"]


def test_codes_are_those_of_the_tokenizer_and_vectors_have_unit_length(tokenizer, world):
    codes = world.tokenizer.encode_items(world.catalog.texts, mean=world.catalog.mean)
    np.testing.assert_array_equal(world.catalog.codes, codes)
    np.testing.assert_allclose(np.linalg.norm(world.catalog.vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(world.catalog.centered_vectors, axis=1), 1.0, rtol=1e-5)


def test_given_vectors_are_used_in_place_of_texts_whatever_their_length(tokenizer):
    vectors = vectors_of(len(ROWS))
    catalog = ItemCatalog.from_items(ROWS, tokenizer=tokenizer, vectors=vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(catalog.vectors, unit, rtol=1e-5)
    longer = ItemCatalog.from_items(ROWS, tokenizer=tokenizer, vectors=5 * vectors)
    np.testing.assert_array_equal(longer.codes, catalog.codes)


def test_a_catalog_of_one_item_and_one_of_identical_items_work(tokenizer):
    for count in (1, 5):
        rows = [{"item_id": number, "title": "red shoe"} for number in range(count)]
        catalog = ItemCatalog.from_items(rows, tokenizer=tokenizer)
        assert len(catalog) == count
        assert catalog.trie.bucket_sizes.tolist() == [count]


def test_titles_fall_back_to_the_text(tokenizer):
    plain = make_tokenizer()
    plain.item_template = {"version": 1, "fields": ["title", "kind"]}
    rows = [{"item_id": "a", "title": None, "kind": "shoe"}, {"item_id": "b", "title": "A hat", "kind": "hat"}]
    assert ItemCatalog.from_items(rows, tokenizer=plain).titles == ["Kind: shoe", "A hat"]
    rows = [{"item_id": "c", "title": None, "kind": None}]
    assert ItemCatalog.from_items(rows, tokenizer=plain, vectors=vectors_of(1)).titles == ["c"]


def test_vectors_of_zeros_are_items_like_others(tokenizer):
    catalog = ItemCatalog.from_items(ROWS, tokenizer=tokenizer, vectors=np.zeros((len(ROWS), WIDTH)))
    assert np.isfinite(catalog.centered_vectors).all()
    assert catalog.trie.bucket_sizes.tolist() == [len(ROWS)]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([*ROWS, {"item_id": "007", "title": "again"}], "row 13, column 'item_id': '007' stands in row 4 already"),
        ([ROWS[0], {"item_id": "bare", "title": " "}], r"row 2 \(item_id 'bare'\)"),
        ([ROWS[0], {"item_id": "bare", "title": None}], r"1 of 2 items have no text, .* row 2 \(item_id 'bare'\)"),
        ([ROWS[0], {"item_id": None, "title": "hat"}], "row 2, column 'item_id': the id is missing"),
        ([{"item_id": 1.5, "title": "hat"}], "must hold text or whole numbers"),
        ([{"item_id": "a", "name": "hat"}], "names the field 'title', but the table has only"),
        ([{"id": "a", "title": "hat"}], "no column 'item_id'"),
        ([], "no column 'item_id'"),
    ],
)
def test_bad_tables_are_named(tokenizer, rows, complaint):
    with pytest.raises(DataError, match=complaint):
        ItemCatalog.from_items(rows, tokenizer=tokenizer)


def test_bad_vectors_are_named(tokenizer):
    vectors = vectors_of(len(ROWS))
    vectors[3, 2] = np.nan
    with pytest.raises(DataError, match=r"vector of item '007' \(row 4\) holds NaN"):
        ItemCatalog.from_items(ROWS, tokenizer=tokenizer, vectors=vectors)
    with pytest.raises(DataError, match=r"shape \(12, 5\), the tokenizer takes \(12, 16\)"):
        ItemCatalog.from_items(ROWS, tokenizer=tokenizer, vectors=vectors_of(len(ROWS), 5))
    with pytest.raises(DataError, match=r"shape \(11, 16\), the tokenizer takes \(12, 16\)"):
        ItemCatalog.from_items(ROWS, tokenizer=tokenizer, vectors=vectors_of(11))


def test_a_catalog_cannot_be_changed_in_place(world):
    with pytest.raises(FrozenInstanceError):
        world.catalog.codes = world.catalog.codes + 1


# ---- looking up ----------------------------------------------------------------------------------------------------


def test_rows_finds_items_and_names_those_it_does_not(world):
    assert world.catalog.rows(["item-3", "item-0", "item-3"]).tolist() == [3, 0, 3]
    assert world.catalog.rows([]).dtype == np.int64
    with pytest.raises(UnknownItemError, match="item 'nowhere' is not in the catalog of 40 items"):
        world.catalog.rows(["item-3", "nowhere"])
    with pytest.raises(TypeError, match="not the single string 'item-3'"):
        world.catalog.rows("item-3")
    assert "item-3" in world.catalog
    assert "nowhere" not in world.catalog


def test_the_collision_report_counts_items_texts_and_semantic_ids(tokenizer):
    # Codes by hand: `b` and `c` have one text, `d` another text with the same codes, `e` shares with `f`.
    rows = [{"item_id": name, "title": title} for name, title in zip("abcdef", "uvvwxx", strict=True)]
    first, second, third = [0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]
    codes = np.array([first, second, second, second, third, third])
    catalog = replace(ItemCatalog.from_items(rows, tokenizer=tokenizer), codes=codes)
    report = catalog.collisions()
    assert (report.num_items, report.num_semantic_ids, report.num_colliding_items) == (6, 3, 5)
    assert report.num_colliding_texts == 2  # v and w; e and f are one text
    assert report.num_identical_items == 4  # b and c; e and f
    assert report.largest_bucket == ("b", "c", "d")
    assert "5 items share theirs (2 different texts, 4 items of identical text)" in str(report)
    assert "6 items, 3 semantic IDs" in repr(catalog)


def test_a_catalog_without_collisions_reports_none(tokenizer):
    report = ItemCatalog.from_items([ROWS[0]], tokenizer=tokenizer).collisions()
    assert (report.num_colliding_items, report.num_colliding_texts, report.largest_bucket) == (0, 0, ("plain",))


# ---- on disk -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogs") / "catalog"
    ItemCatalog.from_items(ROWS, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_catalog_comes_back_identical_and_is_saved_as_the_same_bytes(tokenizer, saved, tmp_path):
    loaded = ItemCatalog.from_pretrained(saved, tokenizer=tokenizer)
    same(loaded, ItemCatalog.from_items(ROWS, tokenizer=tokenizer))
    assert loaded.rows(IDS).tolist() == list(range(len(IDS)))
    loaded.save_pretrained(tmp_path / "again")
    names = {"catalog.json", "items.parquet", "vectors.safetensors", "trie.safetensors"}
    assert {file.name for file in saved.iterdir()} == names
    for file in saved.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_catalog_of_another_tokenizer_is_refused(saved):
    with pytest.raises(FingerprintMismatchError, match=r"the catalog .* and the tokenizer"):
        ItemCatalog.from_pretrained(saved, tokenizer=make_tokenizer(seed=1))


@pytest.mark.parametrize("name", ["catalog.json", "items.parquet", "vectors.safetensors"])
def test_missing_truncated_and_empty_files_are_named(copied, name):
    whole = (copied / name).read_bytes()
    for content in (whole[:-20], b""):
        (copied / name).write_bytes(content)
        with pytest.raises(DataError, match=f"catalog in {copied} is damaged"):
            ItemCatalog.from_pretrained(copied)
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"is not a catalog: {name} is missing"):
        ItemCatalog.from_pretrained(copied)


def change_arrays(folder, **changes):
    arrays = {**{name: array.copy() for name, array in load_file(folder / "vectors.safetensors").items()}, **changes}
    save_file({name: array for name, array in arrays.items() if array is not None}, folder / "vectors.safetensors")


def change_table(folder, change):
    path = folder / "items.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def change_facts(folder, **changes):
    facts = json.loads((folder / "catalog.json").read_text())
    (folder / "catalog.json").write_text(json.dumps({**facts, **changes}))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: change_facts(folder, num_items=3), "do not belong together"),
        (lambda folder: change_table(folder, lambda table: table.slice(1)), "do not belong together"),
        (lambda folder: change_arrays(folder, vectors=vectors_of(3)), "do not belong together"),
        (lambda folder: change_arrays(folder, mean=np.zeros(3, dtype=np.float32)), "do not belong together"),
        (lambda folder: change_arrays(folder, mean=None), "damaged .*mean"),
        (lambda folder: change_table(folder, lambda table: table.drop(["codes"])), "damaged .*codes"),
        (lambda folder: (folder / "catalog.json").write_text("[]"), "damaged"),
        (lambda folder: (folder / "catalog.json").write_text("{}"), "damaged .*format_version"),
        (lambda folder: change_facts(folder, format_version=2), "newer recbase-hf; upgrade"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(copied, damage, complaint):
    damage(copied)
    with pytest.raises(DataError, match=complaint):
        ItemCatalog.from_pretrained(copied)


def test_a_catalog_of_an_earlier_release_does_not_say_where_its_vectors_come_from(tokenizer, copied):
    facts = json.loads((copied / "catalog.json").read_text())
    assert facts["text_encoder"] == "tests/hash-encoder"
    assert facts["item_template"]["fields"] == ["title"]
    for name in ("text_encoder", "text_encoder_revision", "item_template"):
        del facts[name]
    (copied / "catalog.json").write_text(json.dumps(facts))
    catalog = ItemCatalog.from_pretrained(copied, tokenizer=tokenizer)
    assert (catalog.text_encoder, catalog.item_template) == (None, None)


def test_a_catalog_is_replaced_and_other_files_stay(tokenizer, copied, tmp_path):
    catalog = ItemCatalog.from_items(make_items(5), tokenizer=tokenizer)
    catalog.save_pretrained(copied)
    assert len(ItemCatalog.from_pretrained(copied)) == 5
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    catalog.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_text() == "weights"
    assert len(ItemCatalog.from_pretrained(tmp_path / "model")) == 5


def test_a_tampered_code_is_refused(copied):
    codes = pa.FixedSizeListArray.from_arrays(pa.array([99] * 4 * len(ROWS), pa.int32()), 4)
    change_table(copied, lambda table: table.set_column(3, "codes", codes))
    with pytest.raises(DataError, match="tampered"):
        ItemCatalog.from_pretrained(copied)


@pytest.mark.parametrize("damage", ["id twice", "vector not finite"])
def test_a_tampered_catalog_is_refused(world, tmp_path, damage):
    catalog = world.catalog
    changes = {
        "id twice": {"item_ids": [catalog.item_ids[1], *catalog.item_ids[1:]]},
        "vector not finite": {"vectors": catalog.vectors * np.float32("nan")},
    }
    replace(catalog, **changes[damage]).save_pretrained(tmp_path / "catalog")
    with pytest.raises(DataError, match="tampered"):
        ItemCatalog.from_pretrained(tmp_path / "catalog")


def test_a_catalog_diagnoses_itself(world):
    assert str(world.catalog.diagnose()) != str(world.catalog.diagnose(world.tokenizer))


def test_a_plain_tokenizer_is_refused_with_the_way_to_load_it():
    from transformers import PreTrainedTokenizerFast

    with pytest.raises(TypeError, match=r"cannot encode items; load it by recbase_hf\.RecBaseTokenizer"):
        ItemCatalog.from_items(make_items(3), tokenizer=PreTrainedTokenizerFast.__new__(PreTrainedTokenizerFast))
