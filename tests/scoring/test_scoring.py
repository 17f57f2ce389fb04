"""The fast scorer gives the reference's scores, and the scores are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbase_hf import FingerprintMismatchError, ItemCatalog, RecBaseScorer, UnknownItemError
from recbase_hf.scoring.naive import score_naively
from recbase_hf.scoring.tree import score_by_tree
from tiny_world import make_model, make_tokenizer, make_world

ITEMS = 40
users = st.lists(
    st.tuples(st.lists(st.integers(0, ITEMS - 1), max_size=12), st.lists(st.integers(0, ITEMS - 1), max_size=9)),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def world64():
    return make_world(ITEMS, dtype=torch.float64)


def as_rows(lists):
    return [np.array(rows, dtype=np.int64) for rows in lists]


@given(users=users, method=st.sampled_from(["joint", "catalog"]), chunk=st.integers(1, 4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tree_scores_equal_naive_scores_in_float64(world64, users, method, chunk):
    histories, candidates = as_rows(h for h, _ in users), as_rows(c for _, c in users)
    naive = score_naively(world64.model, world64.catalog, histories, candidates, method=method, batch_size=7)
    tree = score_by_tree(
        world64.model,
        world64.catalog,
        histories,
        candidates,
        method=method,
        users_per_forward=2,
        candidates_per_forward=chunk,
    )
    assert len(naive) == len(tree) == len(users)
    for left, right in zip(naive, tree, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["joint", "catalog"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_tree_scores_equal_naive_scores_in_float32(world, method, attention):
    world.model.set_attn_implementation(attention)
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, ITEMS, size) for size in (0, 3, 7, 12)]
    candidates = [rng.integers(0, ITEMS, size) for size in (5, 1, 40, 9)]
    naive = score_naively(world.model, world.catalog, histories, candidates, method=method)
    tree = score_by_tree(world.model, world.catalog, histories, candidates, method=method, candidates_per_forward=16)
    world.model.set_attn_implementation("sdpa")
    for left, right in zip(naive, tree, strict=True):
        assert left.dtype == right.dtype == np.float32
        np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_other_numbers_of_levels_score_alike(num_levels):
    world = make_world(20, num_levels=num_levels, codebook_size=4, dtype=torch.float64)
    histories, candidates = as_rows([[], [3, 5]]), as_rows([range(20), [7, 7, 1]])
    for method in ("joint", "catalog"):
        naive = score_naively(world.model, world.catalog, histories, candidates, method=method)
        tree = score_by_tree(world.model, world.catalog, histories, candidates, method=method, candidates_per_forward=6)
        for left, right in zip(naive, tree, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-10)


@given(history=st.lists(st.integers(0, ITEMS - 1), max_size=14))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_catalog_probabilities_sum_to_one(world64, history):
    scorer = RecBaseScorer(world64.model, world64.tokenizer)
    (scores,) = scorer.score_rows([np.array(history, dtype=np.int64)], [np.arange(ITEMS)], catalog=world64.catalog)
    assert np.exp(scores).sum() == pytest.approx(1.0, abs=1e-9)


def test_a_score_does_not_depend_on_other_candidates_users_or_order(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    alone = scorer.score(["item-3", "item-4"], ["item-9"], catalog=world.catalog)
    together = scorer.score(
        [["item-7"], ["item-3", "item-4"]],
        [["item-2", "item-1"], ["item-8", "item-9", "item-9"]],
        catalog=world.catalog,
    )
    np.testing.assert_allclose(together[1][1:], [alone[0], alone[0]], rtol=1e-5)
    assert together[1][1] == together[1][2]


def test_items_that_share_a_semantic_id_score_alike(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    first, twin = scorer.score(["item-5"], ["item-0", "item-1"], catalog=world.catalog)
    assert first == twin


def test_recommend_orders_as_score_does(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    history = ["item-2", "item-30"]
    for method in ("joint", "catalog"):
        found = scorer.recommend(history, 15, catalog=world.catalog, method=method, exclude_history=False)
        scores = scorer.score(history, world.catalog.item_ids, catalog=world.catalog, method=method)
        expected = np.argsort(-scores, kind="stable")[:15]
        assert [item.item_id for item in found] == [world.catalog.item_ids[row] for row in expected]
        np.testing.assert_allclose([item.score for item in found], scores[expected], rtol=1e-5)


def test_recommend_returns_distinct_items_outside_history_and_exclusions(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    history, excluded = ["item-2", "item-30"], ["item-5", "item-6"]
    found = [item.item_id for item in scorer.recommend(history, 36, catalog=world.catalog, exclude=excluded)]
    assert sorted(found) == sorted(set(world.catalog.item_ids) - set(history) - set(excluded))


def test_asking_for_more_items_than_remain_says_how_many_remain(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    with pytest.raises(ValueError, match="38 of the catalog's 40 items remain"):
        scorer.recommend(["item-2", "item-30"], 39, catalog=world.catalog)
    with pytest.raises(ValueError, match="k is 0"):
        scorer.recommend([], 0, catalog=world.catalog)


def test_an_empty_history_is_scored_from_bos_alone(world64):
    (scores,) = score_naively(world64.model, world64.catalog, as_rows([[]]), as_rows([range(ITEMS)]), method="joint")
    scorer = RecBaseScorer(world64.model, world64.tokenizer)
    got = scorer.score([], world64.catalog.item_ids, catalog=world64.catalog, method="joint")
    np.testing.assert_allclose(got, scores, atol=1e-10)


def test_a_history_longer_than_the_context_loses_its_oldest_items(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    long = [f"item-{i % ITEMS}" for i in range(3 * scorer.max_history)]
    got = scorer.score(long, ["item-1", "item-2"], catalog=world.catalog)
    expected = scorer.score(long[-scorer.max_history :], ["item-1", "item-2"], catalog=world.catalog)
    np.testing.assert_array_equal(got, expected)


def test_an_unknown_item_is_named(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    with pytest.raises(UnknownItemError, match="item 'no-such' is not in the catalog"):
        scorer.score(["item-1", "no-such"], ["item-2"], catalog=world.catalog)


def test_a_catalog_of_another_tokenizer_is_refused(world):
    other = ItemCatalog.from_items(world.items, tokenizer=make_tokenizer(seed=1))
    with pytest.raises(FingerprintMismatchError, match="catalog"):
        RecBaseScorer(world.model, world.tokenizer).score(["item-1"], ["item-2"], catalog=other)


def test_nan_weights_are_reported(world):
    model = make_model(world.tokenizer.layout)
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        RecBaseScorer(model, world.tokenizer).score(["item-1"], ["item-2"], catalog=world.catalog)


def test_wrong_arguments_are_named(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    with pytest.raises(ValueError, match="method is 'cosine'"):
        scorer.score(["item-1"], ["item-2"], catalog=world.catalog, method="cosine")
    with pytest.raises(ValueError, match="2 histories but 1 candidate"):
        scorer.score([["item-1"], []], [["item-2"]], catalog=world.catalog)
    with pytest.raises(ValueError, match="strategy"):
        RecBaseScorer(world.model, world.tokenizer, strategy="guess")
    with pytest.raises(ValueError, match="tokens"):
        RecBaseScorer(world.model, make_tokenizer(codebook_size=64))


def test_many_users_are_recommended_to_as_one_by_one(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    histories = [["item-2", "item-30"], [], ["item-7"]]
    together = scorer.recommend(histories, 5, catalog=world.catalog)
    assert together == [scorer.recommend(history, 5, catalog=world.catalog) for history in histories]


def test_histories_come_as_any_sequence_but_not_as_one_string(world):
    import pandas as pd

    scorer = RecBaseScorer(world.model, world.tokenizer)
    history = pd.Series(["item-2", "item-30"], index=[7, 9])
    expected = scorer.score(["item-2", "item-30"], ["item-1"], catalog=world.catalog)
    np.testing.assert_array_equal(scorer.score(history, ("item-1",), catalog=world.catalog), expected)
    with pytest.raises(TypeError, match="not the single string 'item-2'"):
        scorer.score("item-2", ["item-1"], catalog=world.catalog)


def test_rows_outside_the_catalog_are_refused(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    with pytest.raises(IndexError, match="-1"):
        scorer.score_rows(as_rows([[-1]]), as_rows([[0]]), catalog=world.catalog)
