"""Interactions, shared out over files by user: whatever needs a user's whole history can then take one file at a time.

Every step writes files beside and renames them, and skips those that are there: after an interruption it goes on.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.blocks import TableBlocks, TimeColumn
from recbase_hf.data.histories import Histories, group_events
from recbase_hf.data.id_index import IdIndex, TextRows, hash_texts
from recbase_hf.errors import DataError, UnknownItemError
from recbase_hf.files import atomic_file, atomic_folder
from recbase_hf.progress import progress
from recbase_hf.share import Share

__all__ = ["ROWS_A_PARTITION", "UserEvents", "group_partitions", "partition_by_user"]

logger = logging.getLogger(__name__)

ROWS_A_PARTITION = 1 << 21
"""Interactions in a file, about."""


class UserEvents:
    """The histories of the users of one partition, as they were written: users by number, without their names.

    Attributes:
        hashes: (users,) uint64, of the user ids.
        histories: rows of the item table that have a semantic ID; users of one item and more.
        dropped: events whose item has no semantic ID.
        repeated: events with an item that the user had before, which count once.
    """

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()
        self.hashes: np.ndarray = table["hash"].to_numpy()
        lists = table["items"].chunk(0) if table["items"].num_chunks == 1 else table["items"].combine_chunks()
        offsets = lists.offsets.to_numpy().astype(np.int64) if len(lists) else np.zeros(1, np.int64)
        items = lists.values.to_numpy().astype(np.int64) if len(lists) else np.zeros(0, np.int64)
        self.histories = Histories(self.hashes, offsets - offsets[0], items)
        self.dropped, self.repeated = (int(table.schema.metadata[name]) for name in (b"dropped", b"repeated"))

    @staticmethod
    def write(path: Path, histories: Histories, *, dropped: int, repeated: int) -> None:
        """Write histories, whole or not at all."""
        columns = {
            "hash": pa.array(hash_texts(pa.array(histories.users.tolist(), pa.large_string()))),
            "items": pa.LargeListArray.from_arrays(histories.offsets, histories.items.astype(np.int32)),
        }
        _write_arrow(
            path, pa.table(columns).replace_schema_metadata({"dropped": str(dropped), "repeated": str(repeated)})
        )


def partition_by_user(
    interactions: TableBlocks,
    item_ids: IdIndex,
    folder: Path,
    *,
    times: TimeColumn,
    unordered_events: Literal["error", "drop"] = "error",
    share: Share,
) -> int:
    """Share positive events out over files, all of a user's into the same one; returns how many files there are.

    Args:
        item_ids: of the item table.
        folder: for the files, `block-00000/00000.arrow` and so on.
        times: of `time_column`.
        unordered_events: what to do with events without a place in time when others have one.
        share: every process reads its own blocks.

    Raises:
        UnknownItemError: an item is not in the item table; says where.
        DataError: a place in time is missing; says where.
    """
    count = max(1, -(-interactions.num_rows // ROWS_A_PARTITION))
    bar = progress(share.mine(range(len(interactions))), description="events by user", unit=" blocks")
    for block in bar:
        target = folder / f"block-{block:05d}"
        if target.exists():
            continue
        events = _positive_events(interactions, block, item_ids, times, drop=unordered_events == "drop")
        parts = (hash_texts(events["user_id"]) % np.uint64(count)).astype(np.int64)
        order = np.argsort(parts, kind="stable")
        ends = np.cumsum(np.bincount(parts, minlength=count))
        events = events.take(pa.array(order))
        with atomic_folder(target) as temporary:
            for part, end in enumerate(ends.tolist()):
                start = int(ends[part - 1]) if part else 0
                _write_arrow(temporary / f"{part:05d}.arrow", events.slice(start, end - start))
    share.wait()
    return count


def group_partitions(
    folder: Path,
    count: int,
    has_code: np.ndarray,
    *,
    times: TimeColumn,
    item_ids: pa.Array,
    seed: int,
    share: Share,
) -> list[Path]:
    """The partitions of `partition_by_user` as histories, a `UserEvents` file each.

    Args:
        folder: that of the partitions; `users-00000.arrow` and so on come beside them.
        count: of partitions.
        has_code: (items,) bool; events of other items are dropped.
        times: as the partitions were written.
        item_ids: (items,) text, for the shuffle where no order is known.
        seed: of that shuffle.
        share: every process takes its own partitions.
    """
    paths = [folder / f"users-{part:05d}.arrow" for part in range(count)]
    new_rows = np.where(has_code, np.arange(len(has_code)), -1)
    for part in progress(share.mine(range(count)), description="histories", unit=" partitions"):
        if paths[part].exists():
            continue
        events = _read_partition(folder, part)
        histories = group_events(
            events["user_id"],
            events["item"].to_numpy().astype(np.int64),
            len(has_code),
            times=events["time"].to_numpy() if times in ("order", "timestamp") else None,
            shuffled_ids=TextRows(item_ids) if times == "unknown" else None,
            seed=seed,
        )
        kept = histories.map_items(new_rows)
        UserEvents.write(
            paths[part],
            kept.select(np.flatnonzero(kept.lengths)),
            dropped=len(histories.items) - len(kept.items),
            repeated=len(events) - len(histories.items),
        )
    share.wait()
    return paths


def _positive_events(
    interactions: TableBlocks, block: int, item_ids: IdIndex, times: TimeColumn, *, drop: bool
) -> pa.Table:
    """Columns `user_id`, `item` (int32, row of the item table) and, where there are times, `time`."""
    there = interactions.column_names
    timed = times if times in ("order", "timestamp") else None
    columns = ["user_id", "item_id", *(name for name in ("label", timed) if name in there)]
    table = interactions.read(block, columns)
    rows = np.arange(table.num_rows)
    if "label" in columns:
        rows = rows[pc.fill_null(pc.equal(table["label"], 1), True).to_numpy()]
    first_row = interactions.ranges[block].start + 1
    items = item_ids.find(table["item_id"].take(rows))
    unknown = items < 0
    if unknown.any():
        row = rows[np.argmax(unknown)]
        raise UnknownItemError(
            f"{interactions.name}, row {first_row + row}: item {table['item_id'][int(row)].as_py()!r} is not in the "
            f"item table ({unknown.sum():,} events with such items in this block of rows); add the items to the item "
            "table, or leave these events out: recbase data from-csv with --log and --items does, and says how many"
        )
    if timed is not None:
        valid = pc.is_valid(table[timed].take(rows)).to_numpy()
        if not valid.all() and not drop:
            raise DataError(
                f"{interactions.name}, row {first_row + rows[np.argmin(valid)]}, column {timed!r}: missing, as in "
                f"{(~valid).sum():,} events, while others have one; fill it in, remove the column, or drop these "
                "events (--unordered-events drop, or unordered_events='drop')"
            )
        if not valid.all():
            logger.warning("dropped %d events: they have no value in the column %r", (~valid).sum(), timed)
        rows, items = rows[valid], items[valid]
    events = {"user_id": table["user_id"].take(rows), "item": pa.array(items.astype(np.int32))}
    if timed is not None:
        events["time"] = table[timed].take(rows)
    return pa.table(events).combine_chunks()


def _read_partition(folder: Path, part: int) -> pa.Table:
    tables = []
    for path in sorted(folder.glob(f"block-*/{part:05d}.arrow")):
        with pa.memory_map(str(path)) as file:
            tables.append(pa.ipc.open_stream(file).read_all())
    return pa.concat_tables(tables, promote_options="permissive")  # times are whole in one block and not in another


def _write_arrow(path: Path, table: pa.Table) -> None:
    with (
        atomic_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
