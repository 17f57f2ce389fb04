"""Leave-last-out holds out the last item, draws fair negatives and does not give the positive away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.protocol import CandidateSet, leave_last_out

NUM_ITEMS = 12
sequences = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=10), min_size=1, max_size=8)


def make_histories(sequences: list[list[int]]) -> Histories:
    users = np.array([f"u{user}" for user in range(len(sequences))], dtype=object)
    offsets = np.cumsum([0, *map(len, sequences)])
    return Histories(users, offsets, np.array([item for items in sequences for item in items], dtype=np.int64))


def assert_same(left: CandidateSet, right: CandidateSet) -> None:
    assert left.users.tolist() == right.users.tolist()
    assert [rows.tolist() for rows in left.histories] == [rows.tolist() for rows in right.histories]
    np.testing.assert_array_equal(left.candidates, right.candidates)
    np.testing.assert_array_equal(left.labels, right.labels)
    assert left.settings == right.settings


@settings(max_examples=60, deadline=None)
@given(sequences, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_every_user_gets_the_last_item_and_distinct_items_that_are_not_theirs(
    sequences: list[list[int]], num_negatives: int, max_history: int, seed: int
) -> None:
    def usable(items: list[int]) -> bool:
        return len(items) >= 2 and NUM_ITEMS - len(set(items)) >= num_negatives

    options = {"num_negatives": num_negatives, "max_history": max_history, "seed": seed}
    histories = make_histories(sequences)
    expected = [user for user, items in enumerate(sequences) if usable(items)]
    if not expected:
        with pytest.raises(ValueError, match="users can be evaluated"):
            leave_last_out(histories, NUM_ITEMS, **options)
        return

    candidate_set = leave_last_out(histories, NUM_ITEMS, **options)
    assert candidate_set.users.tolist() == [f"u{user}" for user in expected]
    assert candidate_set.candidates.shape == (len(expected), num_negatives + 1)
    assert candidate_set.candidates.dtype == np.int64
    assert candidate_set.labels.dtype == np.int8
    for row, user in enumerate(expected):
        *before, last = sequences[user]
        candidates, labels = candidate_set.candidates[row], candidate_set.labels[row]
        assert candidate_set.histories[row].tolist() == before[-max_history:]
        assert candidates[labels == 1].tolist() == [last]
        negatives = set(candidates[labels == 0].tolist())
        assert len(negatives) == num_negatives
        assert negatives <= set(range(NUM_ITEMS)) - set(sequences[user])
    counted = candidate_set.settings["users_too_short"] + candidate_set.settings["users_without_negatives"]
    assert counted == len(sequences) - len(expected)
    assert_same(candidate_set, leave_last_out(histories, NUM_ITEMS, **options))


def test_negatives_and_the_place_of_the_positive_are_uniform() -> None:
    users, num_items = 20_000, 9
    candidate_set = leave_last_out(make_histories([[4, 1, 7]] * users), num_items, num_negatives=3)
    negatives = candidate_set.candidates[candidate_set.labels == 0]
    shares = np.bincount(negatives, minlength=num_items) / users
    np.testing.assert_allclose(shares, [0.0 if item in (1, 4, 7) else 0.5 for item in range(num_items)], atol=0.02)
    np.testing.assert_allclose(candidate_set.labels.mean(axis=0), 0.25, atol=0.02)


def test_all_pairs_of_negatives_are_equally_likely() -> None:
    users = 20_000
    candidate_set = leave_last_out(make_histories([[0, 2]] * users), 6, num_negatives=2)
    pairs = np.sort(candidate_set.candidates[candidate_set.labels == 0].reshape(users, 2), axis=1)
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    np.testing.assert_allclose(counts / users, [1 / 6] * 6, atol=0.02)


def test_a_sample_of_users_keeps_their_order_and_its_size() -> None:
    histories = make_histories([[0, 1, 2]] * 30 + [[3]])
    candidate_set = leave_last_out(histories, 10, max_users=7, seed=3)
    positions = [int(user[1:]) for user in candidate_set.users]
    assert len(candidate_set) == candidate_set.settings["num_users"] == 7
    assert positions == sorted(set(positions))
    assert leave_last_out(histories, 10, max_users=7, seed=4).users.tolist() != candidate_set.users.tolist()
    assert len(leave_last_out(histories, 10, max_users=500)) == 30


def test_left_out_users_are_counted_by_reason() -> None:
    candidate_set = leave_last_out(make_histories([[], [1], [0, 1, 2, 3], [0, 1]]), 6, num_negatives=3)
    assert candidate_set.users.tolist() == ["u3"]
    assert candidate_set.settings["users_too_short"] == 2
    assert candidate_set.settings["users_without_negatives"] == 1


def test_nobody_left_says_why() -> None:
    with pytest.raises(ValueError, match=r"none of 2 users .* 1 have fewer than 2 events .* 1 have fewer than 4 of"):
        leave_last_out(make_histories([[1], [0, 1]]), 5)
    with pytest.raises(ValueError, match="none of 0 users"):
        leave_last_out(make_histories([]), 5)


def test_items_beyond_the_catalog_and_empty_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="items 0 to 9, but num_items is 5"):
        leave_last_out(make_histories([[0, 9]]), 5)
    with pytest.raises(ValueError, match="num_negatives is 0"):
        leave_last_out(make_histories([[0, 1]]), 5, num_negatives=0)


def test_parts_of_different_sizes_are_refused() -> None:
    candidates = np.zeros((2, 3), dtype=np.int64)
    with pytest.raises(ValueError, match="one of each a user"):
        CandidateSet(np.array(["a"], object), [np.arange(2)], candidates, np.zeros((2, 3), np.int8))
    with pytest.raises(ValueError, match=r"labels \(2, 2\)"):
        CandidateSet(np.array(["a", "b"], object), [np.arange(2)] * 2, candidates, np.zeros((2, 2), np.int8))
