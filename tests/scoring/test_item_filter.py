"""What may not be recommended is not, and nothing else is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recbase_hf import UnknownItemError
from scoring.small_catalogs import (
    alphas,
    assert_recommended,
    best_by_brute_force,
    catalogs,
    histories_of,
    items_of,
    methods,
    random_catalog,
    scorer_of,
    some_limits,
)


def allowed_by_brute_force(catalog, histories, *, allowed, exclude, exclude_history, mask) -> np.ndarray:
    """(users, items) bool."""
    table = np.ones((len(histories), len(catalog)), dtype=bool)
    for user, history in enumerate(histories):
        is_one_a_user = [bool(part) and isinstance(part[0], list) for part in (allowed, exclude)]
        for row, item_id in enumerate(catalog.item_ids):
            if allowed is not None:
                table[user, row] &= item_id in (allowed[user] if is_one_a_user[0] else allowed)
            table[user, row] &= item_id not in (exclude[user] if is_one_a_user[1] else exclude)
            table[user, row] &= not (exclude_history and item_id in history)
    return table if mask is None else table & mask


@st.composite
def filters(draw, catalog, num_users):
    """For all or for each user, ids that repeat, masks for all or for each user; each may be left out."""
    of_all = items_of(catalog, max_size=6)
    of_each = st.lists(of_all, min_size=num_users, max_size=num_users)
    rows = st.lists(st.booleans(), min_size=len(catalog), max_size=len(catalog))
    tables = st.lists(rows, min_size=num_users, max_size=num_users)
    allowed_of_all = items_of(catalog, max_size=20)
    return {
        "allowed": draw(st.none() | allowed_of_all | st.lists(allowed_of_all, min_size=num_users, max_size=num_users)),
        "exclude": draw(of_all | of_each),
        "exclude_history": draw(st.booleans()),
        "mask": draw(st.none() | (rows | tables).map(lambda mask: np.array(mask, dtype=bool))),
    }


@given(data=st.data(), catalog=catalogs(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_all_filters_together_leave_what_a_brute_force_filter_leaves(data, catalog, limits, method, alpha):
    scorer, options = scorer_of(catalog.trie.num_levels), {"catalog": catalog, "method": method, "alpha": alpha}
    histories = data.draw(histories_of(catalog, max_users=3))
    chosen = data.draw(filters(catalog, len(histories)))
    table = allowed_by_brute_force(catalog, histories, **chosen)
    assume(table.any(axis=1).all())
    k = data.draw(st.integers(1, int(table.sum(axis=1).min())))
    search = data.draw(st.sampled_from([{}, {"search": "beam", "num_beams": 60}]))
    with limits:
        found = scorer.recommend(histories, k, **options, **chosen, **search)
    for history, is_allowed, part in zip(histories, table, found, strict=True):
        expected = best_by_brute_force(scorer, history=history, is_allowed=is_allowed, **options)
        assert_recommended(part, expected[:k], rtol=0, atol=1e-10)


@given(data=st.data(), limits=some_limits, method=methods, alpha=alphas)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_pruning_knows_the_filters(data, limits, method, alpha):
    catalog, scorer = random_catalog(60), scorer_of(3)
    histories = data.draw(histories_of(catalog, max_users=3))
    best_first = [item.item_id for item in scorer.recommend(histories[0], 60, catalog=catalog, exclude_history=False)]
    exclude = best_first[: data.draw(st.integers(0, 50))]  # what the model likes best
    table = allowed_by_brute_force(catalog, histories, allowed=None, exclude=exclude, exclude_history=True, mask=None)
    options = {"catalog": catalog, "method": method, "alpha": alpha}
    with limits:
        found = scorer.recommend(histories, 2, exclude=exclude, **options)
    for history, is_allowed, part in zip(histories, table, found, strict=True):
        expected = best_by_brute_force(scorer, history=history, is_allowed=is_allowed, **options)
        assert_recommended(part, expected[:2], rtol=0, atol=1e-10)


@pytest.mark.parametrize("search", ["exact", "beam"])
def test_one_item_left_is_found(search):
    catalog, scorer = random_catalog(60), scorer_of(3)
    for item_id in ("0", "17", "59"):
        others = [other for other in catalog.item_ids if other != item_id]
        for only in ({"allowed": [item_id]}, {"exclude": others}, {"mask": np.array(catalog.item_ids) == item_id}):
            (found,) = scorer.recommend([], 1, catalog=catalog, search=search, **only)
            assert found.item_id == item_id


def test_items_of_the_history_beyond_the_context_are_excluded_too():
    catalog, scorer = random_catalog(12), scorer_of(3)
    found = scorer.recommend([str(row) for row in range(9)], 3, catalog=catalog)
    assert {item.item_id for item in found} == {"9", "10", "11"}


def test_exclusions_come_as_any_iterable():
    catalog, scorer = random_catalog(12), scorer_of(3)
    expected = scorer.recommend(["1"], 9, catalog=catalog, exclude=["2", "3"])
    for exclude in ({"2", "3"}, (row for row in (2, 3)), np.array(["2", "3"]), [["2", "3"]]):
        assert scorer.recommend(["1"], 9, catalog=catalog, exclude=exclude) == expected


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["allowed", "exclude"])
@pytest.mark.parametrize("search", ["exact", "beam"])
def test_ids_that_do_not_fit_are_refused(name, search):
    catalog, scorer = random_catalog(12), scorer_of(3)

    def recommend(ids):
        scorer.recommend([["1"], ["2"]], 1, catalog=catalog, search=search, **{name: ids})

    for ids in (["1", "no-such"], [["1"], ["no-such"]]):
        with pytest.raises(UnknownItemError, match="item 'no-such' is not in the catalog"):
            recommend(ids)
    with pytest.raises(ValueError, match=f"{name} has 3 lists for 2 histories"):
        recommend([["1"], ["2"], ["3"]])
    for ids in ("1", [["1"], "1"]):
        with pytest.raises(TypeError, match="not the single string '1'"):
            recommend(ids)


@pytest.mark.parametrize(
    "mask",
    [
        np.ones(11, dtype=bool),
        np.ones((1, 12), dtype=bool),
        np.ones((3, 12), dtype=bool),
        np.ones((2, 12, 1), dtype=bool),
        np.ones(12, dtype=np.int64),
        np.ones((2, 12)),
        [1] * 12,
    ],
)
def test_a_mask_of_another_shape_or_type_is_refused(mask):
    with pytest.raises(ValueError, match=r"it must be bool of shape \(12,\).*or \(2, 12\)"):
        scorer_of(3).recommend([["1"], ["2"]], 1, catalog=random_catalog(12), mask=mask)


def test_the_user_to_whom_too_few_items_remain_is_named():
    catalog, scorer = random_catalog(12), scorer_of(3)
    allowed = [catalog.item_ids, ["1", "2", "2", "5"]]
    with pytest.raises(ValueError, match="k is 3, but 2 of the catalog's 12 items remain to recommend to history 1"):
        scorer.recommend([["9"], ["2"]], 3, catalog=catalog, allowed=allowed)
    with pytest.raises(ValueError, match="k is 1, but 0 of the catalog's 12 items remain to recommend"):
        scorer.recommend(["9"], 1, catalog=catalog, mask=np.zeros(12, dtype=bool))
