"""Training, validation and test parts of a data set, by user or by time, and the check that nothing leaks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbase_hf.data.blocks import TableBlocks, interaction_blocks, item_blocks, time_column
from recbase_hf.data.histories import group_events
from recbase_hf.data.id_index import IdIndex, TextRows, hash_texts, mix
from recbase_hf.data.table_sources import find_table
from recbase_hf.errors import DataError, LeakageError, UnknownItemError
from recbase_hf.files import atomic_folder, explained_full_disk, write_json
from recbase_hf.progress import progress

__all__ = ["PARTS", "Leakage", "find_leakage", "split_tables"]

PARTS = ("train", "validation", "test")

MILLISECONDS = 1e11
"""Seconds since 1970 stay below it until the year 5138; milliseconds are above it since 1973."""

_LISTED = 5
"""Leaked targets that are named."""


def split_tables(
    folder: str | Path,
    out: str | Path,
    *,
    by: Literal["user", "time"],
    validation_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> dict[str, Any]:
    """Split a data set into `out/train/NAME`, `out/validation/NAME` and `out/test/NAME`, each in the two-table form.

    By `user`, all events of a user are in one part; which, follows from the seed and the user's id alone. By `time`
    there are two moments: training has the events before the first. Validation has those before the second, of users
    who meet a new item between the two, so that the last item of each is one to be predicted and what comes before it
    is the history; test all events of users who meet a new item after the second. Events without a time are left out
    and counted; where a column `order` tells the place of all, they count as the oldest.

    Args:
        folder: a data set in the two-table form; vectors that lie beside the tables go along.
        out: folder for the parts. Vectors are links where the file system has them: write anew what you change.
        by: what divides.
        validation_share: of the users, or of the events.
        test_share: likewise.
        seed: of the users' draw.

    Returns:
        What `out/split.json` says: the settings, the moments, users and events of each part.

    Raises:
        DataError: a table cannot be used, there is no `timestamp` to split by, or a part is left empty.
        FileExistsError: `out` holds a split already.
        UnknownItemError: an event has an item that is not in the item table; says where.
        LeakageError: what is to be predicted in validation or test is in the training part, or there is nothing.
        ValueError: a share is out of range.
    """
    folder, out = Path(folder), Path(out)
    if min(validation_share, test_share) <= 0 or validation_share + test_share >= 1:
        raise ValueError(
            f"validation_share {validation_share} and test_share {test_share} must be above 0 and leave something to "
            "learn from"
        )
    if by not in ("user", "time"):
        raise ValueError(f"by is {by!r}; give user or time")
    for name in ("split.json", *PARTS):
        if (out / name).exists():
            raise FileExistsError(f"{out} holds {name} already; name another folder")
    interactions = interaction_blocks(folder)
    if not interactions.num_rows:
        raise DataError(f"{interactions.name}: the table has no rows")
    shares = np.cumsum([validation_share, test_share])
    facts: dict[str, Any] = {"data": folder.resolve().name, "by": by, "shares": [validation_share, test_share]}
    if by == "user":
        facts["seed"] = seed
        parts_of = impressions_of = _parts_by_user(shares, seed)
    else:
        moments, facts["without_time"], parts_of = _parts_by_time(interactions, shares)
        facts["validation_from"], facts["test_from"] = moments
        impressions_of = _impressions_by_time(moments)
    with explained_full_disk(out), atomic_folder(out) as work:
        targets = {part: work / part / folder.resolve().name for part in PARTS}
        for target in targets.values():
            target.mkdir(parents=True)
            _link_items(folder, target)
        _require_known_items(interactions, folder)
        blocks = progress(interactions, description="splitting", total=len(interactions), unit=" blocks")
        paths = [target / "interactions.parquet" for target in targets.values()]
        rows = _write_parts(blocks, _schema(interactions), parts_of, paths)
        for part, count in zip(PARTS, rows, strict=True):
            if not count:
                raise DataError(f"{folder}: the {part} part is empty; take other shares, or split by the other way")
        facts["interactions"] = dict(zip(PARTS, rows, strict=True))
        shown = _write_impressions(folder, impressions_of, list(targets.values()))
        if shown:
            facts["impressions"] = dict(zip(PARTS, shown, strict=True))
        for part in PARTS[1:]:
            leakage = find_leakage(targets["train"], targets[part])
            facts[f"users_to_predict_in_{part}"] = leakage.num_targets
            try:
                leakage.require_none(after_training=by == "time")
            except LeakageError as error:  # the folders that it names are gone by now
                raise LeakageError(f"{folder} is not split: {error}".replace(str(work), str(out))) from None
        write_json(work / "split.json", facts)
    return facts


@dataclass(frozen=True)
class Leakage:
    """What a model that learned from `train` already knows of what it is to predict in `test`.

    Attributes:
        train: folder.
        test: folder.
        num_targets: the last positive event of each user of `test` with a history.
        leaked: targets whose user and item meet in `train` too.
        examples: some of them, as (user, item).
        shared_users: users of `test` who are in `train`.
        earliest_target: the time of the first target, where there are times.
        later_events: events of `train` at or after it.
    """

    train: Path
    test: Path
    num_targets: int
    leaked: int
    examples: list[tuple[str, str]]
    shared_users: int
    earliest_target: float | None
    later_events: int

    def require_none(self, *, after_training: bool = False) -> None:
        """Raise where a target is known, or, for splits by time, where training goes on after the first target.

        Raises:
            LeakageError: says how many, which, and what to do; also where there is nothing to predict.
        """
        if not self.num_targets:
            raise LeakageError(
                f"no user of {self.test} has two events with items of its item table, so there is nothing to predict "
                "and nothing to check; take a larger share, or other data"
            )
        if self.leaked:
            named = ", ".join(f"user {user!r} with item {item!r}" for user, item in self.examples)
            raise LeakageError(
                f"{self.leaked:,} of {self.num_targets:,} events to predict in {self.test} are in {self.train} too: "
                f"{named}; figures on them would flatter. Take these users out of one, or split the data with recbase "
                "data split (by user, where `order` and `timestamp` say different things)"
            )
        if after_training and self.later_events:
            raise LeakageError(
                f"{self.later_events:,} events of {self.train} are not before {self.earliest_target:.0f}, when the "
                f"first event to predict in {self.test} happens: the model would know the future. Split again"
            )


def find_leakage(train: str | Path, test: str | Path) -> Leakage:
    """Look for what is to be predicted in one folder among the events of another.

    Args:
        train: folder with `interactions.*`, streamed.
        test: folder with `items.*` and `interactions.*`, whose events are held in memory.
    """
    train, test = Path(train), Path(test)
    users, items, times = _targets(test)
    wanted = np.sort(_pairs(users, items))
    found: list[tuple[str, str]] = []
    later = 0
    leaked: list[np.ndarray] = []
    known_users: list[np.ndarray] = []
    test_users = np.sort(np.unique(hash_texts(users)))
    earliest = float(np.nanmin(times)) if times is not None and not np.isnan(times).all() else None
    for table in interaction_blocks(train):
        hashes = hash_texts(table["user_id"])
        known_users.append(np.unique(hashes[_is_in(hashes, test_users)]))
        pairs = _pairs(table["user_id"], table["item_id"])
        leaks = np.flatnonzero(_is_in(pairs, wanted) & _positive(table))
        leaked.append(np.unique(pairs[leaks]))
        some = table.take(pa.array(leaks[: _LISTED - len(found)]))
        found += list(dict.fromkeys(zip(some["user_id"].to_pylist(), some["item_id"].to_pylist(), strict=True)))
        if earliest is not None and "timestamp" in table.column_names:
            later += int((_times(table) >= earliest).sum())
    shared, known = (len(np.unique(np.concatenate(parts))) if parts else 0 for parts in (known_users, leaked))
    return Leakage(train, test, len(users), known, found, shared, earliest, later)


# ---- who is in which part --------------------------------------------------------------------------------------------


def _parts_by_user(shares: np.ndarray, seed: int) -> Callable[[pa.Table], list[np.ndarray]]:
    """From a block to its rows of each part, (rows,) bool."""

    def parts_of(table: pa.Table) -> list[np.ndarray]:
        numbers = mix(mix(hash_texts(table["user_id"])) + np.uint64(seed)) / 2.0**64
        validation, test = numbers < shares[0], (numbers >= shares[0]) & (numbers < shares[1])
        return [~validation & ~test, validation, test]

    return parts_of


def _parts_by_time(
    interactions: TableBlocks, shares: np.ndarray
) -> tuple[tuple[float, float], int, Callable[[pa.Table], list[np.ndarray]]]:
    """The two moments, how many events have no time, and from a block to its rows of each part."""
    if "timestamp" not in interactions.column_names:
        raise DataError(
            f"{interactions.name}: no column 'timestamp' to split by; `order` counts within a user and cannot be "
            "compared between users: split by user"
        )
    untimed = -np.inf if time_column(interactions) == "order" else np.nan
    blocks = list(_events(interactions, untimed))
    users, pairs, times, positive = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if not np.isfinite(times).any():
        raise DataError(f"{interactions.name}, column 'timestamp': all values are missing; split by user")
    known = times[np.isfinite(times)]
    if known.min() < MILLISECONDS < known.max():
        raise DataError(
            f"{interactions.name}, column 'timestamp': from {known.min():.0f} to {known.max():.0f}, some look like "
            "seconds and some like milliseconds; write one unit (recbase data check says where)"
        )
    if known.min() == known.max():
        raise DataError(f"{interactions.name}, column 'timestamp': all are {known.min():.0f}; split by user")
    first, second = np.quantile(times[np.isfinite(times)], [1 - shares[1], 1 - shares[1] + shares[0]], method="higher")
    without_time = int((~np.isfinite(times)).sum())
    counted = positive & ~np.isnan(times)
    users, pairs, times = users[counted], pairs[counted], times[counted]
    earliest_of_pair = np.lexsort((times, pairs))
    is_first = np.ones(len(pairs), bool)
    is_first[1:] = pairs[earliest_of_pair][1:] != pairs[earliest_of_pair][:-1]
    new_items = earliest_of_pair[is_first]
    users, times = users[new_items], times[new_items]
    validation_users = np.unique(users[(times >= first) & (times < second)])
    test_users = np.unique(users[times >= second])

    def parts_of(table: pa.Table) -> list[np.ndarray]:
        hashes, when = hash_texts(table["user_id"]), _times(table, untimed)
        return [
            when < first,
            (when < second) & _is_in(hashes, validation_users),
            ~np.isnan(when) & _is_in(hashes, test_users),
        ]

    return (float(first), float(second)), without_time, parts_of


def _impressions_by_time(moments: tuple[float, float]) -> Callable[[pa.Table], list[np.ndarray]]:
    """From impressions to those of each part; those without a time count as the oldest."""

    def parts_of(table: pa.Table) -> list[np.ndarray]:
        when = _times(table, -np.inf)
        return [when < moments[0], (when >= moments[0]) & (when < moments[1]), when >= moments[1]]

    return parts_of


def _events(
    interactions: TableBlocks, untimed: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each event: numbers that stand for its user and for user and item, its time, whether it is positive."""
    for table in interactions:
        pairs = _pairs(table["user_id"], table["item_id"])
        yield hash_texts(table["user_id"]), pairs, _times(table, untimed), _positive(table)


