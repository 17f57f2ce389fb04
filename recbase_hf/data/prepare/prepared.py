"""Writes what an adapter reads as the two tables, whole or not at all, and counts what it had to leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbase_hf.data.id_index import IdIndex
from recbase_hf.data.prepare.impressions import KnownImpressions
from recbase_hf.data.prepare.known_items import KnownItems
from recbase_hf.data.prepare.raw_files import RawFolder
from recbase_hf.data.prepare.unfinished import UnfinishedTables, unfinished_tables, writing
from recbase_hf.errors import DataError
from recbase_hf.progress import progress
from recbase_hf.version import __version__

__all__ = ["PreparedTables", "PublishedData", "UnknownItems", "prepare"]

UnknownItems = Literal["drop", "error"]
"""What is done with interactions whose item is not in the item table: left out and counted, or refused."""


class PreparedTables(NamedTuple):
    """What an adapter gives, block by block. Ids are text.

    `items`: `item_id` and text columns; of an id that comes again the first row counts. `interactions`: `user_id`,
    `item_id` and, where the source has them, `timestamp` (int64, seconds since 1970), `order` (int64), `rating`
    (float64), `label` (int8). `impressions`, where there are true ones: `user_id`, `history` and `candidates` (lists of
    item ids), `labels` (list of int8), `timestamp`. `left_out`: how many rows of the raw files the adapter leaves out
    itself, by reason; it counts while the tables are read.
    """

    items: Iterable[pa.Table]
    interactions: Iterable[pa.Table]
    impressions: Iterable[pa.Table] | None = None
    left_out: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class PublishedData:
    """A data set that somebody publishes.

    Attributes:
        name: what `recbase data prepare` calls it.
        domain: what is recommended.
        license: the terms, in short; research data has terms of its own.
        source: where to get it.
        files: the raw files that are read.
        text_fields: columns of the item table that make the text.
        label_rule: what counts as liked.
        adapter: reads the raw files; it has found all of them when it returns.
        settings: what else the tables depend on.
    """

    name: str
    domain: str
    license: str
    source: str
    files: tuple[str, ...]
    text_fields: tuple[str, ...]
    label_rule: str
    adapter: Callable[[RawFolder], PreparedTables] = field(repr=False)
    settings: str = ""


def prepare(
    published: PublishedData, raw: str | Path, out: str | Path, *, unknown_items: UnknownItems = "drop"
) -> dict[str, Any]:
    """Raw files to a folder in the two-table form.

    The folder appears when all of it is written. Tables that were finished before an interruption (a kill, a full disk)
    wait beside it, and the same call goes on with them if the raw files are the same.

    Args:
        raw: folder with the raw files.
        out: folder for `items.parquet`, `interactions.parquet`, maybe `impressions.parquet`, and `dataset.json`, which
            says where all came from and what was left out.
        unknown_items: what is done with items that the item table lacks: in interactions, which go with them, and in
            impressions, which lose them, and go if no candidate, or none of those that were liked, is left.

    Returns:
        The content of `dataset.json`.

    Raises:
        DataError: a raw file is damaged or of another format (file, line and fix); an item is unknown and that is an
            error; or nothing is left.
        FileExistsError: `out` holds a data set already.
        FileNotFoundError: a raw file is missing.
        OSError: the disk is full; says what was being written.
    """
    out = Path(out)
    if (out / "interactions.parquet").exists():
        raise FileExistsError(f"{out} holds a data set already; name another folder, or delete this one")
    raw_folder = RawFolder(raw)
    tables = published.adapter(raw_folder)
    with unfinished_tables(out, _made_of(published, raw_folder, unknown_items)) as unfinished:
        writer = _Writer(tables, out, unknown_items)
        unfinished.table("items", writer.items)
        _require_rows(unfinished, "items", raw, published)
        item_ids = IdIndex(pq.read_table(unfinished.path("items"), columns=["item_id"])["item_id"])
        known = KnownItems(item_ids)
        unfinished.table("interactions", partial(writer.interactions, known))
        if known.unknown and not unfinished.facts["interactions"]["rows"]:
            there = pq.read_table(unfinished.path("items"), columns=["item_id"])["item_id"][:3].to_pylist()
            raise DataError(
                f"none of the {known.unknown:,} interactions of {published.name} has an item of the item table: they "
                f"have {_shown(known.examples[:3])}, the item table has {_shown(there)}; are these the right files and "
                "columns?"
            )
        _require_rows(unfinished, "interactions", raw, published)
        if tables.impressions is not None:
            unfinished.table("impressions", partial(writer.impressions, KnownImpressions(item_ids)))
        facts = _facts(published, unfinished.facts)
        unfinished.publish(facts)
    return facts


def _made_of(published: PublishedData, raw: RawFolder, unknown_items: UnknownItems) -> dict[str, Any]:
    """All that the tables depend on."""
    stats = {str(path.resolve()): path.stat() for path in raw.found}
    return {
        "name": published.name,
        "settings": published.settings,
        "unknown_items": unknown_items,
        "recbase_hf": __version__,
        "pyarrow": pa.__version__,
        "files": {path: [stat.st_size, stat.st_mtime_ns] for path, stat in sorted(stats.items())},
    }


def _require_rows(unfinished: UnfinishedTables, name: str, raw: str | Path, published: PublishedData) -> None:
    if not unfinished.facts[name]["rows"]:
        if published.source == "own":
            raise DataError(f"{' and '.join(published.files)}: there are no {name}; is there more than a header?")
        raise DataError(f"no {name} are left of {raw}; are these the raw files of {published.name}?")


def _shown(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids))


def _facts(published: PublishedData, tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of `dataset.json`."""
    return {
        "name": published.name,
        "domain": published.domain,
        "license": published.license,
        "source": published.source,
        "label_rule": published.label_rule,
        "rows": {name: table["rows"] for name, table in tables.items()},
        "repeated_items": tables["items"]["repeated_items"],
        **tables["interactions"]["unknown"],
        **tables.get("impressions", {}).get("unknown", {}),
        "left_out_of_raw_files": dict(sum((Counter(table["left_out"]) for table in tables.values()), Counter())),
    }


