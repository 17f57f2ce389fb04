"""Reads interactions and impressions the way RecBench's protocol needs them: sorted, labeled, in rows of a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.histories import Histories
from recbase_hf.data.table_sources import Origin, TableSource, arrow_table, load_table
from recbase_hf.data.tables import read_interactions
from recbase_hf.errors import DataError
from recbase_hf.evaluation.protocols.recbench_rules import RecBenchRules

__all__ = ["Events", "Impressions", "grouped", "read_events", "read_impressions"]


class Events(NamedTuple):
    """Interactions with known items and a label, by user and then by time.

    users: (U,) object, ascending. user: (n,) int64, positions in `users`. item: (n,) int64, rows of the catalog.
    label: (n,) int8. unknown_items: how many events were left out because the catalog lacks their item.
    """

    users: np.ndarray
    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    unknown_items: int

    @property
    def liked(self) -> Histories:
        """What each user liked, oldest first."""
        liked = self.label == 1
        return grouped(self.users, self.user[liked], self.item[liked])


class Impressions(NamedTuple):
    """What each user was shown, all impressions together.

    histories: of the first impression that has one. user, item: (n,) int64, positions in `histories` and rows of the
    catalog, by user. label: (n,) int8. unknown_items: how many shown items were left out because the catalog lacks
    them. ready_made: whether the table is a published test set, whose candidates are drawn already.
    """

    histories: Histories
    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    unknown_items: int
    ready_made: bool


def grouped(users: np.ndarray, user: np.ndarray, item: np.ndarray) -> Histories:
    """The items of each user. `user`: (n,) int64, ascending positions in `users`; `item`: (n,) int64."""
    return Histories(users, np.searchsorted(user, np.arange(len(users) + 1)), item)


_BEST_RATING = 5


def read_events(interactions: TableSource, item_ids: Sequence[str], rules: RecBenchRules) -> Events:
    """Interactions as events.

    Raises:
        DataError: there is no time, or nothing that tells liked from disliked items though the rules ask for it.
    """
    table = arrow_table(read_interactions(interactions))
    labels = _labels(table, rules)
    rows = np.flatnonzero(labels >= 0)
    items = _rows_of(table["item_id"].take(pa.array(rows)), item_ids)
    known = items >= 0
    unknown_items = int((~known).sum())
    rows, items = rows[known], items[known]
    times = _times(table, rows, rules)
    users, user = _sorted_names(table["user_id"].take(pa.array(rows)))
    by_time = np.lexsort((times, user))
    events = Events(users, user[by_time], items[by_time], labels[rows][by_time], unknown_items)
    return events if rules.keep_repeats else _first_events(events)


def read_impressions(impressions: TableSource, item_ids: Sequence[str]) -> Impressions:
    """A table of impressions: `user_id`, `history`, `candidates` and `labels` (lists), and maybe `split`.

    Raises:
        DataError: a column is missing, candidates and labels differ in number, or no split is called test.
    """
    table, origin = load_table(impressions, "impressions")
    wanted = ["user_id", "history", "candidates", "labels"]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise DataError(f"{origin.name}: no column {missing[0]!r}; the columns are {table.column_names}")
    ready_made = "split" in table.column_names
    if ready_made:
        table = _test_split(table, origin)
    _require_as_many_labels(table, origin)
    users, user = _sorted_names(table["user_id"].cast(pa.large_string()))
    shown_in, shown = _exploded(table["candidates"], item_ids)
    label = _flat_labels(table, origin)
    known = shown >= 0
    by_user = np.flatnonzero(known)[np.argsort(user[shown_in[known]], kind="stable")]
    return Impressions(
        histories=_first_histories(users, user, *_exploded(table["history"], item_ids)),
        user=user[shown_in[by_user]],
        item=shown[by_user],
        label=label[by_user],
        unknown_items=int((~known).sum()),
        ready_made=ready_made,
    )


def _labels(table: pa.Table, rules: RecBenchRules) -> np.ndarray:
    """(rows,) int8: 1 liked, 0 disliked, -1 neither."""
    if rules.kind != "rated":
        if "label" not in table.column_names:
            return np.ones(table.num_rows, np.int8)
        return pc.fill_null(table["label"], 1).to_numpy().astype(np.int8)
    column = rules.label_from
    if column not in table.column_names:
        raise DataError(
            f"interactions: no column {column!r}, which RecBench's rules for {rules.data_set} tell liked from disliked "
            f"items by; the columns are {table.column_names}. Add it, or take rules of the kind 'implicit'"
        )
    if column == "label":
        labels = pc.fill_null(table["label"], 1).to_numpy().astype(np.int8)
    else:
        ratings = table["rating"].to_numpy()  # missing ones become nan, which is neither above nor below
        if np.nanmax(ratings, initial=-np.inf) > _BEST_RATING:
            raise DataError(
                f"interactions, column 'rating': ratings go up to {np.nanmax(ratings):g}, but RecBench's rules for "
                f"{rules.data_set} are of 1 to {_BEST_RATING}, with {rules.neutral_rating:g} for neither liked nor "
                "disliked; scale them to that, or write a column 'label' and take rules with label_from 'label'"
            )
        above, below = ratings > rules.neutral_rating, ratings < rules.neutral_rating
        labels = np.where(above, 1, np.where(below, 0, -1)).astype(np.int8)
    for label, word in ((1, "liked"), (0, "disliked")):
        if not (labels == label).any():
            raise DataError(
                f"interactions, column {column!r}: no item is {word}, and RecBench's rules for {rules.data_set} rank "
                "liked above disliked ones; take rules of the kind 'implicit', or another neutral_rating"
            )
    return labels


def _times(table: pa.Table, rows: np.ndarray, rules: RecBenchRules) -> np.ndarray:
    """The place in time of `rows`, (rows,) numbers."""
    there = [name for name in ("order", "timestamp") if name in table.column_names]
    filled = [name for name in there if table[name].null_count < table.num_rows]
    if not filled:
        lack = f"the column {there[0]!r} is empty" if there else "there is neither a column 'order' nor 'timestamp'"
        raise DataError(
            f"interactions: {lack}, and RecBench's rules for {rules.data_set} hold out a user's last items; "
            "fill in 'order' with the place of each event among those of its user"
        )
    times = table[filled[0]].take(pa.array(rows))
    if times.null_count:
        row = rows[np.argmax(pc.is_null(times).to_numpy())]
        raise DataError(
            f"interactions, row {row + 1}, column {filled[0]!r}: missing, as in {times.null_count} events, while "
            "others have one; fill it in, or leave these events out"
        )
    return times.to_numpy()


def _first_events(events: Events) -> Events:
    """Without a user's repeated events with one item."""
    _, first = np.unique(events.user * (events.item.max(initial=0) + 1) + events.item, return_index=True)
    first.sort()
    return events._replace(user=events.user[first], item=events.item[first], label=events.label[first])