def _times(table: pa.Table, untimed: float = np.nan) -> np.ndarray:
    """(rows,) float64; `untimed` where there is none."""
    return pc.fill_null(pc.cast(table["timestamp"], pa.float64()), untimed).to_numpy()


def _positive(table: pa.Table) -> np.ndarray:
    if "label" not in table.column_names:
        return np.ones(table.num_rows, bool)
    return pc.fill_null(pc.equal(table["label"], 1), True).to_numpy()


def _pairs(users: Any, items: Any) -> np.ndarray:
    """A number for each user with an item, (rows,) uint64."""
    return mix(hash_texts(users)) ^ hash_texts(items)


def _is_in(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values


def _targets(folder: Path) -> tuple[pa.Array, pa.Array, np.ndarray | None]:
    """Users with a history, the last item of each, and when it was (NaN where that is not known)."""
    interactions, index = interaction_blocks(folder), _item_index(folder)
    ids, order = index.ids, time_column(interactions)
    timed = "timestamp" in interactions.column_names
    parts = []
    for table in interactions:
        rows = index.find(table["item_id"])
        kept = _positive(table) & (rows >= 0)
        if order in ("order", "timestamp"):
            kept &= pc.is_valid(table[order]).to_numpy()
        place = pc.cast(table[order], pa.float64()) if order in ("order", "timestamp") else None
        times = _times(table) if timed else np.zeros(len(table))
        columns = [table["user_id"], pa.array(rows), pa.array(times), *([] if place is None else [place])]
        parts.append(pa.table(columns, ["user", "item", "time", *([] if place is None else ["place"])]).filter(kept))
    events = pa.concat_tables(parts)
    histories = group_events(
        events["user"],
        events["item"].to_numpy(),
        len(ids),
        times=events["place"].to_numpy() if "place" in events.column_names else None,
        shuffled_ids=TextRows(ids) if order == "unknown" else None,
    )
    chosen = np.flatnonzero(histories.lengths >= 2)
    users = pa.array(histories.users[chosen].tolist(), pa.large_string())
    targets = histories.items[histories.offsets[1:][chosen] - 1]
    last_items = ids.take(pa.array(targets))
    if not timed or not len(users):
        return users, last_items, None
    pairs, when = _pairs(events["user"], ids.take(events["item"])), events["time"].to_numpy()
    ascending = np.lexsort((when, pairs))
    first = ascending[np.searchsorted(pairs, _pairs(users, last_items), sorter=ascending)]
    return users, last_items, when[first]


# ---- writing ---------------------------------------------------------------------------------------------------------


def _write_parts(
    tables: Iterable[pa.Table], schema: pa.Schema, parts_of: Callable[[pa.Table], list[np.ndarray]], paths: list[Path]
) -> list[int]:
    """Write the rows of each part; returns how many."""
    counts = [0] * len(paths)
    with ExitStack() as stack:
        writers = [stack.enter_context(pq.ParquetWriter(path, schema)) for path in paths]
        for table in tables:
            for number, (writer, mask) in enumerate(zip(writers, parts_of(table), strict=True)):
                part = table.filter(pa.array(mask)).cast(schema)
                writer.write_table(part)
                counts[number] += part.num_rows
    return counts


def _require_known_items(interactions: TableBlocks, folder: Path) -> None:
    index = _item_index(folder)
    for block, rows in enumerate(interactions.ranges):
        unknown = index.find(interactions.read(block, ["user_id", "item_id"])["item_id"]) < 0
        if unknown.any():
            row = int(np.argmax(unknown))
            item_id = interactions.read(block, ["user_id", "item_id"])["item_id"][row].as_py()
            raise UnknownItemError(
                f"{interactions.name}, row {rows.start + row + 1}: item {item_id!r} is not in the item table; add it, "
                "or leave such events out: recbase data from-csv with --log and --items does, and says how many"
            )


def _item_index(folder: Path) -> IdIndex:
    items = item_blocks(folder)
    blocks = [items.read(block, ["item_id"])["item_id"].combine_chunks() for block in range(len(items))]
    return IdIndex(pa.chunked_array(blocks, pa.large_string()))


def _schema(interactions: TableBlocks) -> pa.Schema:
    """That of all blocks: times that are whole numbers in the first may have fractions in a later one."""
    first = interactions.read(0).schema
    for name in ("order", "timestamp"):
        if name in first.names:
            columns = ["user_id", "item_id", name]
            kinds = (interactions.read(block, columns).schema.field(name).type for block in range(len(interactions)))
            if any(pa.types.is_floating(kind) for kind in kinds):
                first = first.set(first.get_field_index(name), pa.field(name, pa.float64()))
    return first


def _write_impressions(
    folder: Path, parts_of: Callable[[pa.Table], list[np.ndarray]], targets: list[Path]
) -> list[int]:
    """Impressions of each part, where the data set has any; returns how many."""
    path = folder / "impressions.parquet"
    if not path.exists():
        return []
    with pq.ParquetFile(path) as file:
        tables = (pa.Table.from_batches([batch]) for batch in file.iter_batches(1 << 16))
        return _write_parts(tables, file.schema_arrow, parts_of, [target / path.name for target in targets])


def _link_items(folder: Path, target: Path) -> None:
    """The item table, what the folder says of itself, and vectors that lie beside it, under the same names.

    Vectors, the largest of them, are links where the file system has them.
    """
    items = find_table(folder, "items")
    assert items is not None  # of a folder there is always a path
    for path in [items, *folder.glob("dataset.json"), *folder.glob("*_ids.parquet"), *folder.glob("*_made.json")]:
        shutil.copyfile(path, target / path.name)
    for path in folder.glob("*_f16.npy"):
        try:
            os.link(path.resolve(), target / path.name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, target / path.name)
