"""What the adapters of rated data share: the form of an interaction, the label rule, times and texts."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode
from recbase_hf.data.prepare.raw_files import RawFile
from recbase_hf.errors import DataError

__all__ = [
    "INTERACTIONS",
    "LABEL_RULE",
    "RatedFields",
    "liked",
    "plain_lists",
    "plain_text",
    "plain_texts",
    "rated_rows",
    "require_ids",
    "rows_with",
    "seconds_of_dates",
    "seconds_of_numbers",
]

INTERACTIONS = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "rating": pa.float64(),
        "timestamp": pa.int64(),
        "label": pa.int8(),
    }
)

LABEL_RULE = "rating above 3 (RecBench leaves ratings of exactly 3 out; the column rating tells them apart)"

_FIRST_MILLISECONDS = 10**11
"""The year 1973 in milliseconds and the year 5138 in seconds: what is below counts seconds."""

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")

_NOT_PLAIN = r"[&<\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]|^ | $|  "
"""Texts that `plain_text` changes have one of these: a tag, an entity, or white space that is no single space."""


@dataclass(frozen=True)
class RatedFields:
    """How a source calls the fields of a review.

    Attributes:
        user_id: who.
        item_id: what.
        rating: stars from 1 to 5.
        timestamp: when.
        time: what `timestamp` counts since 1970, or that it is a date such as 2018-07-07 22:09:11 or 2010-02-01.
    """

    user_id: str
    item_id: str
    rating: str
    timestamp: str
    time: Literal["seconds", "milliseconds", "date"]


def rated_rows(file: RawFile, fields: RatedFields) -> Iterator[pa.Table]:
    """Reviews, an object a line, as interactions with labels.

    Raises:
        DataError: a line is damaged, an id is missing, or times are in another unit; says where.
    """
    columns = {
        fields.user_id: pa.string(),
        fields.item_id: pa.string(),
        fields.rating: pa.float64(),
        fields.timestamp: pa.string() if fields.time == "date" else pa.int64(),
    }
    for first_line, table in file.json_tables(columns):
        user_ids, item_ids, ratings, times = (column.combine_chunks() for column in table.columns)
        require_ids(user_ids, f"{file.name}, field {fields.user_id}", first_line)
        require_ids(item_ids, f"{file.name}, field {fields.item_id}", first_line)
        place = f"{file.name}, field {fields.timestamp}"
        if fields.time == "date":
            seconds = seconds_of_dates(times, place, first_line)
        else:
            seconds = seconds_of_numbers(times, place, first_line, unit=fields.time)
        yield pa.table([user_ids, item_ids, ratings, seconds, liked(ratings)], schema=INTERACTIONS)


def liked(ratings: pa.Array) -> pa.Array:
    """Labels (int8): 1 above 3, else 0; missing without a rating.

    A missing label would count as liked, so that a rating of 3 gets 0.

    >>> liked(pa.array([1.0, 3.0, 4.0, None])).to_pylist()
    [0, 0, 1, None]
    """
    return pc.cast(pc.greater(ratings, 3.0), pa.int8())


def seconds_of_numbers(
    times: pa.Array, place: str, first_line: int, *, unit: Literal["seconds", "milliseconds"]
) -> pa.Array:
    """Times since 1970 (int64) in seconds.

    Args:
        place: file and field, for the error.
        first_line: of the file, in which the first time is.

    Raises:
        DataError: a time is not in that unit.
    """
    in_milliseconds = pc.greater_equal(times, _FIRST_MILLISECONDS)
    wrong = in_milliseconds if unit == "seconds" else pc.invert(in_milliseconds)
    row = _first_true(wrong)
    if row is not None:
        raise DataError(
            f"{place}, line {first_line + row}: {times[row]} does not count {unit} since 1970, as this release does; "
            "are there lines of another release?"
        )
    return times if unit == "seconds" else pc.divide(times, 1000)


def seconds_of_dates(dates: pa.Array, place: str, first_line: int) -> pa.Array:
    """ISO dates, maybe with a time of day, maybe with a zone, as seconds since 1970 (int64); UTC where none is given.

    Raises:
        DataError: a text is no date; says where.
    """
    for kind in (pa.timestamp("s"), pa.timestamp("s", "UTC")):
        try:
            return pc.cast(pc.cast(dates, kind), pa.int64())
        except pa.ArrowInvalid as error:
            message = str(error)
    raise DataError(f"{place}, from line {first_line}: not a date ({message[:150]})")


def require_ids(ids: pa.Array, place: str, first_line: int) -> None:
    """Check that none is missing or empty.

    Raises:
        DataError: one is; says where.
    """
    row = _first_true(pc.fill_null(pc.equal(ids, ""), True))
    if row is not None:
        raise DataError(f"{place}, line {first_line + row}: the id is missing; fill it in or leave the line out")


def plain_text(value: Any, separator: str = " ") -> str | None:
    """A text, or several, without HTML and with single spaces; None where nothing is left.

    >>> plain_text(["Rock &amp; Roll", "", "<b>Live</b>  1969"], separator=", ")
    'Rock & Roll, Live 1969'
    """
    texts: Iterable[Any] = value if isinstance(value, list) else [value]
    plain = (" ".join(_TAG.sub(" ", html.unescape(text)).split()) for text in texts if isinstance(text, str))
    return separator.join(text for text in plain if text) or None


def plain_texts(texts: pa.Array) -> pa.Array:
    """`plain_text` of each text of a column.

    >>> plain_texts(pa.array(["Rock &amp; Roll", "Chess", "", None])).to_pylist()
    ['Rock & Roll', 'Chess', None, None]
    """
    wanting = pc.fill_null(pc.match_substring_regex(texts, _NOT_PLAIN), False)
    changed = pa.array([plain_text(text) for text in texts.filter(wanting).to_pylist()], texts.type)
    plain = pc.replace_with_mask(texts, wanting, changed)
    return pc.if_else(pc.equal(plain, ""), pa.scalar(None, texts.type), plain)


def plain_lists(lists: pa.Array, separator: str = " ") -> pa.Array:
    """`plain_text` of each list of texts of a column.

    >>> plain_lists(pa.array([["Rock &amp; Roll", "", "Live"], [""], None]), separator=", ").to_pylist()
    ['Rock & Roll, Live', None, None]
    """
    each = explode(lists)
    plain = plain_texts(each.values)
    there = pc.is_valid(plain)
    counts = np.bincount(each.rows[there.to_numpy(zero_copy_only=False)], minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, plain.filter(there)), separator)
    return pc.if_else(pa.array(counts > 0), joined, pa.scalar(None, joined.type))


def rows_with(
    field: str,
    rows: Iterable[dict[str, Any]],
    left_out: Counter[str],
    read: Callable[[Any], Any] = lambda value: value,
) -> Iterator[dict[str, Any]]:
    """Rows in which a field holds something, maybe after it was read; the others are counted."""
    for row in rows:
        if read(row.get(field)):
            yield row
        else:
            left_out[f"items without {field}"] += 1


def _first_true(mask: pa.Array) -> int | None:
    places = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
    return int(places[0]) if len(places) else None
