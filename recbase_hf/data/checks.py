"""Looks over anybody's own tables before any work is put into them, and says what to do about each finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recbase_hf.data.event_inspections import KnownItems, Labels, Order, Repeats, Times, Users
from recbase_hf.data.id_index import IdIndex
from recbase_hf.data.inspections import Block, Finding, Impressions, Inspection, ItemIds, ItemTexts
from recbase_hf.data.table_sources import ID_COLUMNS, Origin, find_table, load_table
from recbase_hf.data.tables import checked_interactions, checked_items
from recbase_hf.errors import DataError
from recbase_hf.progress import progress

__all__ = ["Finding", "check_tables"]

ROWS_A_BLOCK = 1 << 17
"""Rows of a Parquet file that are in memory together."""

INTERACTION_COLUMNS = (*ID_COLUMNS, "order", "timestamp", "rating", "label")
IMPRESSION_LISTS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "history": (lambda kind: _is_text(kind) or pa.types.is_integer(kind), "lists of item ids"),
    "candidates": (lambda kind: _is_text(kind) or pa.types.is_integer(kind), "lists of item ids"),
    "labels": (lambda kind: pa.types.is_primitive(kind) and not pa.types.is_temporal(kind), "lists of 0 and 1"),
}
"""The columns that are looked at, and what they hold."""


def check_tables(folder: str | Path) -> list[Finding]:
    """Everything that is worth saying about a folder in the two-table form, and its impressions if there are any.

    Parquet files are read block by block: in memory are the ids of the items and 24 bytes for each interaction. Files
    of other formats are in memory as a whole. Of cells that cannot be read, the first of each column is told.

    Raises:
        FileNotFoundError: a table is missing.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "items.csv").write_text("item_id,title\\na,Chess\\n")
    >>> _ = (folder / "interactions.csv").write_text("user_id,item_id\\nann,a\\nann,b\\n")
    >>> print(*(finding.level for finding in check_tables(folder)))
    error note
    """
    findings, known = _items(folder)
    findings += _interactions(folder, known)
    impressions = Path(folder) / "impressions.parquet"
    return [*findings, *_impressions(impressions, known)] if impressions.exists() else findings


def _items(folder: str | Path) -> tuple[list[Finding], IdIndex | None]:
    """And the ids, if they can be read."""
    try:
        table = _open_table(folder, "items", checked_items, ["item_id"])
    except DataError as error:
        return [Finding("error", str(error))], None
    texts = _text_columns(table.schema)
    ids = ItemIds(table.name)
    findings, is_whole = _inspect(table, ["item_id", *texts], [ids, ItemTexts(table.name, texts)])
    return findings, ids.index if is_whole else None


def _interactions(folder: str | Path, known: IdIndex | None) -> list[Finding]:
    try:
        table = _open_table(folder, "interactions", checked_interactions, ID_COLUMNS)
    except DataError as error:
        return [Finding("error", str(error))]
    columns = [name for name in INTERACTION_COLUMNS if name in table.schema.names]
    inspections: list[Inspection] = [] if known is None else [KnownItems(table.name, known)]
    inspections += [Times(table.name)] if "timestamp" in columns else []
    inspections += [Order(table.name, columns), Repeats(table.name, columns), Users(table.name)]
    inspections += [Labels(table.name)] if "label" in columns else []
    return _inspect(table, columns, inspections)[0]


def _impressions(path: Path, known: IdIndex | None) -> list[Finding]:
    try:
        table = _open_table(path, "impressions", _as_it_is, [])
        _require_lists(table)
    except DataError as error:
        return [Finding("error", str(error))]
    return _inspect(table, list(IMPRESSION_LISTS), [Impressions(table.name, known)])[0]


# Reading


@dataclass(frozen=True)
class _Table:
    """A table in blocks, as it stands in its file.

    `blocks`: from the columns that are wanted. `check`: from a block and where it comes from to its checked form, or an
    error. `ids`: the columns without which `check` takes nothing.
    """

    origin: Origin
    schema: pa.Schema
    blocks: Callable[[Sequence[str]], Iterator[pa.Table]]
    check: Callable[[pa.Table, Origin], pa.Table]
    ids: Sequence[str]

    @property
    def name(self) -> str:
        return self.origin.name


def _open_table(
    source: str | Path, stem: str, check: Callable[[pa.Table, Origin], pa.Table], ids: Sequence[str]
) -> _Table:
    path = find_table(source, stem)
    if path is not None and path.suffix.lower() == ".parquet":
        with _readable(path):
            schema = pq.read_schema(path)
        table = _Table(Origin(str(path), path), schema, partial(_parquet_blocks, path), check, ids)
    else:
        whole, origin = load_table(source, stem)
        table = _Table(origin, whole.schema, lambda columns: iter([whole.select(columns)]), check, ids)
    nothing = [pa.array([], pa.string()) for _ in table.schema]
    check(pa.Table.from_arrays(nothing, table.schema.names), table.origin)  # are the columns there?
    return table


def _parquet_blocks(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    with _readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_A_BLOCK, columns=list(columns)):
            yield pa.Table.from_batches([batch])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error)[:200]}); it may be truncated or of another format: make or download "
            "it again"
        ) from error


def _inspect(table: _Table, columns: Sequence[str], inspections: Sequence[Inspection]) -> tuple[list[Finding], bool]:
    """What is found, and whether all could be read."""
    broken: dict[str, DataError] = {}
    rows = 0
    try:
        with progress(description=Path(table.name).name, unit=" rows") as bar:
            for raw in table.blocks(columns):
                block = Block(raw, _checked(table, raw, rows, broken), rows)
                for inspection in _unhindered(inspections, broken):
                    inspection.see(block)
                rows += raw.num_rows
                bar.update(raw.num_rows)
    except DataError as error:
        return [Finding("error", str(error))], False
    if not rows:
        return [Finding("error", f"{table.name}: the table has no rows; give at least one")], False
    found = (finding for inspection in _unhindered(inspections, broken) for finding in inspection.findings())
    return [*(Finding("error", str(error)) for error in broken.values()), *found], not broken


def _checked(table: _Table, raw: pa.Table, before: int, broken: dict[str, DataError]) -> pa.Table:
    """The columns of a block that can be read; `broken` is told of the others."""
    origin = replace(table.origin, rows_before=before)
    if not broken:
        try:
            return table.check(raw, origin)
        except DataError:
            pass  # which columns is seen below
    columns = {}
    for name in raw.column_names:
        others = {id_column: pa.repeat("any", len(raw)) for id_column in table.ids}
        try:
            columns[name] = table.check(pa.table({**others, name: raw[name]}), origin)[name]
        except DataError as error:
            broken.setdefault(name, error)
    return pa.table(columns)


def _unhindered(inspections: Sequence[Inspection], broken: Mapping[str, DataError]) -> Iterator[Inspection]:
    return (inspection for inspection in inspections if not broken.keys() & set(inspection.needs))


def _text_columns(schema: pa.Schema) -> list[str]:
    """Those that make the text of an item where nobody says otherwise."""
    if "text" in schema.names:
        return ["text"]
    return [field.name for field in schema if field.name != "item_id" and _is_text(field.type)]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or _is_list(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _as_it_is(table: pa.Table, _: Origin) -> pa.Table:
    return table


def _require_lists(table: _Table) -> None:
    for name, (is_right, wanted) in IMPRESSION_LISTS.items():
        if name not in table.schema.names:
            raise DataError(f"{table.name}: no column {name!r}; the columns are {table.schema.names}")
        kind = table.schema.field(name).type
        if not (_is_list(kind) and (is_right(kind.value_type) or pa.types.is_null(kind.value_type))):
            raise DataError(f"{table.name}, column {name!r}: {kind}, but it must hold {wanted}; convert the column")
