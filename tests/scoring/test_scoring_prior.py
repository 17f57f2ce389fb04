"""Scores under an empty history are computed once for a catalog, and anew once the weights are others."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf import RecBaseScorer
from scoring.small_catalogs import catalogs, items_of, methods, new_scorer, random_catalog, scorer_of


@pytest.fixture
def scorer():
    return new_scorer()


def forwards_of(scorer, call) -> int:
    """How often the decoder runs."""
    calls = []
    handle = scorer.model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    try:
        call()
    finally:
        handle.remove()
    return len(calls)


@given(data=st.data(), catalog=catalogs(), method=methods, alpha=st.floats(0, 1))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_alpha_takes_that_share_of_the_score_under_an_empty_history_off(data, catalog, method, alpha):
    scorer, options = scorer_of(catalog.trie.num_levels), {"catalog": catalog, "method": method}
    history, candidates = (data.draw(items_of(catalog, max_size=5)) for _ in range(2))
    plain, of_empty = (scorer.score_levels(past, candidates, **options) for past in (history, []))
    found = scorer.score_levels(history, candidates, alpha=alpha, **options)
    np.testing.assert_allclose(found, plain - alpha * of_empty, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "call",
    [
        lambda scorer, **options: scorer.score(["1", "2"], ["3", "4", "5"], **options),
        lambda scorer, **options: scorer.recommend(["1", "2"], 3, **options),
        lambda scorer, **options: scorer.session(["1"], catalog=options.pop("catalog")).score(["3", "4"], **options),
    ],
)
@pytest.mark.parametrize("method", ["joint", "catalog"])
def test_the_prior_is_computed_once_and_kept_with_the_catalog(scorer, call, method):
    catalog = random_catalog(30)
    first = forwards_of(scorer, lambda: call(scorer, catalog=catalog, method=method, alpha=0.5))
    again = forwards_of(scorer, lambda: call(scorer, catalog=catalog, method=method, alpha=0.5))
    assert first > again
    other_alpha = forwards_of(scorer, lambda: call(scorer, catalog=catalog, method=method, alpha=0.4))
    assert other_alpha <= again + 1  # other scores may leave other nodes to be visited
    same_model = RecBaseScorer(scorer.model, scorer.tokenizer)
    assert forwards_of(scorer, lambda: call(same_model, catalog=catalog, method=method, alpha=0.5)) == again
    assert forwards_of(scorer, lambda: call(scorer, catalog=random_catalog(30), method=method, alpha=0.5)) == first


def test_without_alpha_there_is_no_prior(scorer):
    catalog = random_catalog(30)
    scorer.recommend(["1"], 3, catalog=catalog)
    scorer.score(["1"], ["2"], catalog=catalog)
    assert len(catalog.priors) == 0


def test_only_what_is_asked_for_is_computed(scorer):
    catalog = random_catalog(30)

    def score(*candidates):
        return forwards_of(scorer, lambda: scorer.score(["1"], candidates, catalog=catalog, method="joint", alpha=0.5))

    few = score("3")
    assert score("3") == few // 2  # the history alone, and not the empty one too
    assert score("4") == few
    assert score("3", "4") < few


def change_in_place(model):
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)


def train_one_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.tensor([[13, 1, 5, 9]]), labels=torch.tensor([[13, 1, 5, 9]])).loss.backward()
    optimizer.step()


def load_into(model):
    model.load_state_dict(new_scorer(seed=1).model.state_dict())


def exchange(model):
    model.load_state_dict(new_scorer(seed=1).model.state_dict(), assign=True)
    model.tie_weights()


@pytest.mark.parametrize("change", [change_in_place, train_one_step, load_into, exchange, torch.nn.Module.float])
@pytest.mark.parametrize("method", ["joint", "catalog"])
def test_the_prior_is_computed_anew_after_weights_changed(scorer, change, method):
    catalog, options = random_catalog(30), {"method": method, "alpha": 1.0}
    before = scorer.score(["1"], catalog.item_ids, catalog=catalog, **options)
    change(scorer.model)
    after = scorer.score(["1"], catalog.item_ids, catalog=catalog, **options)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, scorer.score(["1"], catalog.item_ids, catalog=random_catalog(30), **options))
    found = scorer.recommend(["1"], 9, catalog=catalog, **options)
    assert found == scorer.recommend(["1"], 9, catalog=random_catalog(30), **options)


def test_priors_of_earlier_weights_are_not_kept(scorer):
    catalog = random_catalog(30)
    for _ in range(3):
        for method in ("joint", "catalog"):
            scorer.score(["1"], ["2"], catalog=catalog, method=method, alpha=0.5)
        change_in_place(scorer.model)
    assert [len(kept) for kept in catalog.priors.values()] == [2]


def test_a_model_made_in_inference_mode_has_a_prior_too():
    with torch.inference_mode():
        scorer = new_scorer()
    catalog = random_catalog(30)
    expected = new_scorer().score(["1"], ["2", "3"], catalog=random_catalog(30), alpha=0.5)
    np.testing.assert_array_equal(scorer.score(["1"], ["2", "3"], catalog=catalog, alpha=0.5), expected)


def test_a_catalog_that_was_scored_can_be_copied(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    before = scorer.score(["item-3"], ["item-5"], catalog=world.catalog, alpha=0.5)
    copied = copy.deepcopy(world.catalog)
    np.testing.assert_array_equal(scorer.score(["item-3"], ["item-5"], catalog=copied, alpha=0.5), before)
