"""A catalog lives: items come and go, and those that stay keep their semantic IDs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbase_hf import DataError, FingerprintMismatchError, ItemCatalog, RecBaseTokenizer, UnknownItemError
from recbase_hf.catalog import DriftReport
from tiny_world import WIDTH, HashEncoder, make_items, make_tokenizer

ITEMS = make_items(60)
POLICIES = ["keep", "reassign", "digit"]
SIZES = {"codebook_size": 32}
quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(left, right):
    assert (left.item_ids, left.titles, left.texts) == (right.item_ids, right.titles, right.texts)
    for name in ("codes", "vectors", "mean"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.fingerprint == right.fingerprint


def ids_of(items):
    return [item["item_id"] for item in items]


# ---- adding and removing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@given(cut=st.integers(1, len(ITEMS) - 1), seed=st.integers(0, 5))
@quick
def test_adding_keeps_every_semantic_id_and_removing_gives_the_catalog_back(tokenizer_of, policy, cut, seed):
    tokenizer = tokenizer_of(policy, **SIZES)
    items = [ITEMS[row] for row in np.random.default_rng(seed).permutation(len(ITEMS))]
    catalog = ItemCatalog.from_items(items[:cut], tokenizer=tokenizer)
    grown, report = catalog.add_items(items[cut:], tokenizer=tokenizer)
    assert grown.item_ids == ids_of(items)
    np.testing.assert_array_equal(grown.codes[:cut], catalog.codes)
    np.testing.assert_array_equal(grown.mean, catalog.mean)
    assert (report.num_old, report.num_added) == (cut, len(ITEMS) - cut)
    if policy != "keep":
        assert grown.collisions().num_colliding_texts == report.num_colliding == 0
    same(grown.remove(ids_of(items[cut:])), catalog)
    assert len(catalog) == cut, "the catalog itself is as it was"


def test_new_items_get_the_semantic_ids_that_they_would_have_had_around_the_same_mean(tokenizer_of):
    tokenizer = tokenizer_of("keep")
    catalog = ItemCatalog.from_items(ITEMS[:40], tokenizer=tokenizer)
    grown, _ = catalog.add_items(ITEMS[40:], tokenizer=tokenizer)
    titles = [item["title"] for item in ITEMS]
    texts = [f"Title: {title}" for title in titles]
    assert (grown.titles, grown.texts) == (titles, texts)
    np.testing.assert_array_equal(grown.codes, tokenizer.encode_items(texts, mean=catalog.mean))


def test_given_vectors_are_used_for_new_items(tokenizer_of):
    tokenizer = tokenizer_of("keep")
    catalog = ItemCatalog.from_items(ITEMS[:40], tokenizer=tokenizer)
    vectors = 3 * np.random.default_rng(0).normal(size=(20, WIDTH))
    grown, _ = catalog.add_items(ITEMS[40:], tokenizer=tokenizer, vectors=vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(grown.vectors[40:], unit, rtol=1e-5, atol=1e-7)


def test_what_cannot_be_added_is_named(tokenizer_of):
    tokenizer = tokenizer_of("keep")
    catalog = ItemCatalog.from_items(ITEMS[:40], tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"2 of 22 items are in the catalog already, .* row 1 \(item_id 'item-38'\)"):
        catalog.add_items(ITEMS[38:], tokenizer=tokenizer)
    with pytest.raises(DataError, match="names the field 'title', but the table has only"):
        catalog.add_items([{"item_id": "new", "name": "hat"}], tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"row 1 \(item_id 'new'\)"):
        catalog.add_items([{"item_id": "new", "title": " "}], tokenizer=tokenizer)
    with pytest.raises(FingerprintMismatchError):
        catalog.add_items(ITEMS[40:], tokenizer=make_tokenizer(seed=1))
    of_codes = ItemCatalog.from_codes(ITEMS[:40], catalog.codes, codebook_size=8, tokenizer=tokenizer)
    with pytest.raises(DataError, match="made of codes only and has no vectors"):
        of_codes.add_items(ITEMS[40:], tokenizer=tokenizer)


def test_what_cannot_be_removed_is_named(world):
    with pytest.raises(UnknownItemError, match="item 'nowhere'"):
        world.catalog.remove(["item-1", "nowhere"])
    with pytest.raises(DataError, match="would remove all 40 items"):
        world.catalog.remove(world.catalog.item_ids)
    with pytest.raises(TypeError, match="single string"):
        world.catalog.remove("item-1")
    same(world.catalog.remove([]), world.catalog)
    assert world.catalog.remove(iter(["item-3", "item-3"])).item_ids == [f"item-{i}" for i in range(40) if i != 3]


# ---- drift ---------------------------------------------------------------------------------------------------------


def with_fitted(tokenizer, percentiles):
    tokenizer.quantizer.fitted_cosines = torch.as_tensor(percentiles, dtype=torch.float32)
    return tokenizer


def test_drift_is_measured_against_the_catalog_and_the_items_that_the_quantizer_was_fitted_on():
    tokenizer = make_tokenizer()
    catalog = ItemCatalog.from_items(ITEMS[:40], tokenizer=tokenizer)
    vectors = np.tile(np.eye(WIDTH)[:1], (20, 1))
    for percentiles, share in ([1.0] * 101, 1.0), ([-1.0] * 101, 0.0), ([float("nan")] * 101, None):
        grown, report = catalog.add_items(ITEMS[40:], tokenizer=with_fitted(tokenizer, percentiles), vectors=vectors)
        assert report.share_unlike_training == share
        shown = "reconstructed worse than 99 % of the training items"
        assert (f"{shown}: 100.0% of the new" in str(report)) == (share == 1.0)
        assert (shown in str(report)) == (share is not None)
    shift = np.linalg.norm(tokenizer.catalog_mean(grown.vectors) - catalog.mean)
    assert report.mean_shift == pytest.approx(shift)
    assert (report.num_added_texts, report.num_colliding) == (20, 20), "all have one vector"
    decoded = tokenizer.decode_items(grown.codes)
    cosines = (grown.centered_vectors * decoded).sum(axis=1) / np.linalg.norm(decoded, axis=1)
    assert report.cosine_old == pytest.approx(cosines[:40].mean(), abs=1e-5)
    assert report.cosine_new == pytest.approx(cosines[40:].mean(), abs=1e-5)


def items_of(titles):
    return [{"item_id": f"{title} {row}", "title": title} for row, title in enumerate(titles)]


@pytest.mark.parametrize(
    ("titles", "directions", "num_colliding"),
    [
        (["hat", "hat"], [0, 0], 0),  # the text and the vector of the old item
        (["belt", "belt"], [0, 0], 1),  # with the old one
        (["hat", "belt"], [0, 0], 2),  # `hat` shares its ID with `belt` now
        ([f"text {row}" for row in range(50)], [1] * 50, 50),  # with one another, on an ID that no old item has
        (["belt"] * 50, [1] * 50, 0),
        (["belt", "belt", "scarf"], [1, 1, 1], 2),
    ],
)
def test_each_new_text_on_the_semantic_id_of_another_text_counts_once(tokenizer_of, titles, directions, num_colliding):
    tokenizer = tokenizer_of("keep")
    vectors = np.eye(WIDTH)
    catalog = ItemCatalog.from_items([{"item_id": "old", "title": "hat"}], tokenizer=tokenizer, vectors=vectors[[0]])
    grown, report = catalog.add_items(items_of(titles), tokenizer=tokenizer, vectors=vectors[directions])
    assert len(np.unique(grown.codes, axis=0)) == len({0, *directions})
    assert (report.num_added, report.num_added_texts) == (len(titles), len(set(titles)))
    assert report.num_colliding == num_colliding
    shown = f"{num_colliding} of their {len(set(titles))} different texts share a semantic ID with another text"
    assert shown in str(report)
    assert ("score like others" in str(report)) == (num_colliding > 0)


def test_advice_is_given_where_it_is_due():
    fine = DriftReport(1000, 40, 20, 0, 0.8, 0.8, 0.01, 0.002)
    assert fine.advice == []
    assert "advice: none needed" in str(fine)
    for change, advice in [
        ({"mean_shift": 0.3}, "build the catalog anew"),
        ({"share_unlike_training": 0.5}, "check their texts"),
        ({"num_colliding": 2}, "collision policy reassign"),
    ]:
        report = replace(fine, **change)
        assert len(report.advice) == 1
        assert advice in str(report)


# ---- differences ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_catalog_does_not_differ_from_itself_in_whatever_order(tokenizer_of, policy):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer=tokenizer_of(policy, **SIZES))
    assert catalog.diff(catalog).is_empty
    assert str(catalog.diff(catalog)) == "no difference"
    turned = replace(
        catalog, item_ids=catalog.item_ids[::-1], texts=catalog.texts[::-1], codes=catalog.codes[::-1].copy()
    )
    assert catalog.diff(turned).is_empty


def test_a_difference_names_items_that_come_go_or_change(tokenizer_of):
    tokenizer = tokenizer_of("keep")
    old = ItemCatalog.from_items(ITEMS[:40], tokenizer=tokenizer)
    codes = old.codes.copy()
    codes[7, 2] = (codes[7, 2] + 1) % 8
    new = replace(old, codes=codes, texts=["changed", *old.texts[1:]]).remove(["item-20", "item-10"])
    new, _ = new.add_items([{"item_id": f"new-{i}", "title": f"hat {i}"} for i in range(8)], tokenizer=tokenizer)
    found = old.diff(new)
    assert found.added == tuple(f"new-{i}" for i in range(8))
    assert found.removed == ("item-10", "item-20")
    assert (found.changed_texts, found.changed_codes) == (("item-0",), ("item-7",))
    assert not found.is_empty
    assert str(found).splitlines() == [
        "8 added: new-0, new-1, new-2, new-3, new-4, ...",
        "2 removed: item-10, item-20",
        "1 with another text: item-0",
        "1 with another semantic ID: item-7",
    ]
    assert new.diff(old).added == found.removed


def test_catalogs_of_different_tokenizers_differ_even_with_the_same_codes(tokenizer_of):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer=tokenizer_of("keep"))
    other = replace(catalog, fingerprint="other")
    assert not catalog.diff(other).is_empty
    assert f"{catalog.fingerprint} and other: their semantic IDs cannot be compared" in str(catalog.diff(other))
    shorter = replace(catalog, codes=catalog.codes[:, :3])
    assert len(catalog.diff(shorter).changed_codes) == len(catalog)


# ---- to another tokenizer ------------------------------------------------------------------------------------------


class Forbidden:
    name = HashEncoder.name

    def encode(self, texts):
        raise AssertionError("the texts were encoded again")


def other_tokenizer(encoder=None, **changes):
    plain = make_tokenizer(num_levels=3, seed=1)
    options = {"text_encoder": HashEncoder.name, "item_template": plain.item_template, **changes}
    tokenizer = RecBaseTokenizer(quantizer=plain.quantizer, **options)
    tokenizer.attached_text_encoder = encoder or HashEncoder()
    return tokenizer


def test_vectors_of_the_same_encoder_and_template_are_used_again(tokenizer_of, tmp_path):
    ItemCatalog.from_items(ITEMS, tokenizer=tokenizer_of("keep")).save_pretrained(tmp_path / "catalog")
    moved = ItemCatalog.from_pretrained(tmp_path / "catalog").migrate(other_tokenizer(Forbidden()))
    same(moved, ItemCatalog.from_items(ITEMS, tokenizer=other_tokenizer()))
    assert moved.codes.shape == (60, 3)


def test_another_revision_of_the_encoder_encodes_the_texts_anew(tokenizer_of):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer=tokenizer_of("keep"))
    with pytest.raises(AssertionError, match="encoded again"):
        catalog.migrate(other_tokenizer(Forbidden(), text_encoder_revision="v2"))
    moved = catalog.migrate(other_tokenizer(text_encoder_revision="v2"))
    assert (moved.text_encoder_revision, moved.texts) == ("v2", catalog.texts)


def test_given_vectors_are_those_of_the_migrated_catalog(tokenizer_of):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer=tokenizer_of("keep"))
    tokenizer = other_tokenizer(Forbidden(), text_encoder_revision="v2")
    vectors = 3 * np.random.default_rng(0).normal(size=(60, WIDTH)).astype(np.float32)
    moved = catalog.migrate(tokenizer, vectors=vectors)
    same(moved, ItemCatalog.from_items(ITEMS, tokenizer=tokenizer, vectors=vectors))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(moved.vectors, unit, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(moved.codes, tokenizer.encode_items(moved.vectors, mean=moved.mean))
    assert moved.fingerprint == tokenizer.fingerprint


def test_another_template_needs_the_item_table(tokenizer_of):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer=tokenizer_of("keep"))
    tokenizer = other_tokenizer(item_template={"version": 1, "fields": ["title"], "lead": "A thing to wear."})
    with pytest.raises(DataError, match=r"another item template .* give the item table"):
        catalog.migrate(tokenizer)
    table = [{"item_id": "more", "title": "more"}, *ITEMS[::-1]]
    same(catalog.migrate(tokenizer, items=table), ItemCatalog.from_items(ITEMS, tokenizer=tokenizer))
    with pytest.raises(DataError, match="1 of the catalog's 60 items are not in the item table, the first is 'item-0'"):
        catalog.migrate(tokenizer, items=ITEMS[1:])


def test_a_catalog_that_does_not_say_where_its_vectors_come_from_needs_the_item_table(tokenizer_of):
    tokenizer = tokenizer_of("keep")
    catalog = ItemCatalog.from_items(ITEMS, tokenizer=tokenizer)
    older = replace(catalog, text_encoder=None, text_encoder_revision=None, item_template=None)
    with pytest.raises(DataError, match="give the item table"):
        older.migrate(other_tokenizer())
    same(older.migrate(tokenizer, items=ITEMS), catalog)


def test_published_codes_become_a_catalog_with_vectors(tokenizer_of):
    tokenizer = tokenizer_of("keep")
    catalog = ItemCatalog.from_codes(ITEMS, np.zeros((60, 4), dtype=int))
    same(catalog.migrate(tokenizer, items=ITEMS), ItemCatalog.from_items(ITEMS, tokenizer=tokenizer))


@pytest.mark.parametrize("policy", ["reassign", "digit"])
def test_another_collision_policy_is_another_tokenizer(tokenizer_of, policy):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer=tokenizer_of("keep", **SIZES))
    tokenizer = tokenizer_of(policy, **SIZES)
    moved = catalog.migrate(tokenizer)
    same(moved, ItemCatalog.from_items(ITEMS, tokenizer=tokenizer))
    assert moved.collisions().num_colliding_texts == 0
    assert not catalog.diff(moved).same_tokenizer