class _Writer:
    """Writes what an adapter reads, a table at a time; each method takes the path and returns what is to be said."""

    def __init__(self, tables: PreparedTables, out: Path, unknown_items: UnknownItems) -> None:
        self._tables, self._out, self._unknown_items = tables, out, unknown_items

    def items(self, path: Path) -> dict[str, Any]:
        """The first row of every id."""
        seen: set[str] = set()
        repeated = 0

        def first_rows() -> Iterator[pa.Table]:
            nonlocal repeated
            for table in _with_ids(self._tables.items, "items", ["item_id"]):
                is_new = []
                for item_id in table["item_id"].to_pylist():
                    is_new.append(item_id not in seen)
                    seen.add(item_id)
                repeated += is_new.count(False)
                yield table.filter(pa.array(is_new, pa.bool_()))

        facts = self._write(path, "items", first_rows())
        return {**facts, "repeated_items": repeated}

    def interactions(self, known: KnownItems, path: Path) -> dict[str, Any]:
        """Those of known items."""
        there = _with_ids(self._tables.interactions, "interactions", ["user_id", "item_id"])
        facts = self._write(
            path, "interactions", (table.filter(pa.array(known.are_known(table["item_id"]))) for table in there)
        )
        self._refuse(known.unknown, "interactions have items", known.examples)
        return {**facts, "unknown": {"interactions_of_unknown_items": known.unknown, "unknown_items": known.examples}}

    def impressions(self, known: KnownImpressions, path: Path) -> dict[str, Any]:
        """Known items of them, and those that have a liked candidate."""
        assert self._tables.impressions is not None
        facts = self._write(path, "impressions", known.of(self._tables.impressions))
        unknown = known.history.unknown + known.candidates.unknown
        examples = list(dict.fromkeys(known.candidates.examples + known.history.examples))
        self._refuse(unknown, "places in impressions have items", examples)
        return {
            **facts,
            "unknown": {
                "unknown_history_items": known.history.unknown,
                "unknown_candidates": known.candidates.unknown,
                "unknown_items_of_impressions": examples,
                "impressions_left_out": known.left_out,
            },
        }

    def _write(self, path: Path, name: str, tables: Iterable[pa.Table]) -> dict[str, Any]:
        """To a Parquet file, with a progress bar; the first table gives the schema."""
        before = Counter(self._tables.left_out)
        rows = 0
        writer: pq.ParquetWriter | None = None
        try:
            with progress(description=name, unit=" rows") as bar:
                for table in tables:
                    with writing(self._out, f"{name} (after {rows:,} rows)"):
                        if writer is None:
                            writer = pq.ParquetWriter(path, table.schema.remove_metadata())
                        writer.write_table(table.cast(writer.schema))
                    rows += table.num_rows
                    bar.update(table.num_rows)
        except BaseException:
            if writer is not None:
                with suppress(OSError):  # it has the same reason as what is raised
                    writer.close()
            raise
        if writer is not None:
            with writing(self._out, f"{name} (after {rows:,} rows)"):
                writer.close()
        return {"rows": rows, "left_out": dict(Counter(self._tables.left_out) - before)}

    def _refuse(self, unknown: int, what: str, examples: list[str]) -> None:
        if unknown and self._unknown_items == "error":
            raise DataError(
                f"{unknown:,} {what} that the item table lacks, such as {', '.join(examples[:3])}; drop them with "
                "--unknown-items drop"
            )


def _with_ids(tables: Iterable[pa.Table], name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Tables none of whose ids is missing or empty."""
    before = 0
    for table in tables:
        for column in columns:
            is_missing = pc.fill_null(pc.equal(table[column], ""), True)
            if pc.any(is_missing).as_py():
                row = before + pc.index(is_missing, True).as_py() + 1
                raise DataError(
                    f"{name}, row {row} of the raw files, column {column!r}: the id is missing; fill it in or leave "
                    "the row out"
                )
        before += table.num_rows
        yield table
