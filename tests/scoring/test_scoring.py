"""The fast scorer gives the reference's scores, and the scores are what they claim to be."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf import FingerprintMismatchError, RecBaseScorer, RecBaseScoringPipeline, UnknownItemError
from scoring.small_catalogs import (
    alphas,
    catalog_of,
    catalogs,
    histories_of,
    items_of,
    limits,
    methods,
    new_scorer,
    random_catalog,
    scorer_of,
    some_limits,
    tokenizer_of,
)
from tiny_world import make_tokenizer


@st.composite
def cases(draw):
    """A catalog, histories, and candidates: some repeated, some users without any."""
    catalog = draw(catalogs())
    histories = draw(histories_of(catalog))
    candidates = [draw(items_of(catalog, max_size=9)) for _ in histories]
    return catalog, histories, candidates


def naive_and_tree(case, dtype, limits, **options):
    """(pairs, levels) of both strategies."""
    catalog, histories, candidates = case
    tree = scorer_of(catalog.trie.num_levels, dtype)
    naive = RecBaseScorer(tree.model, tree.tokenizer, strategy="naive")
    with limits:
        both = [scorer.score_levels(histories, candidates, catalog=catalog, **options) for scorer in (naive, tree)]
    for parts in both:
        assert [part.shape for part in parts] == [(len(ids), catalog.trie.num_levels) for ids in candidates]
    return [np.concatenate(parts) for parts in both]


@given(case=cases(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_tree_scores_equal_naive_scores_in_float64(case, limits, method, alpha):
    naive, tree = naive_and_tree(case, torch.float64, limits, method=method, alpha=alpha)
    assert naive.dtype == tree.dtype == np.float64
    np.testing.assert_allclose(naive, tree, rtol=0, atol=1e-10)


@given(case=cases(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_tree_scores_equal_naive_scores_in_float32(case, limits, method, alpha):
    naive, tree = naive_and_tree(case, torch.float32, limits, method=method, alpha=alpha)
    assert naive.dtype == tree.dtype == np.float32
    np.testing.assert_allclose(naive, tree, rtol=1e-5, atol=1e-5)  # one level may be near 0


@given(case=cases(), limits=some_limits)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_joint_scores_are_those_of_the_pipeline(case, limits):
    catalog, histories, candidates = case
    scorer = scorer_of(catalog.trie.num_levels, torch.float64)
    pipeline = RecBaseScoringPipeline(model=scorer.model, tokenizer=scorer.tokenizer, device="cpu")
    with limits:
        scores = scorer.score(histories, candidates, catalog=catalog, method="joint")
    for history, ids, part in zip(histories, candidates, scores, strict=True):
        if ids:
            codes = {"history": catalog.codes[catalog.rows(history)], "candidates": catalog.codes[catalog.rows(ids)]}
            np.testing.assert_allclose(part, pipeline(codes)["scores"], rtol=0, atol=1e-10)


@given(case=cases(), method=methods, alpha=alphas)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_levels_sum_to_the_scores_of_items_and_of_rows(case, method, alpha):
    catalog, histories, candidates = case
    scorer, options = scorer_of(catalog.trie.num_levels), {"catalog": catalog, "method": method, "alpha": alpha}
    scores = scorer.score(histories, candidates, **options)
    levels = scorer.score_levels(histories, candidates, **options)
    of_rows = scorer.score_rows(*([catalog.rows(ids) for ids in lists] for lists in (histories, candidates)), **options)
    for part, of_levels, rows in zip(scores, levels, of_rows, strict=True):
        np.testing.assert_array_equal(part, of_levels.sum(axis=1))
        np.testing.assert_array_equal(part, rows)


@given(data=st.data(), catalog=catalogs(), limits=some_limits)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_catalog_probabilities_sum_to_one(data, catalog, limits):
    histories = data.draw(histories_of(catalog))
    with limits:
        scores = scorer_of(catalog.trie.num_levels).score(
            histories, [catalog.item_ids] * len(histories), catalog=catalog
        )
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=0, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_bfloat16_weights_are_summed_in_float32(alpha):
    catalog, scorer = random_catalog(60), scorer_of(3, torch.bfloat16)
    for method in ("joint", "catalog"):
        scores = scorer.score(["1", "2"], catalog.item_ids, catalog=catalog, method=method, alpha=alpha)
        assert scores.dtype == np.float32
        assert len(np.unique(scores)) == len(catalog.trie.bucket_sizes)  # bfloat16 could not tell them all apart
        if method == "catalog" and not alpha:
            assert np.exp(scores).sum() == pytest.approx(1.0, abs=1e-3)


@given(data=st.data(), case=cases(), method=methods, alpha=alphas)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_score_does_not_depend_on_other_candidates_users_or_order(data, case, method, alpha):
    catalog, histories, candidates = case
    scorer, options = scorer_of(catalog.trie.num_levels), {"catalog": catalog, "method": method, "alpha": alpha}
    together = scorer.score(histories, candidates, **options)
    order = data.draw(st.permutations(range(len(histories))))
    mixed = scorer.score([histories[user] for user in order], [candidates[user][::-1] for user in order], **options)
    for user, part in zip(order, mixed, strict=True):
        np.testing.assert_allclose(part[::-1], together[user], rtol=0, atol=1e-10)
        alone = [scorer.score(histories[user], [item_id], **options)[0] for item_id in candidates[user]]
        np.testing.assert_allclose(alone, together[user], rtol=0, atol=1e-10)


def test_items_that_share_a_semantic_id_score_alike():
    catalog = catalog_of([[0, 1], [2, 1], [0, 1], [0, 1]])
    for method in ("joint", "catalog"):
        scores = scorer_of(2, torch.float32).score(["1"], ["0", "2", "3", "0"], catalog=catalog, method=method)
        assert len(set(scores)) == 1


def test_an_only_item_is_certain():
    assert scorer_of(3).score(["0"], ["0"], catalog=catalog_of([[1, 2, 3]])) == pytest.approx([0.0])


@pytest.mark.parametrize("strategy", ["tree", "naive"])
def test_a_history_longer_than_the_context_loses_its_oldest_items(strategy):
    catalog = random_catalog(20)
    scorer = RecBaseScorer(scorer_of(3).model, tokenizer_of(3), strategy=strategy)
    long = [str(row) for row in range(10)]
    assert scorer.max_history == 3
    np.testing.assert_array_equal(
        scorer.score(long, ["11", "12"], catalog=catalog), scorer.score(long[-3:], ["11", "12"], catalog=catalog)
    )


def test_a_context_of_one_item_leaves_no_room_for_a_history():
    catalog, scorer = random_catalog(20), new_scorer(max_position_embeddings=4)
    assert scorer.max_history == 0
    expected = scorer.score([], ["4", "5"], catalog=catalog)
    np.testing.assert_array_equal(scorer.score(["1", "2"], ["4", "5"], catalog=catalog), expected)
    session = scorer.session(["1"], catalog=catalog)
    session.append("2")
    np.testing.assert_array_equal(session.score(["4", "5"]), expected)


def test_nobody_and_no_candidates_have_no_scores():
    catalog, scorer = random_catalog(20), scorer_of(3)
    assert scorer.score(["1"], [], catalog=catalog).shape == (0,)
    assert scorer.score_levels(["1"], [], catalog=catalog, alpha=0.5).shape == (0, 3)
    assert [part.shape for part in scorer.score([["1"], []], [[], []], catalog=catalog)] == [(0,), (0,)]


def test_histories_and_candidates_come_as_any_sequence_but_not_as_one_string():
    import pandas as pd

    catalog, scorer = random_catalog(20), scorer_of(3)
    expected = scorer.score(["2", "3"], ["1"], catalog=catalog)
    for history in (pd.Series([2, 3], index=[7, 9]), np.array([2, 3]), ("2", 3)):
        np.testing.assert_array_equal(scorer.score(history, ("1",), catalog=catalog), expected)
    for history, candidates in (("2", ["1"]), (["2"], "1"), ([["2"], "3"], [["1"], ["1"]]), ([["2"]], ["1"])):
        with pytest.raises(TypeError, match=r"not the single string '[123]'"):
            scorer.score(history, candidates, catalog=catalog)


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("history", "candidates"), [(["1", "no-such"], ["2"]), (["1"], ["2", "no-such"])])
def test_an_unknown_item_is_named(history, candidates):
    with pytest.raises(UnknownItemError, match="item 'no-such' is not in the catalog of 20 items"):
        scorer_of(3).score(history, candidates, catalog=random_catalog(20))


def test_a_catalog_of_another_tokenizer_is_refused_by_every_verb():
    catalog, scorer = random_catalog(20), scorer_of(3)
    other = RecBaseScorer(scorer.model, make_tokenizer(3, 4, seed=1))
    for call in (
        lambda: other.score(["1"], ["2"], catalog=catalog),
        lambda: other.recommend(["1"], 2, catalog=catalog),
        lambda: other.session(["1"], catalog=catalog),
    ):
        with pytest.raises(FingerprintMismatchError, match="catalog"):
            call()


@pytest.mark.parametrize("strategy", ["tree", "naive"])
def test_nan_weights_are_reported_by_every_verb(strategy):
    catalog, damaged = random_catalog(20), new_scorer()
    damaged.model.model.norm.weight.data[0] = float("nan")
    scorer = RecBaseScorer(damaged.model, damaged.tokenizer, strategy=strategy)
    for call in (
        lambda: scorer.score(["1"], ["2"], catalog=catalog),
        lambda: scorer.score(["1"], ["2"], catalog=catalog, method="joint", alpha=0.5),
        lambda: scorer.recommend(["1"], 2, catalog=catalog),
        lambda: scorer.recommend(["1"], 2, catalog=catalog, search="beam"),
    ):
        with pytest.raises(ValueError, match="NaN"):
            call()


@pytest.mark.parametrize("strategy", ["tree", "naive"])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"method": "cosine"}, "method is 'cosine'; it must be one of joint, catalog"),
        ({"alpha": -0.1}, "alpha is -0.1; it must be between 0 and 1"),
        ({"alpha": 1.5}, "alpha is 1.5; it must be between 0 and 1"),
        ({"alpha": float("nan")}, "alpha is nan; it must be between 0 and 1"),
    ],
)
def test_wrong_options_are_named_by_every_verb(strategy, options, complaint):
    catalog = random_catalog(20)
    scorer = RecBaseScorer(scorer_of(3).model, tokenizer_of(3), strategy=strategy)
    with pytest.raises(ValueError, match=complaint):
        scorer.score(["1"], ["2"], catalog=catalog, **options)
    with pytest.raises(ValueError, match=complaint):
        scorer.recommend(["1"], 2, catalog=catalog, **options)
    with pytest.raises(ValueError, match=complaint):
        scorer.session(["1"], catalog=catalog).score(["2"], **options)


def test_numbers_of_lists_that_differ_are_refused():
    with pytest.raises(ValueError, match="2 histories but 1 candidate lists"):
        scorer_of(3).score([["1"], []], [["2"]], catalog=random_catalog(20))


def test_parts_that_do_not_belong_together_are_refused():
    scorer = scorer_of(3)
    with pytest.raises(ValueError, match="strategy is 'guess'; it must be one of tree, naive"):
        RecBaseScorer(scorer.model, scorer.tokenizer, strategy="guess")
    with pytest.raises(ValueError, match="they do not belong together"):
        RecBaseScorer(scorer.model, make_tokenizer(3, 64))


@pytest.mark.parametrize("row", [-1, 20])
def test_rows_outside_the_catalog_are_refused(row):
    inside, outside = [np.array([0])], [np.array([row])]
    for histories, candidates in ((inside, outside), (outside, inside)):
        with pytest.raises(IndexError, match=str(row)):
            scorer_of(3).score_rows(histories, candidates, catalog=random_catalog(20))


# ---- the model remains an ordinary one -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def before_and_after():
    """A model, and a copy that a scorer has used."""
    scorer = new_scorer(dtype=torch.float32)
    before = copy.deepcopy(scorer.model)
    before.set_attn_implementation("sdpa")
    catalog = random_catalog(20)
    with limits(3, 2):
        scorer.score(["1"], ["2", "3"], catalog=catalog, alpha=0.5)
        scorer.recommend(["1"], 3, catalog=catalog)
    return before, scorer


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_scored_model_trains_as_before(before_and_after, padding):
    before, scorer = before_and_after
    torch.manual_seed(0)
    ids, mask = torch.randint(1, 14, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, slice(0, 4) if padding == "left" else slice(5, 9)] = 0
    results = []
    for model in (before, scorer.model):
        model.train().zero_grad()
        output = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
        output.loss.backward()
        results.append([output.logits, *(weight.grad for weight in model.parameters())])
        model.eval()
    for left, right in zip(*results, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "top_k": 5}])
def test_a_scored_model_generates_as_before(before_and_after, options):
    before, scorer = before_and_after
    ids = torch.tensor([[0, 0, 13, 1, 5, 9], [13, 2, 6, 10, 4, 8]])
    generated = []
    for model in (before, scorer.model):
        torch.manual_seed(0)
        generated.append(model.generate(ids, attention_mask=(ids > 0).long(), max_new_tokens=5, **options))
    assert torch.equal(*generated)


def test_a_checkpoint_of_a_scored_model_says_nothing_of_our_attention(before_and_after, tmp_path):
    _, scorer = before_and_after
    scorer.save_pretrained(tmp_path / "bundle")
    scorer.model.save_pretrained(tmp_path / "model")
    for folder in ("bundle", "model"):
        config = (tmp_path / folder / "config.json").read_text()
        assert "recbase_tree" not in config
        assert json.loads(config)["architectures"] == ["Qwen2ForCausalLM"]
