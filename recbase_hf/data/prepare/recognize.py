"""Which column of somebody's files is the user, the item, the time: recognized by its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from recbase_hf.data.prepare.own_csv import EVENT_COLUMNS, CsvColumns, header_of
from recbase_hf.data.prepare.raw_files import RawFile
from recbase_hf.errors import DataError

__all__ = ["recognized_columns"]

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
        "timestamp", "datetime", "time", "date", "eventtime", "eventdate", "createdat", "createdtime", "orderdate",
        "purchasedate", "invoicedate", "reviewtime", "unixreviewtime", "clicktime", "ts", "when",
    ),
    "order": ("order", "position", "sequence"),
    "rating": ("rating", "ratings", "score", "stars", "overall", "grade"),
    "label": ("label", "liked", "like", "clicked", "click", "isclick"),
}  # fmt: skip
"""Usual names, in small letters and digits, the surest first."""

_IDS = (*NAMES["item_id"], "id")
_TEXTS = (
    "text", "title", "name", "itemname", "itemtitle", "productname", "producttitle", "description", "subtitle", "brand",
    "category", "categories", "genre", "genres", "tags", "abstract", "author", "artistname", "producttype",
)  # fmt: skip
_DELIMITERS = (",", ";", "\t", "|")


def recognized_columns(
    log: str | Path,
    items: str | Path | None = None,
    *,
    named: Mapping[str, str | None] | None = None,
    texts: Sequence[str] = (),
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> CsvColumns:
    """Which columns hold what; those that nobody named are recognized by usual names, such as `customer_id`.

    Args:
        log: delimited file with a header, an event a row.
        items: delimited file with an item a row; None where the log has the texts.
        named: by the names of `CsvColumns`, columns that are not to be recognized.
        texts: columns of an item's text; by default all of the file of the items, or those of the log that are
            recognized.
        delimiter: of the cells; by default the one of `,`, `;`, tab and `|` that cuts the header of the log most.
        encoding: of the files.

    Raises:
        DataError: no column is recognized as the user, the item, the id of an item, or a text; says which there are.
        FileNotFoundError: there is no such file.
    """
    _require_delimited(Path(log))
    if items is not None:
        _require_delimited(Path(items))
    file, given = RawFile(Path(log)), {name: column for name, column in (named or {}).items() if column is not None}
    delimiter = delimiter or max(_DELIMITERS, key=lambda cut: len(header_of(file, delimiter=cut, encoding=encoding)))
    header = header_of(file, delimiter=delimiter, encoding=encoding)
    free = [column for column in header if column not in given.values()]
    found = {name: given.get(name) or _first(free, NAMES[name]) for name in EVENT_COLUMNS}
    for name, what in (("user_id", "the user"), ("item_id", "the item")):
        if found[name] is None:
            flag = name.replace("_", "-")
            raise DataError(f"{log}: which column is {what}? name it with --{flag}; the columns are {header}")
    items_id = given.get("items_id")
    if items is not None:
        there = header_of(RawFile(Path(items)), delimiter=delimiter, encoding=encoding)
        items_id = items_id or _id_of_items(items, there, found["item_id"])
    elif not texts:
        texts = _texts_of_log(log, header, found.values())
    return CsvColumns(
        log=Path(log),
        items=None if items is None else Path(items),
        items_id=items_id,
        texts=tuple(texts),
        delimiter=delimiter,
        encoding=encoding,
        **found,  # type: ignore[arg-type]
    )


def _require_delimited(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    if path.suffix.lower() in (".parquet", ".json", ".jsonl"):
        raise DataError(f"{path}: only delimited files (CSV, TSV) are read here; write it as one")


def _id_of_items(path: str | Path, columns: Sequence[str], as_in_log: str | None) -> str:
    found = as_in_log if as_in_log in columns else _first(columns, _IDS)
    if found is None:
        raise DataError(f"{path}: which column is the item's id? name it with --items-id; the columns are {columns}")
    return found


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
