"""Histories equal what a plain loop over the interactions would build."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.data.histories import Histories, build_histories
from recbase_hf.errors import DataError, UnknownItemError

Rows = list[dict[str, Any]]
ITEMS = ["d", "b", "a", "c"]


def as_dict(histories: Histories) -> dict[str, list[int]]:
    return {user: histories[u].tolist() for u, user in enumerate(histories.users)}


def naive_histories(rows: Rows) -> dict[str, list[int]]:
    """The definition, one row at a time, for tables with a known order and every policy set to drop."""
    time = next((name for name in ("order", "timestamp") if any(row.get(name) is not None for row in rows)), None)
    found: dict[str, list[int]] = {}
    for row in rows if time is None else sorted((row for row in rows if row[time] is not None), key=lambda r: r[time]):
        if row.get("label") == 0 or row["item_id"] not in ITEMS:
            continue
        history = found.setdefault(row["user_id"], [])
        if ITEMS.index(row["item_id"]) not in history:
            history.append(ITEMS.index(row["item_id"]))
    return {user: found[user] for user in sorted(found)}


numbers = {
    "order": st.none() | st.integers(-2, 5),
    "timestamp": st.none() | st.floats(0, 3, width=16),
    "label": st.sampled_from([None, 0, 1]),
}


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    columns = draw(st.sets(st.sampled_from(["order", "timestamp", "label"])))
    row = {"user_id": st.sampled_from(["u", "U", "é", "10", "9"]), "item_id": st.sampled_from([*ITEMS, "unknown"])}
    rows: Rows = draw(
        st.lists(st.fixed_dictionaries({**row, **{n: numbers[n] for n in sorted(columns)}}), min_size=1, max_size=30)
    )
    return rows


@given(tables())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_histories_equal_a_plain_loop(rows: Rows) -> None:
    built = as_dict(build_histories(rows, ITEMS, unknown_items="drop", unordered_events="drop"))
    timed = [name for name in ("order", "timestamp") if name in rows[0]]
    expected = naive_histories(rows)
    if timed and all(row[name] is None for row in rows for name in timed):  # shuffled: the same items in some order
        built, expected = ({user: sorted(items) for user, items in each.items()} for each in (built, expected))
    assert built == expected
    assert list(built) == sorted(built)


def events(count: int, user: str = "u", **columns: Any) -> Rows:
    return [{"user_id": user, "item_id": f"i{k}", **columns} for k in range(count)]


ITEM_IDS = [f"i{k}" for k in range(50)]


def test_order_goes_before_timestamp_and_ties_keep_the_order_of_the_table() -> None:
    rows: Rows = [
        {"user_id": "u", "item_id": item, "order": order, "timestamp": timestamp}
        for item, order, timestamp in [("a", 2, 1), ("b", 1, 9), ("c", 2, 0), ("a", 0, 5)]
    ]
    assert as_dict(build_histories(rows, list("abc"))) == {"u": [0, 1, 2]}
    for row in rows:
        row["order"] = None
    assert as_dict(build_histories(rows, list("abc"))) == {"u": [2, 0, 1]}


def test_without_time_columns_the_order_of_the_table_counts() -> None:
    assert build_histories(events(50)[::-1], ITEM_IDS)[0].tolist() == list(range(49, -1, -1))


def test_unknown_order_is_shuffled_by_seed_user_and_items_alone() -> None:
    ann, bob = events(50, "ann", order=None), events(50, "bob", order=None)
    both = as_dict(build_histories(ann + bob, ITEM_IDS))
    assert both["ann"] != both["bob"]
    assert sorted(both["ann"]) == list(range(50)) != both["ann"]
    assert as_dict(build_histories(ann[::-1], ITEM_IDS)) == {"ann": both["ann"]}
    assert as_dict(build_histories(ann + bob, ITEM_IDS, seed=1))["ann"] != both["ann"]
    moved = build_histories(ann, ITEM_IDS[::-1])[0]
    assert (49 - moved).tolist() == both["ann"]


def test_shuffle_puts_every_item_first_about_equally_often() -> None:
    rows = [row for user in range(2000) for row in events(4, str(user), timestamp=None)]
    histories = build_histories(rows, ITEM_IDS)
    starts = np.bincount(histories.items[histories.offsets[:-1]])
    ends = np.bincount(histories.items[histories.offsets[1:] - 1])
    assert abs(starts / 2000 - 0.25).max() < 0.05
    assert abs(ends / 2000 - 0.25).max() < 0.05


def test_unknown_items_are_named_or_dropped() -> None:
    rows = [*events(2), {"user_id": "u", "item_id": "nowhere"}]
    with pytest.raises(UnknownItemError, match=r"row 3: item 'nowhere' .* \(1 events .*unknown_items='drop'"):
        build_histories(rows, ITEM_IDS)
    assert as_dict(build_histories(rows, ITEM_IDS, unknown_items="drop")) == {"u": [0, 1]}


def test_dropped_events_are_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    rows: Rows = [{**row, "order": 1} for row in events(3)]
    build_histories(rows, ITEM_IDS, unknown_items="drop", unordered_events="drop")
    assert caplog.messages == []
    rows[1]["order"] = None
    rows += [{"user_id": "u", "item_id": "nowhere", "order": 2}]
    build_histories(rows, ITEM_IDS, unknown_items="drop", unordered_events="drop")
    assert caplog.messages == [
        "dropped 1 of 4 events: their item is not in the item table (unknown_items='drop')",
        "dropped 1 of 3 events: they have no value in the column 'order' (unordered_events='drop')",
    ]


@pytest.mark.parametrize("column", ["order", "timestamp"])
def test_events_without_a_place_in_time_are_named_or_dropped(column: str) -> None:
    rows: Rows = [{**row, column: 1} for row in events(3)]
    rows[1][column] = None
    with pytest.raises(DataError, match=f"row 2, column '{column}': missing, as in 1 events"):
        build_histories(rows, ITEM_IDS)
    assert as_dict(build_histories(rows, ITEM_IDS, unordered_events="drop")) == {"u": [0, 2]}
    rows[1]["label"] = 0
    assert as_dict(build_histories(rows, ITEM_IDS)) == {"u": [0, 2]}


def test_nothing_left_is_an_empty_histories() -> None:
    histories = build_histories(events(2, label=0), ITEM_IDS)
    assert (len(histories), histories.offsets.tolist(), histories.items.tolist()) == (0, [0], [])
    assert histories.items.dtype == histories.offsets.dtype == np.int64


def small() -> Histories:
    return Histories(np.array(["a", "b", "c"], object), np.array([0, 2, 2, 5]), np.array([3, 1, 0, 1, 2]))


def test_histories_are_a_sequence_of_views() -> None:
    histories = small()
    assert [histories[u].tolist() for u in range(3)] == [[3, 1], [], [0, 1, 2]]
    assert histories[-1].base is histories.items
    assert histories.lengths.tolist() == [2, 0, 3]
    with pytest.raises(IndexError):
        histories[3]
    with pytest.raises(ValueError, match="do not go with"):
        Histories(histories.users, histories.offsets[:-1], histories.items)


def test_select_takes_users_in_the_order_given() -> None:
    histories = small()
    assert as_dict(histories.select([2, 0])) == {"c": [0, 1, 2], "a": [3, 1]}
    assert as_dict(histories.select(histories.lengths > 2)) == {"c": [0, 1, 2]}
    assert as_dict(histories.select([])) == {}


def test_map_items_moves_and_drops() -> None:
    assert as_dict(small().map_items(np.array([5, -1, 7, -1]))) == {"a": [], "b": [], "c": [5, 7]}
