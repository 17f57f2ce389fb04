"""Published codes are read in each of their forms, checked to the last key, and written so that they come back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recbase_hf import DataError, FingerprintMismatchError, ItemCatalog, RecBaseScorer
from recbase_hf.catalog.index_files import read_codes, write_index
from tiny_world import make_items

SIZE = 8
IDS = ["007", "a", "b,c"]
CODES = np.array([[0, 7, 3], [1, 1, 1], [7, 0, 0]])
OFFSET = {"0": [1, 16, 20], "1": [2, 10, 18], "2": [8, 9, 17]}
TOKENS = {"0": ["<a_0>", "<b_7>", "<c_3>"], "1": ["<a_1>", "<b_1>", "<c_1>"], "2": ["<a_7>", "<b_0>", "<c_0>"]}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(path, content, ids=IDS):
    return read_codes(write(path, content), ids, codebook_size=SIZE)


def as_parquet(folder):
    import pandas as pd

    columns = {f"c{level + 1}": [values[level] for values in OFFSET.values()] for level in range(3)}
    pd.DataFrame({"item_id": IDS, "price": [1.0, 2.0, 3.0], **columns}).to_parquet(folder / "codes.parquet")
    return folder / "codes.parquet"


SOURCES = {
    "offset": lambda folder: write(folder / "shop.index.json", OFFSET),
    "tokens": lambda folder: write(folder / "shop.index.json", TOKENS),
    "in any order": lambda folder: write(folder / "shop.index.json", dict(reversed(TOKENS.items()))),
    "csv": lambda folder: write(folder / "codes.csv", 'c1,c2,c3,item_id\n8,9,17,"b,c"\n1,16,20,007\n2,10,18,a\n'),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_form_gives_the_same_codes(tmp_path, kind):
    codes = read_codes(SOURCES[kind](tmp_path), IDS, codebook_size=SIZE)
    np.testing.assert_array_equal(codes, CODES)
    assert codes.dtype == np.int64


FROM_ONE = {str(int(key) + 1): values for key, values in TOKENS.items()}


def test_keys_from_1_are_taken_only_where_that_is_said(tmp_path):
    path = write(tmp_path / "old.json", FROM_ONE)
    np.testing.assert_array_equal(read_codes(path, IDS, codebook_size=SIZE, first_key=1), CODES)
    catalog = ItemCatalog.from_codes(ROWS, path, codebook_size=SIZE, first_key=1)
    np.testing.assert_array_equal(catalog.codes, CODES)
    complaint = (
        r"old\.json: the keys are '1' to '3', where the rows of 3 items are '0' to '2'.*first_key=1 \(--first-key 1\)"
        ".*lost row 0 of 4 items.*the item table that it was made for"
    )
    with pytest.raises(DataError, match=complaint):
        read_codes(path, IDS, codebook_size=SIZE)
    with pytest.raises(DataError, match="key '0': there is no such row"):
        read_codes(write(path, TOKENS), IDS, codebook_size=SIZE, first_key=1)
    with pytest.raises(ValueError, match="first_key is 2; it is the key of the first row, 0 or 1"):
        read_codes(path, IDS, codebook_size=SIZE, first_key=2)


def test_the_authors_numbers_are_codes_of_1024_a_level(tmp_path):
    path = write(tmp_path / "beauty.index.json", {"0": [139, 1321, 2914, 3078]})
    assert read_codes(path, ["x"]).tolist() == [[138, 296, 865, 5]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"0": [1, 9], "2": [1, 9]}, "1 of 3 rows are missing, the first is key '1' .item_id 'a'."),
        ({"1": [1, 9], "2": [1, 9]}, "1 of 3 rows are missing, the first is key '0' .item_id '007'."),
        ({**OFFSET, "3": [1, 9, 17]}, "key '3': there is no such row in the item table, which has 3; "),
        ({**OFFSET, "a": [1, 9, 17]}, "key 'a': there is no such row in the item table, which has 3, and no row"),
        ({**OFFSET, "01": [1, 9, 17]}, "key '01': there is no such row"),
        ({**OFFSET, "1": [1, 9]}, "key '1': 2 codes where key '0' has 3"),
        ({**OFFSET, "1": [0, 9, 17]}, "key '1': 0 at level 1 is code -1, not between 0 and 7; is the codebook size"),
        ({**OFFSET, "1": [1, 9, 25]}, "key '1': 25 at level 3 is code 8, not between 0 and 7"),
        ({**OFFSET, "1": [1, 9.0, 17]}, "key '1': .* neither a list of whole numbers nor one of tokens"),
        ({**OFFSET, "1": [True, 9, 17]}, "key '1': .* neither"),
        ({**OFFSET, "1": []}, "key '1': .* neither"),
        ({**OFFSET, "1": "<a_1>"}, "key '1': .* neither"),
        ({**OFFSET, "1": [1, "<b_1>", 17]}, "key '1': .* neither"),
        ({**OFFSET, "1": TOKENS["1"]}, "key '1': the file holds both forms"),
        ({**TOKENS, "1": ["<a_1>", "<c_1>", "<b_1>"]}, "key '1': token '<c_1>' at level 2 must read <b_NUMBER>"),
        ({**TOKENS, "1": ["<a_1>", "<b_1>", "<c_1> "]}, "key '1': token '<c_1> ' at level 3 must read <c_NUMBER>"),
        ({**TOKENS, "1": ["<a_1>", "<b_8>", "<c_1>"]}, "key '1': '<b_8>' at level 2 is code 8, not between 0 and 7"),
        ({**TOKENS, "1": ["<a_1>", f"<b_{2**70}>", "<c_1>"]}, "key '1': token '<b_1180.*' at level 2 must read"),
        ({**OFFSET, "1": [2**70, 9, 17]}, "key '1': 1180591620717411303424 at level 1 is code"),
        ([[1, 9, 17]], "holds a list; an index file is one object"),
        ('{"0": [1, 9, 17], "0": [1, 9, 17]}', "key '0': it comes twice"),
        ('{"0": [1, 9, 17', "cannot be read"),
    ],
)
def test_bad_index_files_are_named(tmp_path, content, complaint):
    with pytest.raises(DataError, match=rf"shop.index.json.*{complaint}"):
        read(tmp_path / "shop.index.json", content)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("item_id,c1\n007,1\na,2\n", "1 of 3 items are missing, the first is 'b,c'"),
        ('item_id,c1\n007,1\na,2\n"b,c",3\nd,4\n', "row 4: item_id 'd' is not in the item table"),
        ('item_id,c1\n007,1\na,9\n"b,c",3\n', r"row 2 \(item_id 'a'\): 9 at level 1 is code 8"),
        ('item_id,c1\n007,1\na,x\n"b,c",3\n', "row 2, column 'c1': 'x' is not a whole number"),
        ('item_id,c1\n007,1\na,\n"b,c",3\n', "row 2, column 'c1': the code is missing"),
        ("item_id,c1,c3\n007,1,9\n", "the columns are .* without a gap"),
        ("item_id,code\n007,1\n", "the columns are .* without a gap"),
        ("c1,c2\n1,9\n", "no column 'item_id'"),
        ("item_id,c1\n007,1\n007,1\n", "'007' stands in row 1 already"),
    ],
)
def test_bad_tables_of_codes_are_named(tmp_path, text, complaint):
    with pytest.raises(DataError, match=rf"codes.csv.*{complaint}"):
        read(tmp_path / "codes.csv", text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in ("none.json", "none.csv"):
        with pytest.raises(FileNotFoundError, match=name):
            read_codes(tmp_path / name, IDS)


codes_of_any_shape = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, SIZE - 1))
)


@pytest.mark.parametrize("form", ["offset", "tokens"])
@given(codes=codes_of_any_shape)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_comes_back(tmp_path, form, codes):
    write_index(codes, tmp_path / "shop.index.json", codebook_size=SIZE, form=form)
    ids = [f"item {row}" for row in range(len(codes))]
    np.testing.assert_array_equal(read_codes(tmp_path / "shop.index.json", ids, codebook_size=SIZE), codes)


def test_what_is_written_reads_as_published(tmp_path):
    for form, content in [("offset", OFFSET), ("tokens", TOKENS)]:
        write_index(CODES, tmp_path / "shop.index.json", codebook_size=SIZE, form=form)
        assert json.loads((tmp_path / "shop.index.json").read_text()) == content
    with pytest.raises(ValueError, match="form is 'letters'; it must be one of offset, tokens"):
        write_index(CODES, tmp_path / "shop.index.json", codebook_size=SIZE, form="letters")
    with pytest.raises(DataError, match="item 0, level 1: code 7 is not between 0 and 3"):
        write_index(CODES, tmp_path / "shop.index.json", codebook_size=4)
    with pytest.raises(ValueError, match="27 levels are more than there are letters"):
        write_index(np.zeros((1, 27), dtype=int), tmp_path / "shop.index.json", form="tokens")
    assert json.loads((tmp_path / "shop.index.json").read_text()) == TOKENS, "what cannot be written harms nothing"


# ---- catalogs of codes ---------------------------------------------------------------------------------------------

ROWS = [{"item_id": item_id, "title": title} for item_id, title in zip(IDS, ["hat", "sock", "belt"], strict=True)]


@pytest.mark.parametrize("form", ["offset", "tokens"])
@pytest.mark.parametrize("policy", ["keep", "reassign", "digit"])
def test_an_exported_catalog_is_imported_with_the_same_codes(tokenizer_of, tmp_path, policy, form):
    tokenizer, items = tokenizer_of(policy, codebook_size=32), make_items(40)
    catalog = ItemCatalog.from_items(items, tokenizer=tokenizer)
    catalog.export_index(tmp_path / "shop.index.json", form=form)
    codes = tmp_path / "shop.index.json"
    again = ItemCatalog.from_codes(items, codes, codebook_size=32, tokenizer=tokenizer)
    assert catalog.diff(again).is_empty
    assert (again.titles, again.fingerprint) == (catalog.titles, tokenizer.fingerprint)


def test_a_catalog_of_codes_has_no_vectors_and_survives_the_disk(tmp_path, world):
    catalog = ItemCatalog.from_codes(ROWS, CODES, codebook_size=SIZE)
    assert (catalog.vectors, catalog.mean, catalog.titles) == (None, None, ["hat", "sock", "belt"])
    for ask in (lambda: catalog.centered_vectors, catalog.require_vectors):
        with pytest.raises(DataError, match="made of codes only and has no vectors; build it from its items"):
            ask()
    world.catalog.save_pretrained(tmp_path / "catalog")  # whose vectors must not come back
    catalog.save_pretrained(tmp_path / "catalog")
    loaded = ItemCatalog.from_pretrained(tmp_path / "catalog")
    assert (loaded.vectors, loaded.mean) == (None, None)
    assert catalog.diff(loaded).is_empty
    assert loaded.remove(["a"]).item_ids == ["007", "b,c"]


def test_a_table_of_ids_is_enough_for_codes():
    catalog = ItemCatalog.from_codes([{"item_id": item_id} for item_id in IDS], CODES.tolist(), codebook_size=SIZE)
    assert catalog.titles == IDS


def test_only_the_tokenizer_that_made_the_codes_accepts_them(world):
    items = world.items
    free = ItemCatalog.from_codes(items, world.catalog.codes, codebook_size=8)
    assert free.fingerprint.startswith("codes-")
    assert free.fingerprint != ItemCatalog.from_codes(items, world.catalog.codes, codebook_size=9).fingerprint
    scorer = RecBaseScorer(world.model, world.tokenizer)
    with pytest.raises(FingerprintMismatchError, match="codes-"):
        scorer.score(["item-3"], ["item-4"], catalog=free)
    for known in ({"tokenizer": world.tokenizer}, {"fingerprint": world.tokenizer.fingerprint}):
        catalog = ItemCatalog.from_codes(items, world.catalog.codes, codebook_size=8, **known)
        score = scorer.score(["item-3"], ["item-4"], catalog=catalog)
        assert score == scorer.score(["item-3"], ["item-4"], catalog=world.catalog)


def test_codes_that_do_not_fit_are_refused(world):
    for codes in (CODES[:2], CODES.ravel(), CODES[:, :0], [[1, 2], [3]]):
        with pytest.raises(DataError, match=r"the codes have shape|inhomogeneous"):
            ItemCatalog.from_codes(ROWS, codes, codebook_size=SIZE)
    with pytest.raises(DataError, match="item 0, level 1: code 7 is not between 0 and 3"):
        ItemCatalog.from_codes(ROWS, CODES, codebook_size=4)
    with pytest.raises(DataError, match="whole numbers, got float64"):
        ItemCatalog.from_codes(ROWS, CODES * 1.0, codebook_size=SIZE)
    with pytest.raises(DataError, match="the codes have 3 levels of 8, the tokenizer has 4 of 8"):
        ItemCatalog.from_codes(ROWS, CODES, codebook_size=SIZE, tokenizer=world.tokenizer)


def test_an_index_file_has_the_name_of_one(tmp_path):
    with pytest.raises(ValueError, match=r"codes\.csv is to be an index file.*ends in \.json"):
        write_index(np.zeros((1, 2), dtype=np.int64), tmp_path / "codes.csv", codebook_size=4)
    assert not list(tmp_path.iterdir())
