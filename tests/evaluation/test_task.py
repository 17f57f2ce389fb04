"""A task refuses parts that do not belong together, and says whose they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation.small_sequences import make_histories
from recbase_hf.evaluation.task import CandidateTask, CatalogTask

USERS = np.array(["ann", "bob"], object)


def candidate_task(**changes: Any) -> CandidateTask:
    parts: dict[str, Any] = {
        "users": USERS,
        "histories": [np.array([0, 1]), np.array([], np.int64)],
        "candidates": np.array([2, 3, 4]),
        "labels": np.array([1, 0, 1], np.int8),
        "offsets": np.array([0, 2, 3]),
        "training": make_histories([[0, 1]]),
        "num_items": 5,
    }
    return CandidateTask(**(parts | changes))


def catalog_task(**changes: Any) -> CatalogTask:
    parts: dict[str, Any] = {
        "users": USERS,
        "histories": [np.array([0]), np.array([1])],
        "positives": np.array([2, 3]),
        "training": make_histories([[0]]),
        "num_items": 5,
    }
    return CatalogTask(**(parts | changes))


def test_rows_are_found_by_user() -> None:
    task = candidate_task()
    assert len(task) == 2
    assert [rows.tolist() for rows in task.candidates_of(0, 2)] == [[2, 3], [4]]
    assert [rows.tolist() for rows in task.candidates_of(1, 2)] == [[4]]
    assert task.user_of_row.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"histories": [np.array([0])]}, "2 users, but 1 histories"),
        ({"histories": [np.array([0]), np.array([9])]}, "user 'bob': the history holds item 9.* rows 0 to 4"),
        ({"candidates": np.array([2, 3, -1])}, "user 'bob': the list of candidates holds item -1"),
        ({"labels": np.array([1, 0], np.int8)}, r"labels \(2,\); both must be \(rows,\)"),
        ({"labels": np.array([1, 0, 2], np.int8)}, "labels row 2 is 2"),
        ({"offsets": np.array([0, 3])}, "offsets must be 3 numbers from 0 to 3"),
        ({"offsets": np.array([0, 3, 3])}, "user 'bob' has no candidates"),
        ({"training": make_histories([[7]])}, "training holds items 7 to 7, but num_items is 5"),
    ],
)
def test_candidate_tasks_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        candidate_task(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positives": np.array([2])}, r"positives have shape \(1,\); give one item for each of 2"),
        ({"positives": np.array([2, 5])}, "user 'bob': the held-out part holds item 5"),
        ({"excluded": [np.array([0])]}, "1 lists of excluded items"),
        ({"excluded": [np.array([0]), np.array([8])]}, "user 'bob': the list of excluded items holds item 8"),
        ({"excluded": [np.array([0, 2]), np.array([1])]}, "user 'ann': the held-out item 2 is among the excluded"),
    ],
)
def test_catalog_tasks_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalog_task(**changes)