def _sorted_names(ids: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ids, (U,) object, ascending, and the position of each row's id among them, (rows,) int64."""
    encoded = pc.dictionary_encode(ids.combine_chunks())
    ascending = pc.array_sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(ascending), np.int64)
    rank[ascending] = np.arange(len(ascending))
    names = np.empty(len(ascending), object)
    names[:] = encoded.dictionary.take(pa.array(ascending)).to_pylist()
    return names, rank[encoded.indices.to_numpy()]


def _rows_of(ids: pa.Array | pa.ChunkedArray, item_ids: Sequence[str]) -> np.ndarray:
    """The row of each item in the catalog, (n,) int64, -1 where it is not there."""
    found = pc.index_in(ids.cast(pa.large_string()), value_set=pa.array(item_ids, pa.large_string()))
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _exploded(lists: pa.ChunkedArray, item_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of each element its list and its row in the catalog, both (elements,) int64; missing lists have none."""
    array = lists.combine_chunks()
    parents = pc.list_parent_indices(array).to_numpy(zero_copy_only=False).astype(np.int64)
    return parents, _rows_of(pc.list_flatten(array), item_ids)


def _test_split(table: pa.Table, origin: Origin) -> pa.Table:
    test = table.filter(pc.equal(table["split"], "test"))
    if not test.num_rows:
        splits = sorted(set(table["split"].to_pylist()))
        raise DataError(f"{origin.name}: no row has the split 'test', only {splits}; RecBench only trains on this data")
    return test


def _require_as_many_labels(table: pa.Table, origin: Origin) -> None:
    lengths = [pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy() for name in ("candidates", "labels")]
    wrong = np.flatnonzero(lengths[0] != lengths[1])
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{origin.row(row + 1)}: {lengths[0][row]} candidates, but {lengths[1][row]} labels; give one a candidate"
        )


def _flat_labels(table: pa.Table, origin: Origin) -> np.ndarray:
    """(elements,) int8."""
    lists = table["labels"].combine_chunks()
    labels = pc.list_flatten(lists)
    wrong = np.flatnonzero(
        ~pc.fill_null(pc.is_in(labels, value_set=pa.array([0, 1], labels.type)), False).to_numpy(False)
    )
    if len(wrong):
        row = pc.list_parent_indices(lists)[int(wrong[0])].as_py()
        raise DataError(f"{origin.row(row + 1)}: the label {labels[int(wrong[0])].as_py()!r} is neither 0 nor 1")
    return labels.to_numpy(zero_copy_only=False).astype(np.int8)


def _first_histories(users: np.ndarray, user: np.ndarray, row: np.ndarray, item: np.ndarray) -> Histories:
    """The history of each user's first impression that has known items in it.

    user: (impressions,) int64. row, item: (elements,) int64, the impression and the item of each element.
    """
    row, item = row[item >= 0], item[item >= 0]
    rows = np.unique(row)
    _, first = np.unique(user[rows], return_index=True)
    kept = np.isin(row, rows[first])
    row, item = row[kept], item[kept]
    by_user = np.argsort(user[row], kind="stable")
    return grouped(users, user[row[by_user]], item[by_user])
