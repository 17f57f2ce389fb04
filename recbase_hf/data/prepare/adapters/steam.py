"""Steam games that users own, as SCGRec and CPGRec publish them; without times, the order of a list counts."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "steam"]

ITEMS = pa.schema(dict.fromkeys(("item_id", "title"), pa.string()))
INTERACTIONS = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "order": pa.int64()})


def steam(raw: RawFolder) -> PreparedTables:
    """`App_ID_Info.txt` (id, title, type, price and more) and `train_game.txt` (user, game, game and so on)."""
    apps, owned = raw.find("App_ID_Info.txt"), raw.find("train_game.txt")
    return PreparedTables(tables_of_rows(_games(apps), ITEMS), _owned(owned))


def _games(file: RawFile) -> Iterator[dict[str, str | None]]:
    for number, line in file.lines():
        fields = next(csv.reader([line]))
        if len(fields) < 2:
            raise DataError(f"{file.name}, line {number}: no comma between id and title; is it another file?")
        yield {"item_id": fields[0], "title": _repaired(fields[1]).strip() or None}


def _repaired(title: str) -> str:
    """UTF-8 that was once read as Latin-1 and written as UTF-8 again."""
    try:
        return title.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return title


def _owned(file: RawFile) -> Iterator[pa.Table]:
    """One row a game from one line a user."""
    for lines in file.csv_tables({"line": pa.string()}, delimiter="\t", names=["line"], quotes=False):
        fields = pc.split_pattern(pc.utf8_rtrim(lines["line"], ", "), ",")
        names, rows, places, lengths = explode(fields)
        if lengths.max() == 1:
            raise DataError(f"{file.name}: no games after the users; are the fields separated by commas?")
        users = pc.take(pc.list_element(fields, 0), pa.array(rows))
        table = pa.table([users, names, pa.array(places - 1)], schema=INTERACTIONS)
        yield table.filter(pa.array(places > 0))


PUBLISHED = (
    PublishedData(
        name="steam",
        domain="games",
        license="none is stated",
        source="https://github.com/YangLiangwei/SCGRec",
        files=("App_ID_Info.txt", "train_game.txt"),
        text_fields=("title",),
        label_rule="owned; there are no dislikes and no times",
        adapter=steam,
    ),
)
