"""Which column of somebody's files is the user, the item, the time: recognized by its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.cells import CellReader
from recbase_hf.data.prepare.own_csv import EVENT_COLUMNS, CsvColumns, header_of, mapped
from recbase_hf.data.prepare.raw_files import RawFile
from recbase_hf.errors import DataError

__all__ = ["recognized_columns", "recognized_pairs"]

NAMES: dict[str, tuple[str, ...]] = {
    "user_id": (
        "userid", "user", "customerid", "customer", "buyerid", "buyer", "memberid", "member", "reviewerid", "reviewer",
        "visitorid", "visitor", "accountid", "account", "clientid", "client", "uid", "sessionid", "session",
    ),
    "item_id": (
        "itemid", "item", "productid", "product", "articleid", "article", "sku", "asin", "parentasin", "stockcode",
        "movieid", "movie", "bookid", "book", "isbn", "newsid", "news", "gameid", "game", "appid", "trackid", "track",
        "songid", "song", "artistid", "artist", "businessid", "hotelid", "videoid", "video", "listingid",
    ),
    "timestamp": (
        "timestamp", "datetime", "eventtime", "createdat", "createdtime", "date", "eventdate", "orderdate",
        "purchasedate", "invoicedate", "reviewtime", "unixreviewtime", "clicktime", "ts", "when", "time",
    ),
    "order": ("order",),
    "rating": ("rating", "ratings", "score", "stars", "overall", "grade"),
    "label": ("label", "liked", "like", "clicked", "click", "isclick"),
}  # fmt: skip
"""Usual names, in small letters and digits, the surest first."""

_IDS = (*NAMES["item_id"], "id")
_TEXTS = (
    "text", "title", "name", "itemname", "itemtitle", "productname", "producttitle", "description", "subtitle", "brand",
    "category", "categories", "genre", "genres", "tags", "abstract", "author", "artistname", "producttype",
)  # fmt: skip
_NUMBER = r"^\s*[-+]?[\d.,]+\s*$"
_SAMPLE = 10_000
"""Rows by which a column is taken for numbers."""

_DELIMITERS = ",;\t|"


def recognized_columns(
    log: str | Path,
    items: str | Path | None = None,
    *,
    named: Mapping[str, str | None] | None = None,
    texts: Sequence[str] = (),
    delimiter: str | None = None,
    encoding: str = "utf-8",
    liked_from: float | None = None,
) -> CsvColumns:
    """Which columns hold what; those that nobody named are recognized by usual names, such as `customer_id`.

    Args:
        log: delimited file with a header, an event a row.
        items: delimited file with an item a row; None where the log has the texts.
        named: by the names of `CsvColumns`, columns that are not to be recognized.
        texts: columns of an item's text; by default those of the file of the items that are no numbers, or those of
            the log that are recognized.
        delimiter: of the cells; by default for each file the one of `,`, `;`, tab and `|` that cuts its header most.
        encoding: of the files.
        liked_from: as in `CsvColumns`.

    Raises:
        DataError: no column is recognized as the user, the item, the id of an item, a text, or the grade for
            `liked_from`; says which there are.
        FileNotFoundError: there is no such file.
    """
    given = {name: column for name, column in (named or {}).items() if column is not None}
    header, cut = _header(log, delimiter, encoding)
    free = [column for column in header if column not in given.values()]
    found = {name: given.get(name) or _first(free, NAMES[name]) for name in EVENT_COLUMNS}
    for name, what in (("user_id", "the user"), ("item_id", "the item")):
        if found[name] is None:
            raise DataError(f"{log}: which column is {what}? name it with {_flag(name)}; the columns are {header}")
    if found["timestamp"] is not None and "order" not in given:
        found["order"] = None  # a shop calls the number of an order so, or a page the place of an item
    if liked_from is not None and found["rating"] is None:
        raise DataError(f"{log}: which column is the grade? name it with --rating; the columns are {header}")
    items_id, items_cut = given.get("items_id"), None
    if items is not None:
        there, items_cut = _header(items, delimiter, encoding)
        items_id = items_id or _id_of_items(items, there, found["item_id"])
        texts = texts or _texts_of_items(items, [name for name in there if name != items_id], items_cut, encoding)
    elif not texts:
        texts = _texts_of_log(log, header, found.values())
    return CsvColumns(
        log=Path(log),
        items=None if items is None else Path(items),
        items_id=items_id,
        texts=tuple(texts),
        delimiter=cut,
        items_delimiter=items_cut,
        liked_from=liked_from,
        encoding=encoding,
        **found,  # type: ignore[arg-type]
    )


def recognized_pairs(path: str | Path, log: CsvColumns, *, delimiter: str | None = None) -> tuple[pa.Table, str, str]:
    """A delimited file of users and items, cells as text, and which columns these are: those of the log, or usual ones.

    Args:
        path: of the file.
        log: columns of the log.
        delimiter: as in `recognized_columns`.

    Raises:
        DataError: a column is not recognized, an id is missing, there are no rows, or the file cannot be read.
        FileNotFoundError: there is no such file.
    """
    header, cut = _header(path, delimiter, log.encoding)
    names = []
    for name, what in (("user_id", "the user"), ("item_id", "the item")):
        as_in_log = getattr(log, name)
        found = as_in_log if as_in_log in header else _first(header, NAMES[name])
        if found is None:
            raise DataError(
                f"{path}: which column is {what}? call it {as_in_log!r}, as in {log.log}; the columns are {header}"
            )
        names.append(found)
    blocks = list(mapped(_file(path), {name: name for name in header}, delimiter=cut, encoding=log.encoding))
    if not sum(block.num_rows for block in blocks):
        raise DataError(f"{path}: no rows; give a user and an item a row")
    table = pa.concat_tables(blocks)
    for name in names:
        table = table.set_column(
            header.index(name), name, CellReader(f"{path}, column {name!r}", "id").read(table[name])
        )
    return table, names[0], names[1]


def _header(path: str | Path, delimiter: str | None, encoding: str) -> tuple[list[str], str]:
    """The columns of a file, and what is between them."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    if Path(path).suffix.lower() in (".parquet", ".json", ".jsonl"):
        raise DataError(f"{path}: only delimited files (CSV, TSV) are read here; write it as one")
    headers = {cut: header_of(_file(path), delimiter=cut, encoding=encoding) for cut in delimiter or _DELIMITERS}
    cut = max(headers, key=lambda cut: len(headers[cut]))
    header = headers[cut]
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{path}: two columns are called {repeated!r}; rename one")
    return header, cut


