"""Options of commands that read somebody's own log, a delimited file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbase_hf.config import option
from recbase_hf.data.prepare.own_csv import CsvColumns
from recbase_hf.data.prepare.recognize import recognized_columns

__all__ = ["CsvOptions", "told_columns", "told_losses"]

_MANY = 0.1
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
    texts: tuple[str, ...] = option(
        (), help="columns that make an item's text; default those of the file of the items that are no numbers"
    )
    liked_from: float | None = option(
        None, help="grade from which on an event counts as liked; default all do, or as --label says"
    )
    delimiter: str | None = option(
        None, help="between cells, `tab` is one too; default for each file what cuts its header most"
    )
    encoding: str = option("utf-8", help="of the files")

    @property
    def cut(self) -> str | None:
        """What is between cells."""
        if self.delimiter is not None and self.delimiter != "tab" and len(self.delimiter) != 1:
            raise ValueError(f"delimiter is {self.delimiter!r}; give one character, or tab")
        return "\t" if self.delimiter == "tab" else self.delimiter

    def columns_of(self, log: str) -> CsvColumns:
        """The columns of a log and of its items; errors as `recognized_columns` has them."""
        names = ("user_id", "item_id", "items_id", "timestamp", "order", "rating", "label")
        return recognized_columns(
            log,
            self.items,
            named={name: getattr(self, name) for name in names},
            texts=self.texts,
            delimiter=self.cut,
            encoding=self.encoding,
            liked_from=self.liked_from,
        )


def told_columns(columns: CsvColumns) -> list[str]:
    """What was taken for what, and what to look at in it."""
    told = ", ".join(f"{name} is {column!r}" for name, column in columns.event_columns().items())
    lines = [f"{columns.log}: {told}; liked: {columns.label_rule()}"]
    lines.append(f"{columns.items or columns.log}: an item's text is {', '.join(columns.texts)}")
    if columns.rating is not None and columns.label is None and columns.liked_from is None:
        lines.append(
            f"{columns.rating!r} is a grade, and low ones count as liked too; --liked-from 4 says from where on they do"
        )
    if columns.timestamp is None and columns.order is None:
        lines.append("no column of the time is known: the rows' own order counts; name one with --timestamp or --order")
    return lines


def told_losses(facts: Mapping[str, Any], *, repeats: bool = False) -> list[str]:
    """What `prepare` has left out, a line a reason.

    Args:
        facts: that it gave.
        repeats: also rows of items that came before.
    """
    left_out = {
        "repeated_items": "rows of items that came before",
        "interactions_of_unknown_items": "interactions of items without a row",
        "unknown_history_items": "items without a row in the histories of impressions",
        "unknown_candidates": "candidates without a row in impressions",
        "impressions_left_out": "impressions that lost all candidates, or all that were liked",
    }
    if not repeats:
        del left_out["repeated_items"]
    counts = {what: facts.get(name, 0) for name, what in left_out.items()} | facts["left_out_of_raw_files"]
    lines = [f"left out: {count:,} {what}" for what, count in counts.items() if count]
    unknown, kept = facts.get("interactions_of_unknown_items", 0), facts["rows"]["interactions"]
    if unknown > _MANY * (unknown + kept):
        examples = ", ".join(map(repr, facts["unknown_items"][:3]))
        share = f"{unknown / (unknown + kept):.0%}"
        lines.append(f"WARNING: that is {share} of the log, such as items {examples}; are the ids written alike?")
    return lines
