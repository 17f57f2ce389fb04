"""Writes what an adapter reads as the two tables, whole or not at all, and counts what it had to leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbase_hf.data.prepare.raw_files import RawFolder
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_folder, write_json
from recbase_hf.progress import progress

__all__ = ["PreparedTables", "PublishedData", "UnknownItems", "prepare"]

UnknownItems = Literal["drop", "error"]
"""What is done with interactions whose item is not in the item table: left out and counted, or refused."""

_LISTED = 20
"""Unknown item ids that are written down."""


class PreparedTables(NamedTuple):
    """What an adapter gives, block by block. Ids are text.

    `items`: `item_id` and text columns; of an id that comes again the first row counts. `interactions`: `user_id`,
    `item_id` and, where the source has them, `timestamp` (int64, seconds since 1970), `order` (int64), `rating`
    (float64), `label` (int8). `impressions`, where there are true ones: `user_id`, `history` and `candidates` (lists of
    item ids), `labels` (list of int8), `timestamp`.
    """

    items: Iterable[pa.Table]
    interactions: Iterable[pa.Table]
    impressions: Iterable[pa.Table] | None = None


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
        adapter: reads the raw files.
    """

    name: str
    domain: str
    license: str
    source: str
    files: tuple[str, ...]
    text_fields: tuple[str, ...]
    label_rule: str
    adapter: Callable[[RawFolder], PreparedTables] = field(repr=False)


def prepare(
    published: PublishedData, raw: str | Path, out: str | Path, *, unknown_items: UnknownItems = "drop"
) -> dict[str, Any]:
    """Raw files to a folder in the two-table form.

    Args:
        raw: folder with the raw files.
        out: folder for `items.parquet`, `interactions.parquet`, maybe `impressions.parquet`, and `dataset.json`, which
            says where all came from and what was left out.
        unknown_items: what is done with interactions of items that the item table lacks.

    Returns:
        The content of `dataset.json`.

    Raises:
        DataError: a raw file is damaged or of another format (file, line and fix); an item is unknown and that is an
            error; or nothing is left.
        FileExistsError: `out` holds a data set already.
        FileNotFoundError: a raw file is missing.
    """
    out = Path(out)
    if (out / "interactions.parquet").exists():
        raise FileExistsError(f"{out} holds a data set already; name another folder, or delete this one")
    tables = published.adapter(RawFolder(raw))
    with atomic_folder(out) as folder:
        items = _Writer(folder / "items.parquet", "items")
        known = _KnownItems()
        items.write(known.first_rows(table) for table in tables.items)
        interactions = _Writer(folder / "interactions.parquet", "interactions")
        interactions.write(known.only_known(table) for table in tables.interactions)
        rows = {"items": items.rows, "interactions": interactions.rows}
        if tables.impressions is not None:
            impressions = _Writer(folder / "impressions.parquet", "impressions")
            impressions.write(tables.impressions)
            rows["impressions"] = impressions.rows
        if unknown_items == "error" and known.unknown_rows:
            raise DataError(
                f"{known.unknown_rows:,} interactions have items that the item table lacks, such as "
                f"{', '.join(known.unknown_examples[:3])}; drop them with --unknown-items drop"
            )
        for name in ("items", "interactions"):
            if not rows[name]:
                raise DataError(f"no {name} are left of {raw}; are these the raw files of {published.name}?")
        facts = {
            "name": published.name,
            "domain": published.domain,
            "license": published.license,
            "source": published.source,
            "label_rule": published.label_rule,
            "rows": rows,
            "repeated_items": known.repeated_rows,
            "interactions_of_unknown_items": known.unknown_rows,
            "unknown_items": known.unknown_examples,
        }
        write_json(folder / "dataset.json", facts)
    return facts


class _KnownItems:
    """The item ids that have been seen."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self.repeated_rows = 0
        self.unknown_rows = 0
        self.unknown_examples: list[str] = []

    def first_rows(self, table: pa.Table) -> pa.Table:
        """The rows whose id has not come before."""
        keep = []
        for item_id in table["item_id"].to_pylist():
            keep.append(item_id not in self._ids)
            self._ids.add(item_id)
        self.repeated_rows += keep.count(False)
        return table.filter(pa.array(keep, pa.bool_()))

    def only_known(self, table: pa.Table) -> pa.Table:
        """The rows whose item is known."""
        encoded = pc.dictionary_encode(table["item_id"].combine_chunks())
        distinct = encoded.dictionary.to_pylist()
        is_known = pa.array([item_id in self._ids for item_id in distinct], pa.bool_())
        keep = pc.take(is_known, encoded.indices)
        lost = table.num_rows - pc.sum(keep).as_py() if table.num_rows else 0
        if lost:
            self.unknown_rows += lost
            listed = self.unknown_examples
            unknown = [item_id for item_id in distinct if item_id not in self._ids and item_id not in listed]
            self.unknown_examples += unknown[: _LISTED - len(self.unknown_examples)]
            table = table.filter(keep)
        return table


class _Writer:
    """Appends tables to a Parquet file, with a progress bar."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name, self.rows = path, name, 0

    def write(self, tables: Iterator[pa.Table] | Iterable[pa.Table]) -> None:
        """All of them; the first gives the schema."""
        writer: pq.ParquetWriter | None = None
        try:
            with progress(description=self._name, unit=" rows") as bar:
                for table in tables:
                    if writer is None:
                        writer = pq.ParquetWriter(self._path, table.schema.remove_metadata())
                    writer.write_table(table.cast(writer.schema))
                    self.rows += table.num_rows
                    bar.update(table.num_rows)
        finally:
            if writer is not None:
                writer.close()
