"""Leave-last-out holds out the last item, draws fair negatives and keeps what is held out from training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.small_sequences import make_histories, sequences_of
from recbase_hf.evaluation.protocols import leave_last_out

NUM_ITEMS = 12
sequences = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=10), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(sequences, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_every_user_gets_the_last_item_and_distinct_items_that_are_not_theirs(
    sequences: list[list[int]], num_negatives: int, max_history: int, seed: int
) -> None:
    options = {"num_negatives": num_negatives, "max_history": max_history, "seed": seed}
    histories = make_histories(sequences)
    usable = [
        user for user, items in enumerate(sequences) if len(items) >= 2 and NUM_ITEMS - len(set(items)) >= num_negatives
    ]
    if not usable:
        with pytest.raises(ValueError, match="users can be evaluated"):
            leave_last_out(histories, NUM_ITEMS, **options)
        return

    task = leave_last_out(histories, NUM_ITEMS, **options)
    assert task.users.tolist() == [f"u{user}" for user in usable]
    assert (task.candidates.dtype, task.labels.dtype, task.offsets.dtype) == (np.int64, np.int8, np.int64)
    training = sequences_of(task.training)
    assert len(training) == len(sequences)
    for row, user in enumerate(usable):
        *before, last = sequences[user]
        rows = slice(task.offsets[row], task.offsets[row + 1])
        candidates, labels = task.candidates[rows], task.labels[rows]
        assert task.histories[row].tolist() == before[-max_history:]
        assert training[f"u{user}"] == before
        assert candidates[labels == 1].tolist() == [last]
        negatives = set(candidates[labels == 0].tolist())
        assert len(negatives) == num_negatives
        assert negatives <= set(range(NUM_ITEMS)) - set(sequences[user])
    assert task.settings["users_too_short"] + task.settings["users_without_negatives"] == len(sequences) - len(usable)


def test_the_draw_of_a_seed_does_not_change() -> None:
    task = leave_last_out(make_histories([[0, 1, 2], [3, 4], [5], [6, 7, 8, 9]]), 30, max_users=2, seed=7)
    assert task.users.tolist() == ["u1", "u3"]
    assert task.candidates.tolist() == [19, 1, 24, 17, 4, 22, 24, 9, 5, 11]


def test_negatives_and_the_place_of_the_positive_are_uniform() -> None:
    users, num_items = 20_000, 9
    task = leave_last_out(make_histories([[4, 1, 7]] * users), num_items, num_negatives=3)
    shares = np.bincount(task.candidates[task.labels == 0], minlength=num_items) / users
    np.testing.assert_allclose(shares, [0.0 if item in (1, 4, 7) else 0.5 for item in range(num_items)], atol=0.02)
    np.testing.assert_allclose(task.labels.reshape(users, 4).mean(axis=0), 0.25, atol=0.02)


def test_a_sample_of_users_leaves_the_others_in_training() -> None:
    histories = make_histories([[0, 1, 2]] * 30 + [[3]])
    task = leave_last_out(histories, 10, max_users=7, seed=3)
    lengths = {user: len(items) for user, items in sequences_of(task.training).items()}
    assert {user for user, length in lengths.items() if length == 2} == set(task.users.tolist())
    assert len(lengths) == 31
    assert task.users.tolist() != leave_last_out(histories, 10, max_users=7, seed=4).users.tolist()


def test_nobody_left_says_why() -> None:
    with pytest.raises(ValueError, match=r"none of 2 users .* 1 have fewer than 2 events .* 1 have fewer than 4 of"):
        leave_last_out(make_histories([[1], [0, 1]]), 5)
    with pytest.raises(ValueError, match="items 0 to 9, but num_items is 5"):
        leave_last_out(make_histories([[0, 9]]), 5)
    with pytest.raises(ValueError, match="num_negatives is 0"):
        leave_last_out(make_histories([[0, 1]]), 5, num_negatives=0)
