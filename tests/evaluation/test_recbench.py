"""RecBench's protocol takes the right items as history, positives and negatives, and says what it lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evaluation.small_sequences import sequences_of
from recbase_hf.errors import DataError
from recbase_hf.evaluation.protocols import RECBENCH, RecBenchRules, recbench, recbench_rules, rules_by_columns
from recbase_hf.evaluation.task import CandidateTask

ITEMS = [f"i{item}" for item in range(30)]
RATED, IMPLICIT, SHOWN = (RecBenchRules(kind=kind) for kind in ("rated", "implicit", "impressions"))


def log(user: str, *ratings: float | None) -> list[dict[str, Any]]:
    """A user rates items i0, i1, ... in this order; None leaves one out."""
    return [
        {"user_id": user, "item_id": f"i{item}", "rating": float(rating), "timestamp": item}
        for item, rating in enumerate(ratings)
        if rating is not None
    ]


def candidates(task: CandidateTask, user: int, label: int) -> list[int]:
    rows = slice(task.offsets[user], task.offsets[user + 1])
    return sorted(task.candidates[rows][task.labels[rows] == label].tolist())


def test_rated_users_keep_both_labels_and_threes_are_left_out() -> None:
    events = log("ann", 1, 5, 3, 4, 2, 5, 5)
    events += log("likes all", 5, 5, 5, 5) + log("dislikes all", 1, 1) + log("too short", 5, 5, 1)
    task = recbench(events, ITEMS, RATED)
    assert task.users.tolist() == ["ann"]
    assert task.histories[0].tolist() == [1, 3]
    assert candidates(task, 0, 1) == [5, 6]
    assert candidates(task, 0, 0) == [0, 4]
    assert task.settings["users_of_one_label"] == 2
    assert task.settings["users_too_short"] == 1
    assert sequences_of(task.training) == {"likes all": [0, 1, 2, 3], "too short": [0, 1], "ann": [1, 3]}


def test_negatives_of_any_time_can_be_switched_off() -> None:
    events = log("ann", 1, 5, 2, 4, 2, 5, 5, 1) + log("bob", 1, 5, 5, 5)
    task = recbench(events, ITEMS, replace(RATED, negatives_of_any_time=False))
    assert task.users.tolist() == ["ann"]
    assert candidates(task, 0, 0) == [4, 7]
    assert task.settings["users_without_negatives"] == 1


def test_at_most_ten_of_each_label_are_drawn_at_random() -> None:
    ratings = [5.0, *([1.0] * 25), 5.0, 5.0]
    drawn = [candidates(recbench(log("ann", *ratings), ITEMS, RATED, seed=seed), 0, 0) for seed in range(2)]
    assert [len(items) for items in drawn] == [10, 10]
    assert drawn[0] != drawn[1]
    assert len(candidates(recbench(log("ann", *ratings), ITEMS, RECBENCH["HotelRec"]), 0, 0)) == 25


def test_users_are_walked_until_there_are_rows_enough() -> None:
    events = [event for user in range(50) for event in log(f"u{user:02}", 5, 1, 5, 5)]  # three candidates each
    task = recbench(events, ITEMS, replace(RATED, rows=20))
    assert len(task) == 7
    assert task.settings["num_rows"] == 21
    assert task.settings["users_not_reached"] == 43
    assert task.users.tolist() == sorted(task.users.tolist())
    assert task.users.tolist() != recbench(events, ITEMS, replace(RATED, rows=20), seed=1).users.tolist()
    training = sequences_of(task.training)
    assert len(training) == 50
    assert {user for user, items in training.items() if len(items) == 1} == set(task.users.tolist())


def test_histories_are_cut_to_the_newest_twenty() -> None:
    events = log("ann", 1, *([5] * 27))
    assert recbench(events, ITEMS, RATED).histories[0].tolist() == list(range(6, 26))
    rules = replace(RATED, max_history=200, history_kept=22)
    assert recbench(events, ITEMS, rules).histories[0].tolist() == list(range(4, 26))


def test_implicit_negatives_are_outside_all_items_of_the_user() -> None:
    ordered = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "order": item} for user in range(300) for item in range(24)
    ]
    task = recbench(ordered, ITEMS, IMPLICIT)
    assert {tuple(candidates(task, user, 1)) for user in range(len(task))} == {(22, 23)}
    assert set(task.candidates[task.labels == 0].tolist()) == {24, 25, 26, 27, 28, 29}
    assert np.diff(task.offsets).tolist() == [4] * len(task)
    assert task.settings["candidates_in_history"] == 0

    others = [{"user_id": "z", "item_id": item, "order": 0} for item in ("i24", "i29")]
    compressed = recbench(ordered + others, ITEMS, replace(IMPLICIT, compress_catalog=True))
    assert set(compressed.candidates[compressed.labels == 0].tolist()) == {24, 29}


def test_users_without_enough_other_items_are_left_out() -> None:
    events = [{"user_id": "all", "item_id": f"i{item}", "order": item} for item in range(5)]
    events += [{"user_id": "some", "item_id": f"i{item}", "order": item} for item in range(3)]
    task = recbench(events, ITEMS[:5], IMPLICIT)
    assert task.users.tolist() == ["some"]
    assert task.settings["users_without_negatives"] == 1
    with pytest.raises(ValueError, match=r"nobody can be evaluated.*users_without_negatives 2"):
        recbench(events, ITEMS[:5], replace(IMPLICIT, negatives=3))


def test_repeats_stay_and_candidates_in_the_history_are_counted() -> None:
    again = [{"user_id": "ann", "item_id": item, "order": place} for place, item in enumerate(["i0", "i1", "i2", "i0"])]
    task = recbench(again, ITEMS, IMPLICIT)
    assert (task.histories[0].tolist(), candidates(task, 0, 1)) == ([0, 1], [0, 2])
    assert task.settings["candidates_in_history"] == 1
    once = recbench(again, ITEMS, replace(IMPLICIT, keep_repeats=False))
    assert (once.histories[0].tolist(), candidates(once, 0, 1)) == ([0], [1, 2])


def impression(user: str, history: str, shown: str, split: str | None = None) -> dict[str, Any]:
    """`shown` is written `i1-1 i2-0`: items with labels."""
    pairs = [pair.split("-") for pair in shown.split()]
    row: dict[str, Any] = {
        "user_id": user,
        "history": history.split(),
        "candidates": [item for item, _ in pairs],
        "labels": [int(label) for _, label in pairs],
    }
    return row if split is None else row | {"split": split}


CLICKS = [{"user_id": "ann", "item_id": "i9", "timestamp": 5}, {"user_id": "zoe", "item_id": "i8", "timestamp": 6}]


def test_impressions_of_a_user_go_together_under_the_first_history() -> None:
    shown = [
        impression("bob", "", "i1-1 i2-0"),
        impression("ann", "i0 gone i3", "i4-1 i5-0"),
        impression("ann", "i6", "i7-0 i3-1 gone-0"),
    ]
    task = recbench(CLICKS, ITEMS, SHOWN, impressions=shown)
    assert task.users.tolist() == ["ann"]
    assert task.histories[0].tolist() == [0, 3]
    assert (candidates(task, 0, 1), candidates(task, 0, 0)) == ([3, 4], [5, 7])
    assert task.settings["users_without_history"] == 1
    assert task.settings["unknown_items"] == 1
    assert task.settings["candidates_in_history"] == 1
    assert sequences_of(task.training) == {"zoe": [8], "ann": [0, 3]}  # not the click of ann

    kept = recbench(CLICKS, ITEMS, replace(SHOWN, keep_users_without_history=True), impressions=shown)
    assert [items.tolist() for items in kept.histories] == [[0, 3], []]


def test_a_published_test_set_is_taken_as_it_is() -> None:
    many = " ".join(f"i{item}-0" for item in range(1, 25))
    shown = [impression("ann", "i0", f"{many} i25-1", "test"), impression("bob", "i0", "i1-1 i2-0", "finetune")]
    task = recbench(CLICKS, ITEMS, SHOWN, impressions=pa.Table.from_pylist(shown))
    assert task.users.tolist() == ["ann"]
    assert len(task.candidates) == 25
    assert task.settings["ready_made"]
    with pytest.raises(DataError, match=r"no row has the split 'test', only \['finetune'\]"):
        recbench(CLICKS, ITEMS, SHOWN, impressions=shown[1:])


@pytest.mark.parametrize(
    ("events", "rules", "message"),
    [
        (CLICKS, RATED, "no column 'rating', which RecBench's rules for custom tell liked from disliked items by"),
        (log("ann", 5, 5), RATED, "column 'rating': no item is disliked"),
        ([{"user_id": "ann", "item_id": "i1"}], IMPLICIT, "neither a column 'order' nor 'timestamp'"),
        ([{"user_id": "ann", "item_id": "i1", "timestamp": None}], IMPLICIT, "the column 'timestamp' is empty"),
        (
            [*CLICKS, {"user_id": "ann", "item_id": "i1", "timestamp": None}],
            IMPLICIT,
            "row 3, column 'timestamp': missing",
        ),
        (CLICKS, SHOWN, "need a table of impressions"),
    ],
)
def test_what_the_data_lacks_is_named(events: list[dict[str, Any]], rules: RecBenchRules, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recbench(events, ITEMS, rules)


def test_broken_impressions_are_refused() -> None:
    broken = [impression("ann", "i0", "i1-1") | {"labels": [1, 0]}]
    with pytest.raises(DataError, match="row 1: 1 candidates, but 2 labels"):
        recbench(CLICKS, ITEMS, SHOWN, impressions=broken)
    with pytest.raises(DataError, match="row 1: the label 7 is neither 0 nor 1"):
        recbench(CLICKS, ITEMS, SHOWN, impressions=[impression("ann", "i0", "i1-7")])
    with pytest.raises(DataError, match="no column 'labels'"):
        recbench(CLICKS, ITEMS, SHOWN, impressions=[{"user_id": "a", "history": ["i0"], "candidates": ["i1"]}])


def test_rules_are_found_by_name_and_by_columns() -> None:
    assert recbench_rules("goodreads").label_from == "label"
    assert len(RECBENCH) == 17
    assert [name for name, rules in RECBENCH.items() if rules.kind == "impressions"] == ["MIND", "EB-NeRD", "PENS"]
    with pytest.raises(ValueError, match="no data set 'Movie Lens'; did you mean 'MovieLens'"):
        recbench_rules("Movie Lens")
    with pytest.raises(ValueError, match="positives is 0"):
        RecBenchRules(positives=0)
    assert rules_by_columns(log("ann", 5, 1)).label_from == "rating"
    assert rules_by_columns(log("ann", 5, 3)).kind == "implicit"
    assert rules_by_columns(CLICKS, has_impressions=True).kind == "impressions"
    labeled = [{"user_id": "ann", "item_id": "i1", "label": label} for label in (0, 1)]
    assert rules_by_columns(labeled).label_from == "label"
