"""Options of commands that read somebody's own log, a delimited file."""

from __future__ import annotations

from dataclasses import dataclass

from recbase_hf.config import option
from recbase_hf.data.prepare.own_csv import CsvColumns
from recbase_hf.data.prepare.recognize import recognized_columns

__all__ = ["CsvOptions"]

_RECOGNIZED = "; default by its name"


@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """Where the items of a log are, and which columns hold what."""

    items: str | None = option(None, help="file of the items; default: the texts stand in the log")
    user_id: str | None = option(None, help=f"column of the user in the log{_RECOGNIZED}")
    item_id: str | None = option(None, help=f"column of the item in the log{_RECOGNIZED}")
    items_id: str | None = option(None, help=f"column of the item in the file of the items{_RECOGNIZED}")
    timestamp: str | None = option(
        None, help=f"column of the time in the log, numbers since 1970 or ISO 8601{_RECOGNIZED}"
    )
    order: str | None = option(None, help=f"column of the place in the user's history{_RECOGNIZED}")
    rating: str | None = option(None, help=f"column of the grade in the log{_RECOGNIZED}")
    label: str | None = option(None, help=f"column of liked (1) or not (0) in the log{_RECOGNIZED}")
    texts: tuple[str, ...] = option((), help="columns that make an item's text; default all of the file of the items")
    delimiter: str | None = option(None, help="between cells, `tab` is one too; default what cuts the header")
    encoding: str = option("utf-8", help="of the files")

    def columns_of(self, log: str) -> CsvColumns:
        """The columns of a log and of its items; errors as `recognized_columns` has them."""
        names = ("user_id", "item_id", "items_id", "timestamp", "order", "rating", "label")
        return recognized_columns(
            log,
            self.items,
            named={name: getattr(self, name) for name in names},
            texts=self.texts,
            delimiter="\t" if self.delimiter == "tab" else self.delimiter,
            encoding=self.encoding,
        )
