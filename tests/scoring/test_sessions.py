"""A session gives what the scorer gives for the same history, however the history came about."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf import UnknownItemError
from scoring.small_catalogs import (
    MAX_HISTORY,
    alphas,
    assert_recommended,
    catalogs,
    items_of,
    limits,
    methods,
    random_catalog,
    scorer_of,
    some_limits,
)


@given(data=st.data(), catalog=catalogs(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_scores_after_any_appends_are_the_scorers(data, catalog, limits, method, alpha):
    scorer, options = scorer_of(catalog.trie.num_levels), {"method": method, "alpha": alpha}
    history = data.draw(items_of(catalog, max_size=MAX_HISTORY + 2))
    session = scorer.session(history, catalog=catalog)
    for item_id in [None, *data.draw(items_of(catalog, max_size=MAX_HISTORY + 2))]:
        if item_id is not None:
            session.append(item_id)
            history = [*history, item_id]
        if item_id is None or data.draw(st.booleans()):  # what is asked in between changes nothing
            candidates = data.draw(items_of(catalog, max_size=9))
            with limits:
                found = session.score(candidates, **options)
            expected = scorer.score(history, candidates, catalog=catalog, **options)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert session.history == history


@given(data=st.data(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_recommendations_are_the_scorers(data, limits, method, alpha):
    catalog, scorer = random_catalog(40), scorer_of(3)
    history = data.draw(st.lists(st.sampled_from(catalog.item_ids), max_size=6))
    kept = data.draw(st.integers(0, len(history)))
    session = scorer.session(history[:kept], catalog=catalog)
    for item_id in history[kept:]:
        session.append(item_id)
    options = {
        "method": method,
        "alpha": alpha,
        "exclude": data.draw(items_of(catalog, max_size=3)),
        "allowed": data.draw(st.none() | st.just(catalog.item_ids[:30])),
        "exclude_history": data.draw(st.booleans()),
        "mask": data.draw(st.none() | st.just(np.arange(40) % 7 > 0)),
        **data.draw(st.sampled_from([{}, {"search": "beam"}, {"search": "beam", "num_beams": 6}])),
    }
    with limits:
        found = session.recommend(6, **options)
    expected = scorer.recommend(history, 6, catalog=catalog, **options)
    assert_recommended(found, [(item.item_id, item.score) for item in expected], rtol=0, atol=1e-10)


def test_an_append_costs_one_forward_of_one_token_a_code_until_the_context_is_full():
    catalog, scorer = random_catalog(40), scorer_of(3)
    lengths = []
    handle = scorer.model.get_decoder().register_forward_pre_hook(
        lambda _, arguments, options: lengths.append((arguments[0] if arguments else options["input_ids"]).shape[1]),
        with_kwargs=True,
    )
    try:
        session = scorer.session(["1"], catalog=catalog)
        for item_id in ("2", "3", "4", "5"):
            session.append(item_id)
    finally:
        handle.remove()
    assert lengths == [4, 3, 3, 10, 10]


def test_two_sessions_do_not_disturb_each_other():
    catalog, scorer = random_catalog(40), scorer_of(3)
    first, second = scorer.session(["1"], catalog=catalog), scorer.session(["1"], catalog=catalog)
    before = second.score(["3", "4"])
    first.append("2")
    first.recommend(3)
    np.testing.assert_array_equal(second.score(["3", "4"]), before)
    assert (first.history, second.history) == (["1", "2"], ["1"])


def test_a_session_in_float32_follows_the_scorer():
    catalog, scorer = random_catalog(40), scorer_of(3, torch.float32)
    session = scorer.session([], catalog=catalog)
    for row in range(6):
        session.append(str(row))
        history = [str(past) for past in range(row + 1)]
        with limits(3, 1):
            found = session.score(catalog.item_ids)
        np.testing.assert_allclose(
            found, scorer.score(history, catalog.item_ids, catalog=catalog), rtol=1e-5, atol=1e-5
        )


def test_an_unknown_item_leaves_the_session_as_it_was():
    catalog, scorer = random_catalog(40), scorer_of(3)
    with pytest.raises(UnknownItemError, match="'no-such'"):
        scorer.session(["1", "no-such"], catalog=catalog)
    session = scorer.session(["1"], catalog=catalog)
    before = session.score(["2", "3"])
    with pytest.raises(UnknownItemError, match="'no-such'"):
        session.append("no-such")
    with pytest.raises(UnknownItemError, match="'no-such'"):
        session.score(["no-such"])
    assert session.history == ["1"]
    np.testing.assert_array_equal(session.score(["2", "3"]), before)


def test_a_session_takes_one_list_of_items():
    catalog, scorer = random_catalog(40), scorer_of(3)
    with pytest.raises(TypeError, match="not the single string '12'"):
        scorer.session("12", catalog=catalog)
    with pytest.raises(TypeError, match="not the single string '12'"):
        scorer.session(["1"], catalog=catalog).score("12")
