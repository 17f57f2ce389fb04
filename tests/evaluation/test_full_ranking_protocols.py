"""Protocols over the whole catalog: whose item is held out, what competes, and what training may see."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.small_sequences import make_histories, sequences_of
from recbase_hf.evaluation.protocols import leave_one_out, recgpt

SEQUENCES = [[0, 1, 2, 3], [4, 5], [3, 6, 3], [7]]


def test_leave_one_out_tests_on_the_last_and_validates_on_the_one_before() -> None:
    histories = make_histories(SEQUENCES)
    test, validation = leave_one_out(histories, 9), leave_one_out(histories, 9, split="validation")
    assert test.users.tolist() == validation.users.tolist() == ["u0", "u2"]
    assert (test.positives.tolist(), validation.positives.tolist()) == ([3, 3], [2, 6])
    assert [items.tolist() for items in test.histories] == [[0, 1, 2], [3, 6]]
    assert [items.tolist() for items in validation.histories] == [[0, 1], [3]]
    for task in (test, validation):
        assert sequences_of(task.training) == {"u0": [0, 1], "u1": [4, 5], "u2": [3], "u3": [7]}
    assert test.settings["users_too_short"] == 2


def test_excluded_items_are_all_that_a_user_had_but_the_positive() -> None:
    task = leave_one_out(make_histories(SEQUENCES), 9, exclude_history=True, max_history=1)
    assert [items.tolist() for items in task.histories] == [[2], [6]]
    assert task.excluded is not None
    assert [items.tolist() for items in task.excluded] == [[0, 1, 2], [6]]  # u2 had the positive before


def test_leave_one_out_refuses() -> None:
    with pytest.raises(ValueError, match="none of 1 users has 3 events"):
        leave_one_out(make_histories([[0, 1]]), 9)
    with pytest.raises(ValueError, match="split is 'train'; give one of test, validation"):
        leave_one_out(make_histories(SEQUENCES), 9, split="train")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="items 0 to 7, but num_items is 5"):
        leave_one_out(make_histories(SEQUENCES), 5)


def test_recgpt_tests_on_a_tenth_of_the_users_and_trains_on_the_others() -> None:
    histories = make_histories([[user % 7, 7, 8] for user in range(200)])
    task = recgpt(histories, 9, seed=1)
    assert len(task) == 20
    training = sequences_of(task.training)
    assert len(training) == 180
    assert not training.keys() & set(task.users.tolist())
    assert set(task.positives.tolist()) == {8}
    assert len(recgpt(histories, 9, seed=1, training_share=0.1).training) == 18
    assert task.users.tolist() == recgpt(histories, 9, seed=1).users.tolist()
    assert task.users.tolist() != recgpt(histories, 9, seed=2).users.tolist()


def test_cold_start_histories_have_one_to_three_events_and_the_next_one_is_held_out() -> None:
    sequences = [list(range(length)) for length in (2, 3, 4, 9)] * 200
    task = recgpt(make_histories(sequences), 9, cold_start=True, test_share=1.0)
    lengths = np.array([len(items) for items in task.histories])
    assert task.positives.tolist() == lengths.tolist()  # sequences count up from 0
    for sequence, longest in enumerate((1, 2, 3, 3)):
        counts = np.bincount(lengths[sequence::4], minlength=4)
        assert counts[0] == 0
        np.testing.assert_allclose(counts[1 : longest + 1] / 200, 1 / longest, atol=0.1)
    assert len(task.training) == 0


def test_recgpt_refuses() -> None:
    with pytest.raises(ValueError, match=r"none of 1 test users \(of 4\) has 2 events"):
        recgpt(make_histories([[1]] * 4), 9)
    with pytest.raises(ValueError, match="test_share is 0"):
        recgpt(make_histories(SEQUENCES), 9, test_share=0)
