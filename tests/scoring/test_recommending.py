"""`recommend` finds what scoring the whole catalog finds, by whatever way it goes down the trie."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf import ItemCatalog, RecBaseScorer, UnknownItemError
from recbase_hf.scoring.walk import Walker
from recbase_hf.text.similarity import log_sum_exp_similarity
from scoring.small_catalogs import (
    alphas,
    assert_recommended,
    best_by_brute_force,
    catalog_of,
    catalogs,
    histories_of,
    limits,
    methods,
    new_scorer,
    random_catalog,
    scorer_of,
    some_limits,
)
from tiny_world import make_items, make_model, make_tokenizer


def everything(catalog):
    return np.ones(len(catalog), dtype=bool)


@given(data=st.data(), catalog=catalogs(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_exact_search_orders_as_scoring_the_whole_catalog_does(data, catalog, limits, method, alpha):
    scorer, options = scorer_of(catalog.trie.num_levels), {"catalog": catalog, "method": method, "alpha": alpha}
    histories = data.draw(histories_of(catalog, max_users=3))
    k = data.draw(st.integers(1, len(catalog)))
    with limits:
        found = scorer.recommend(histories, k, exclude_history=False, **options)
    for history, part in zip(histories, found, strict=True):
        expected = best_by_brute_force(scorer, history=history, is_allowed=everything(catalog), **options)
        assert_recommended(part, expected[:k], rtol=0, atol=1e-10)


@pytest.mark.parametrize("sharpness", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("method", ["joint", "catalog"])
def test_pruning_loses_no_item_however_sure_the_model_is(sharpness, method):
    catalog = random_catalog(300, codebook_size=16)
    histories = [["3"], ["7", "9", "7"], ["250"], ["8", "1", "2"]]
    for seed in range(2):
        scorer = new_scorer(codebook_size=16, initializer_range=sharpness, seed=seed)
        for alpha in (0.0, 0.4, 1.0):
            options = {"catalog": catalog, "method": method, "alpha": alpha}
            expected = [
                best_by_brute_force(scorer, history=h, is_allowed=everything(catalog), **options) for h in histories
            ]
            for k, max_nodes in ((1, 2048), (5, 40), (20, 2048)):
                with limits(max_nodes, 256):
                    found = scorer.recommend(histories, k, exclude_history=False, **options)
                for part, best in zip(found, expected, strict=True):
                    assert_recommended(part, best[:k], rtol=0, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("method", ["joint", "catalog"])
def test_in_float32_the_exact_search_finds_the_highest_scores(method, alpha):
    catalog, scorer = random_catalog(300, codebook_size=16), new_scorer(dtype=torch.float32, codebook_size=16)
    histories, options = [[], ["3"], ["7", "9", "7"]], {"catalog": catalog, "method": method, "alpha": alpha}
    found = scorer.recommend(histories, 7, exclude_history=False, **options)
    for history, part in zip(histories, found, strict=True):
        scores = scorer.score(history, catalog.item_ids, **options)
        assert len({item.item_id for item in part}) == 7
        np.testing.assert_allclose([item.score for item in part], np.sort(scores)[::-1][:7], rtol=1e-5, atol=1e-4)


def test_the_exact_search_skips_what_cannot_be_among_the_best():
    catalog, sure = random_catalog(300, codebook_size=16), new_scorer(codebook_size=16, initializer_range=1.0)
    visited = []
    descend = Walker.descend

    def counting(self, histories, frontier, parents, nodes):
        visited.append(len(nodes))
        return descend(self, histories, frontier, parents, nodes)

    with patch.object(Walker, "descend", counting):
        sure.recommend([], 1, catalog=catalog)
    inner_nodes = sum(catalog.trie.num_nodes(depth) for depth in (1, 2))
    assert sum(visited) < inner_nodes / 4


def test_half_precision_that_differs_between_batches_still_gives_k_items():
    catalog, scorer = random_catalog(300, codebook_size=16), new_scorer(dtype=torch.bfloat16, codebook_size=16)
    generator = torch.Generator().manual_seed(0)
    descend = Walker.descend

    def uneven(self, *arguments):
        frontier = descend(self, *arguments)
        noise = torch.randn(frontier.hidden.shape, generator=generator) * torch.finfo(torch.bfloat16).eps / 2
        return dataclasses.replace(frontier, hidden=(frontier.hidden * (1 + noise)).to(torch.bfloat16))

    histories = [[str(row)] for row in range(60)]
    with patch.object(Walker, "descend", uneven):
        for method in ("joint", "catalog"):
            found = scorer.recommend(histories, 3, catalog=catalog, method=method)
            assert {len({item.item_id for item in part}) for part in found} == {3}


# ---- beams ---------------------------------------------------------------------------------------------------------


@given(data=st.data(), catalog=catalogs(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_as_many_beams_as_semantic_ids_find_what_the_exact_search_finds(data, catalog, limits, method, alpha):
    scorer, options = scorer_of(catalog.trie.num_levels), {"catalog": catalog, "method": method, "alpha": alpha}
    histories = data.draw(histories_of(catalog, max_users=3))
    k = data.draw(st.integers(1, len(catalog)))
    num_beams = max(k, len(catalog.trie.bucket_sizes)) + data.draw(st.integers(0, 3))
    with limits:
        found = scorer.recommend(histories, k, search="beam", num_beams=num_beams, exclude_history=False, **options)
    exact = scorer.recommend(histories, k, exclude_history=False, **options)
    for part, of_exact in zip(found, exact, strict=True):
        assert_recommended(part, [(item.item_id, item.score) for item in of_exact], rtol=0, atol=1e-10)


@given(data=st.data(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_few_beams_give_distinct_allowed_items_with_their_scores(data, limits, method, alpha):
    catalog, scorer = random_catalog(60), scorer_of(3)
    histories = data.draw(histories_of(catalog, max_users=3))
    allowed = data.draw(st.lists(st.sampled_from(catalog.item_ids), min_size=9, max_size=30, unique=True))
    k = data.draw(st.integers(1, 4))
    num_beams = k + data.draw(st.integers(0, 2))
    options = {"catalog": catalog, "method": method, "alpha": alpha}
    with limits:
        found = scorer.recommend(histories, k, search="beam", num_beams=num_beams, allowed=allowed, **options)
    for history, part in zip(histories, found, strict=True):
        item_ids = [item.item_id for item in part]
        assert len(set(item_ids)) == k
        assert set(item_ids) <= set(allowed) - set(history)
        scores = [item.score for item in part]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, scorer.score(history, item_ids, **options), rtol=0, atol=1e-10)


# ---- ties ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colliding():
    """A scorer, and a catalog with vectors whose forty items share five semantic IDs."""
    tokenizer = make_tokenizer(2, 4)
    catalog = ItemCatalog.from_items(make_items(40), tokenizer=tokenizer)
    codes = np.array([[0, 0], [0, 1], [2, 1], [3, 0], [3, 3]])[np.arange(40) % 5]
    scorer = RecBaseScorer(make_model(tokenizer.layout, dtype=torch.float64), tokenizer)
    return scorer, dataclasses.replace(catalog, codes=codes)


def in_other_order(catalog, order):
    lists = {name: [getattr(catalog, name)[row] for row in order] for name in ("item_ids", "titles", "texts")}
    return dataclasses.replace(catalog, codes=catalog.codes[order], vectors=catalog.vectors[order], **lists)


@pytest.mark.parametrize("search", ["exact", "beam"])
@pytest.mark.parametrize("history", [[], ["item-3", "item-9"]])
@pytest.mark.parametrize("k", [1, 6, 13, 38])
def test_equal_scores_are_ordered_by_text_similarity_then_by_id(colliding, search, history, k):
    scorer, catalog = colliding
    rows = catalog.rows(history)
    similarity = log_sum_exp_similarity(catalog.centered_vectors @ catalog.centered_vectors[rows].T).round(5)
    scores = scorer.score(history, catalog.item_ids, catalog=catalog)
    keys = sorted((-scores[row], -similarity[row], catalog.item_ids[row]) for row in range(40))
    expected = [item_id for *_, item_id in keys if item_id not in history][:k]
    for order in (np.arange(40), np.random.default_rng(0).permutation(40), np.arange(40)[::-1]):
        found = scorer.recommend(history, k, catalog=in_other_order(catalog, order), search=search)
        assert [item.item_id for item in found] == expected


def test_without_vectors_equal_scores_are_ordered_by_id():
    codes, ids = [[0, 1]] * 5 + [[2, 2]], ["d", "b", "e", "a", "c", "other"]
    for rows in (slice(None), slice(None, None, -1)):
        catalog = catalog_of(codes[rows], item_ids=ids[rows])
        found = scorer_of(2).recommend(["other"], 4, catalog=catalog)
        assert [item.item_id for item in found] == ["a", "b", "c", "d"]


def test_a_model_that_knows_nothing_leaves_the_order_to_the_ids():
    scorer = new_scorer()
    for weight in scorer.model.parameters():
        weight.data.zero_()
    catalog = random_catalog(40)
    for k in (1, 5, 40):
        found = scorer.recommend([], k, catalog=catalog, method="joint")
        assert [item.item_id for item in found] == sorted(catalog.item_ids)[:k]


# ---- what comes back, and what is refused --------------------------------------------------------------------------


def test_many_users_are_recommended_to_as_one_by_one():
    catalog, scorer = random_catalog(40), scorer_of(3)
    histories = [["2", "30"], [], ["7", "7", "7", "7", "7"], ["7"]]
    for options in ({}, {"search": "beam"}, {"alpha": 0.5, "method": "joint"}):
        together = scorer.recommend(histories, 5, catalog=catalog, **options)
        for history, part in zip(histories, together, strict=True):
            alone = scorer.recommend(history, 5, catalog=catalog, **options)
            assert_recommended(part, [(item.item_id, item.score) for item in alone], rtol=0, atol=1e-10)


def test_a_recommendation_is_an_item_of_the_catalog_with_title_and_score():
    catalog, scorer = random_catalog(40), scorer_of(3)
    (found,) = scorer.recommend([["1"]], 1, catalog=catalog)
    assert found[0].title == f"title {found[0].item_id}"
    assert found[0].score == pytest.approx(scorer.score(["1"], [found[0].item_id], catalog=catalog)[0])


@pytest.mark.parametrize(
    ("k", "options", "complaint"),
    [
        (0, {}, "k is 0; it must be at least 1"),
        (0, {"search": "beam"}, "k is 0; it must be at least 1"),
        (39, {}, "k is 39, but 38 of the catalog's 40 items remain to recommend"),
        (39, {"search": "beam"}, "k is 39, but 38 of the catalog's 40 items remain"),
        (41, {"exclude_history": False}, "k is 41, but 40 of the catalog's 40 items remain"),
        (5, {"search": "beam", "num_beams": 4}, "num_beams is 4, too few to find k = 5"),
        (5, {"num_beams": 9}, "num_beams is 9, but the exact search has no beams"),
        (5, {"search": "best"}, "search is 'best'; it must be one of exact, beam"),
    ],
)
def test_what_cannot_be_found_is_refused_by_scorer_and_session(k, options, complaint):
    catalog, scorer = random_catalog(40), scorer_of(3)
    with pytest.raises(ValueError, match=complaint):
        scorer.recommend(["2", "30"], k, catalog=catalog, **options)
    with pytest.raises(ValueError, match=complaint):
        scorer.session(["2", "30"], catalog=catalog).recommend(k, **options)


def test_histories_must_be_lists_of_items_of_the_catalog():
    catalog, scorer = random_catalog(40), scorer_of(3)
    with pytest.raises(UnknownItemError, match="item 'no-such' is not in the catalog"):
        scorer.recommend(["1", "no-such"], 3, catalog=catalog)
    for history in ("12", [["1"], "12"]):
        with pytest.raises(TypeError, match="not the single string '12'"):
            scorer.recommend(history, 3, catalog=catalog)
