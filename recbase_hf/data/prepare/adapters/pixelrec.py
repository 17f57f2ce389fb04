"""PixelRec: interactions and item information, two CSV files of the same name in different folders."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from recbase_hf.data.prepare.columns import UnixSeconds
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "pixelrec"]

ITEMS = ("item_id", "title", "tag", "description")
INTERACTIONS = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64()}


def pixelrec(raw: RawFolder) -> PreparedTables:
    """Pixel200K, Pixel1M, Pixel8M or PixelRec; headers tell the two files apart, for their names do not."""
    items, interactions = _with_columns(raw, "item_id", "title"), _with_columns(raw, "item_id", "user_id")
    return PreparedTables(items.csv_tables(dict.fromkeys(ITEMS, pa.string())), _interactions(interactions))


def _with_columns(raw: RawFolder, *columns: str) -> RawFile:
    """The one CSV file that has these columns."""
    files = raw.all("*.csv") or [raw.find("*.csv")]
    found = [file for file in files if set(columns) <= set(next(file.lines(), (1, ""))[1].lstrip("\ufeff").split(","))]
    if len(found) != 1:
        names = " and ".join(file.name for file in found) or "none"
        raise DataError(f"{raw.path}: one CSV file should have the columns {', '.join(columns)}; {names} has")
    return found[0]


def _interactions(file: RawFile) -> Iterator[pa.Table]:
    seconds = UnixSeconds(f"{file.name}, column 'timestamp'")
    for table in file.csv_tables(INTERACTIONS):
        yield table.set_column(2, "timestamp", seconds.of(table["timestamp"]))


PUBLISHED = (
    PublishedData(
        name="pixelrec",
        domain="short videos",
        license="non-commercial research and education, no redistribution; see LICENSE in the repository",
        source="https://github.com/westlake-repl/PixelRec",
        files=("interactions and item information, both e.g. Pixel200K.csv, in folders of their own",),
        text_fields=("title", "tag", "description"),
        label_rule="implicit: every comment on a video counts as liked",
        adapter=pixelrec,
    ),
)