def _file(path: str | Path) -> RawFile:
    return RawFile(Path(path), is_own=True)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _id_of_items(path: str | Path, columns: Sequence[str], as_in_log: str | None) -> str:
    found = as_in_log if as_in_log in columns else _first(columns, _IDS)
    if found is None:
        raise DataError(f"{path}: which column is the item's id? name it with --items-id; the columns are {columns}")
    return found


def _texts_of_items(path: str | Path, columns: Sequence[str], cut: str, encoding: str) -> list[str]:
    """Those that are no numbers, such as prices, as far as the first rows tell; without any, all."""
    first = next(mapped(_file(path), {name: name for name in columns}, delimiter=cut, encoding=encoding), None)
    if first is None:
        return list(columns)
    found = []
    for name in columns:
        cells = pc.drop_null(first[name].slice(0, _SAMPLE))
        if not len(cells) or not pc.all(pc.match_substring_regex(cells, _NUMBER)).as_py():
            found.append(name)
    return found or list(columns)


def _texts_of_log(path: str | Path, columns: Sequence[str], taken: Collection[str | None]) -> list[str]:
    texts = [column for column in columns if column not in taken and _plain(column) in _TEXTS]
    if not texts:
        raise DataError(
            f"{path}: which columns are the texts of the items? name them with --texts, or the file of the items with "
            f"--items; the columns are {columns}"
        )
    return texts


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column with the surest of these names."""
    known = {_plain(column): column for column in reversed(columns)}
    return next((known[name] for name in names if name in known), None)


def _plain(column: str) -> str:
    """Small letters and digits alone.

    >>> _plain("Customer ID"), _plain("t_dat")
    ('customerid', 'tdat')
    """
    return re.sub(r"[^a-z0-9]", "", column.lower())
