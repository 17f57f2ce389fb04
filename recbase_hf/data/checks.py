"""Looks over anybody's own two tables before any work is put into them, and says what to do about each finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.table_sources import arrow_table
from recbase_hf.data.tables import read_interactions, read_items
from recbase_hf.errors import DataError

__all__ = ["Finding", "check_tables"]

_MILLISECONDS = 1e11
"""Seconds since 1970 stay below it until the year 5138; milliseconds are above it since 1973."""


@dataclass(frozen=True)
class Finding:
    """One thing about the tables.

    Attributes:
        level: `error` stops training and evaluation, `warning` loses something, `note` is worth knowing.
        message: what, where, and the fix.
    """

    level: Literal["error", "warning", "note"]
    message: str


def check_tables(folder: str | Path) -> list[Finding]:
    """Everything that is worth saying about a folder in the two-table form.

    Raises:
        FileNotFoundError: a table is missing.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "items.csv").write_text("item_id,title\\na,Chess\\n")
    >>> _ = (folder / "interactions.csv").write_text("user_id,item_id\\nann,a\\nann,b\\n")
    >>> print(*(finding.level for finding in check_tables(folder)))
    error note
    """
    try:
        items = arrow_table(read_items(folder))
        interactions = arrow_table(read_interactions(folder))
    except DataError as error:
        return [Finding("error", str(error))]
    return [*_unknown_items(items, interactions), *_times(interactions), *_repeats(interactions), *_facts(interactions)]


def _unknown_items(items: pa.Table, interactions: pa.Table) -> Iterator[Finding]:
    known = pc.is_in(interactions["item_id"], value_set=items["item_id"].combine_chunks())
    unknown = interactions.filter(pc.invert(known))["item_id"]
    if len(unknown):
        row = pc.index(known, False).as_py() + 1
        yield Finding(
            "error",
            f"interactions, row {row}: item {unknown[0].as_py()!r} is not in the item table, nor are those of "
            f"{len(unknown) - 1:,} other rows ({pc.count_distinct(unknown).as_py():,} items); add the items, or leave "
            "these rows out",
        )
    used = pc.is_in(items["item_id"], value_set=interactions["item_id"].combine_chunks())
    unused = items.num_rows - pc.sum(used).as_py()
    if unused:
        yield Finding("note", f"{unused:,} of {items.num_rows:,} items have no interaction; they can be recommended")


def _times(interactions: pa.Table) -> Iterator[Finding]:
    names = interactions.column_names
    if "timestamp" not in names:
        if "order" not in names:
            yield Finding("note", "there is neither `timestamp` nor `order`; the order of the rows counts as history")
        return
    times = interactions["timestamp"]
    negative = pc.fill_null(pc.less(times, 0), False)
    if pc.any(negative).as_py():
        yield Finding(
            "error",
            f"interactions, row {pc.index(negative, True).as_py() + 1}, column 'timestamp': "
            f"{pc.filter(times, negative)[0].as_py()} is before 1970; write seconds since 1970, or leave it empty",
        )
    late = pc.fill_null(pc.greater(times, _MILLISECONDS), False)
    if pc.any(late).as_py():
        first = pc.index(late, True).as_py() + 1
        if pc.all(pc.or_(late, pc.is_null(times))).as_py():
            yield Finding("note", "the timestamps look like milliseconds; only their order is used, so that is fine")
        else:
            yield Finding(
                "error",
                f"interactions, row {first}, column 'timestamp': {times[first - 1].as_py()} looks like milliseconds, "
                "others like seconds; use one unit, or histories come out of order",
            )
    missing = times.null_count
    if missing and "order" not in names:
        yield Finding(
            "warning", f"{missing:,} of {len(times):,} interactions have no timestamp; see --unordered-events"
        )


def _repeats(interactions: pa.Table) -> Iterator[Finding]:
    keys = [name for name in ("user_id", "item_id", "timestamp", "order") if name in interactions.column_names]
    distinct = interactions.group_by(keys).aggregate([]).num_rows
    if distinct < interactions.num_rows:
        yield Finding(
            "warning",
            f"{interactions.num_rows - distinct:,} of {interactions.num_rows:,} interactions repeat another one in "
            f"{', '.join(keys)}; drop them if they are no events of their own",
        )


def _facts(interactions: pa.Table) -> Iterator[Finding]:
    counts = interactions.group_by("user_id").aggregate([("item_id", "count")])["item_id_count"]
    single = pc.sum(pc.equal(counts, 1)).as_py() or 0
    if single:
        yield Finding("note", f"{single:,} of {len(counts):,} users have a single interaction and are never evaluated")
    names = interactions.column_names
    if "label" in names and not pc.any(pc.fill_null(pc.equal(interactions["label"], 1), True)).as_py():
        yield Finding("error", "no interaction has the label 1; 1 is liked, 0 is not, empty counts as liked")
