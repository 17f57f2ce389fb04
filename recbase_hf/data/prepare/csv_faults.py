"""Why a delimited file could not be read, with the line: looked for afterwards, so that good files are read fast."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow.csv as pa_csv

from recbase_hf.errors import DataError

if TYPE_CHECKING:
    from recbase_hf.data.prepare.raw_files import RawFile

__all__ = ["CsvForm", "fault_of_csv"]


class CsvForm:
    """How a delimited file is written.

    Args:
        delimiter: between cells.
        names: of all columns, for a file without a header.
        quotes: whether cells may be in quotation marks.
        encoding: of the letters.

    Raises:
        DataError: there is no such encoding, or the delimiter is more than one character.
    """

    def __init__(self, delimiter: str, names: Sequence[str] | None, quotes: bool, encoding: str) -> None:
        if len(delimiter) != 1:
            raise DataError(f"the delimiter is {delimiter!r}; give one character, or tab")
        self.delimiter, self.names, self.quotes = delimiter, names, quotes
        try:
            self.encoding = codecs.lookup(encoding).name
        except LookupError as error:
            raise DataError(f"there is no encoding {encoding!r}; utf-8, latin-1 and cp1252 are usual") from error

    def rows(self, file: RawFile) -> Iterator[tuple[int, list[str]]]:
        """The rows with the lines that they start on, the header among them; wrong letters are replaced.

        Raises:
            DataError: nothing of it is in this encoding.
        """
        encoding = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        with file.open() as content, io.TextIOWrapper(content, encoding, "replace", newline="") as text:
            line = 1
            reader = csv.reader(
                text, delimiter=self.delimiter, quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
            )
            try:
                for row in reader:
                    if row:
                        yield line, row
                    line = reader.line_num + 1
            except UnicodeError as error:
                raise DataError(
                    f"{file.name}: not {self.encoding} ({error}); name the encoding that it has (--encoding)"
                ) from error


def fault_of_csv(
    file: RawFile, form: CsvForm, wanted: Sequence[str], error: Exception, ragged: Sequence[pa_csv.InvalidRow]
) -> str:
    """What is wrong and what to do about it, in the words of an error message.

    Args:
        wanted: the columns that should be there.
        error: of the fast reader.
        ragged: rows of other lengths that it met.
    """
    with suppress(csv.Error):  # a cell that Python's reader takes for too large
        return (
            _wrong_letters(file, form)
            or _missing_column(file, form, wanted)
            or _ragged_row(file, form, ragged)
            or _wrong_cell(file, form, str(error))
            or str(error)[:200]
        )
    return str(error)[:200]


def _wrong_letters(file: RawFile, form: CsvForm) -> str | None:
    if "\n".encode(form.encoding) != b"\n":  # lines cannot be told apart before they are decoded
        return None
    with file.open() as content:
        for number, line in enumerate(content, 1):
            try:
                line.decode(form.encoding)
            except UnicodeDecodeError as error:
                return (
                    f"line {number}: not {form.encoding} ({error.reason}); save it as {form.encoding}, or name the "
                    "encoding that it has (--encoding latin-1, or cp1252)"
                )
    return None


def _missing_column(file: RawFile, form: CsvForm, wanted: Sequence[str]) -> str | None:
    first = next(form.rows(file), None)
    if first is None:
        return "empty; download or write it again"
    there = form.names or first[1]
    if len(first[1]) == 1 and len(there if form.names else wanted) > 1:
        return (
            f"line 1: one column, {first[1][0][:80]!r}, where {', '.join(map(repr, wanted))} are wanted; is "
            f"{form.delimiter!r} the right delimiter?"
        )
    missing = [name for name in wanted if name not in there]
    return f"no column {missing[0]!r}; the columns are {', '.join(there)}" if missing else None


def _ragged_row(file: RawFile, form: CsvForm, ragged: Sequence[pa_csv.InvalidRow]) -> str | None:
    if not ragged:
        return None
    expected = ragged[0].expected_columns
    for line, row in form.rows(file):
        if len(row) != expected:
            return (
                f"line {line}: {len(row)} cells where there are {expected} columns; put cells that hold a separator or "
                "a line break between double quotes"
            )
    return None


def _wrong_cell(file: RawFile, form: CsvForm, error: str) -> str | None:
    pattern = r"In CSV column #(\d+):(?: Row #\d+:)? CSV conversion error to (\w+): invalid value '(.*)'"
    said = re.search(pattern, error, re.DOTALL)
    if not said:
        return None
    column, kind, value = int(said[1]), said[2], said[3]
    for line, row in form.rows(file):
        if len(row) > column and row[column].strip() == value.strip() and not (line == 1 and not form.names):
            return f"line {line}, column {column + 1}: {value!r} where {kind} is wanted; correct the cell, or empty it"
    return None
