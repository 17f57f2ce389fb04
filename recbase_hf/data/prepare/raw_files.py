"""Raw files as they were published: loose, gzipped or in zip archives, read in streams, errors with file and line."""

from __future__ import annotations

import ast
import csv
import fnmatch
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from recbase_hf.data.prepare.csv_faults import CsvForm, fault_of_csv
from recbase_hf.errors import DataError

__all__ = ["ROWS_A_BATCH", "JsonBlock", "RawFile", "RawFolder", "tables_of_rows"]

ROWS_A_BATCH = 50_000
"""Rows that are in memory together where Python reads them."""

_BLOCK_BYTES = 16 << 20


class RawFolder:
    """The folder with the raw files of one data set.

    Args:
        path: its files may lie in sub-folders and in zip archives; names are compared without regard to case.

    Attributes:
        found: the files, or archives, that were looked for and are there.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.found: set[Path] = set()
        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path} is not a folder; give the one that holds the raw files")

    def find(self, *patterns: str) -> RawFile:
        """The file whose name matches the first pattern that any does, such as `ratings.csv` or `*.json.gz`.

        Raises:
            FileNotFoundError: there is none; says what was looked for and what is there.
            DataError: there are several.
        """
        found = self.look_for(*patterns)
        if found is None:
            names = sorted(file.name for file in self._files())[:10]
            raise FileNotFoundError(
                f"{self.path} holds no {' or '.join(patterns)} (nor does a zip archive in it); it holds "
                f"{', '.join(names) or 'nothing'}; is it the raw folder of another data set, or of another version?"
            )
        return found

    def look_for(self, *patterns: str) -> RawFile | None:
        """`find`, or None where there is no such file."""
        for pattern in patterns:
            found = self.all(pattern)
            if len(found) > 1:
                raise DataError(f"{self.path}: both {found[0].name} and {found[1].name} are there; leave one")
            if found:
                return found[0]
        return None

    def all(self, pattern: str) -> list[RawFile]:
        """All files whose name matches, in the order of their names."""
        wanted = pattern.lower()
        matching = [file for file in self._files() if fnmatch.fnmatch(file.base_name.lower(), wanted)]
        self.found |= {file.path for file in matching}
        return sorted(matching, key=lambda file: file.name)

    def file(self, path: Path) -> RawFile:
        """A file that somebody names, wherever it lies.

        Raises:
            FileNotFoundError: there is none.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist, or is no file")
        self.found.add(path)
        return RawFile(path, is_own=True)

    def _files(self) -> Iterator[RawFile]:
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                yield RawFile(path)
                if path.suffix.lower() == ".zip":
                    with _explained(str(path)), zipfile.ZipFile(path) as archive:
                        yield from (RawFile(path, name) for name in archive.namelist() if not name.endswith("/"))


@dataclass(frozen=True)
class RawFile:
    """One file, maybe compressed, maybe a member of a zip archive."""

    path: Path
    member: str | None = None
    is_own: bool = False
    """Whether somebody named it, who knows nothing of a published format."""

    @property
    def name(self) -> str:
        """What error messages call it."""
        return str(self.path) if self.member is None else f"{self.path}, member {self.member}"

    @property
    def base_name(self) -> str:
        """Its name without folders."""
        return self.path.name if self.member is None else self.member.rsplit("/", 1)[-1]

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes, decompressed.

        Raises:
            DataError: truncated or damaged.
        """
        with _explained(self.name):
            if self.member is None:
                with open(self.path, "rb") as file:
                    yield self._decompressed(file)
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                    yield self._decompressed(file)

    def _decompressed(self, file: IO[bytes]) -> IO[bytes]:
        return gzip.GzipFile(fileobj=file) if self.base_name.lower().endswith(".gz") else file  # type: ignore[return-value]

    def lines(self, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
        """Lines without their ends, with their numbers from 1; empty ones are left out."""
        with self.open() as file:
            yield from self._texts(enumerate(file, 1), encoding)

    def _texts(self, lines: Iterable[tuple[int, bytes]], encoding: str) -> Iterator[tuple[int, str]]:
        for number, line in lines:
            try:
                text = line.decode(encoding).rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{self.name}, line {number}: not {encoding} ({error.reason}); save it as {encoding}, or name the "
                    "encoding that it has"
                ) from error
            if text:
                yield number, text

    def json_rows(self, form: Literal["json", "python"] = "json") -> Iterator[tuple[int, dict[str, Any]]]:
        """One object a line, with its line number; `python` for the files that write dictionaries as Python does."""
        return self._json_rows(self.lines(), form)

    def _json_rows(
        self, lines: Iterable[tuple[int, str]], form: Literal["json", "python"]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        parse: Callable[[str], Any] = json.loads if form == "json" else ast.literal_eval
        for number, line in lines:
            try:
                row = parse(line)
            except (ValueError, SyntaxError) as error:
                raise DataError(
                    f"{self.name}, line {number}: no {form} object ({str(error)[:100]}); download the file again"
                ) from error
            if not isinstance(row, dict):
                raise DataError(f"{self.name}, line {number}: {type(row).__name__} where an object was expected")
            yield number, row

    def json_blocks(self) -> Iterator[JsonBlock]:
        """Some megabytes of lines at a time, for a reader that knows more than one way to read them."""
        first_line = 1
        with self.open() as file:
            while content := file.read(_BLOCK_BYTES):
                content += file.readline()
                if not content.isspace():
                    yield JsonBlock(self, first_line, content)
                first_line += content.count(b"\n")

    def json_tables(self, columns: Mapping[str, pa.DataType]) -> Iterator[tuple[int, pa.Table]]:
        """Some fields of one object a line, block by block, each with the line number of its first row.

        A null, and a field that some objects lack, is missing. Much faster than `json_rows`.

        Raises:
            DataError: a line is no object, a field is of another type or no object has it; says where.
        """
        with _explained(self.name):
            for block in self.json_blocks():
                yield block.first_line, self._json_table(block.content, block.first_line, pa.schema(dict(columns)))

    def _json_table(self, block: bytes, first_line: int, schema: pa.Schema) -> pa.Table:
        try:
            table = _arrow_table_of_json(block, schema)
        except ValueError:
            for number, line in enumerate(block.split(b"\n"), first_line):
                self._check_json_line(line, number, schema)
            raise
        for name in schema.names:
            if table[name].null_count == table.num_rows:
                fields = json.loads(block.lstrip().split(b"\n", 1)[0])
                if name not in fields:
                    raise DataError(
                        f"{self.name}, line {first_line}: no field {name!r}; the fields are {', '.join(fields)}; "
                        "is it another version of the data set?"
                    )
        return table

    def _check_json_line(self, line: bytes, number: int, schema: pa.Schema) -> None:
        try:
            if line and not line.isspace():
                _arrow_table_of_json(line, schema)
        except ValueError as error:  # Arrow's errors and those of UTF-8
            wanted = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise DataError(
                f"{self.name}, line {number}: no JSON object with {wanted} ({str(error)[:100]}); is the file damaged, "
                "or of another version of the data set?"
            ) from error

    def delimited_rows(
        self, delimiter: str, names: Sequence[str], *, encoding: str = "utf-8"
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Fields of lines without a header and without quotes, whatever the length of the delimiter."""
        for number, line in self.lines(encoding):
            fields = line.split(delimiter)
            if len(fields) != len(names):
                raise DataError(
                    f"{self.name}, line {number}: {len(fields)} fields separated by {delimiter!r}, not the "
                    f"{len(names)} of this format ({', '.join(names)}); is it another version of the data set?"
                )
            yield number, dict(zip(names, fields, strict=True))

    def csv_tables(
        self,
        columns: Mapping[str, pa.DataType],
        *,
        delimiter: str = ",",
        names: Sequence[str] | None = None,
        quotes: bool = True,
        encoding: str = "utf-8",
    ) -> Iterator[pa.Table]:
        """Some columns of a delimited file, block by block.

        Args:
            columns: which, and what they hold; an empty cell is missing.
            names: of all columns, for a file without a header.
            quotes: whether cells may be in quotation marks.

        Raises:
            DataError: a column is missing, a row has other cells than the header, a cell is of another type, or the
                letters are in another encoding; says where.
        """
        ragged: list[pa_csv.InvalidRow] = []

        def note_ragged(row: pa_csv.InvalidRow) -> str:
            ragged.append(row)
            return "error"

        read_options = pa_csv.ReadOptions(column_names=names, block_size=_BLOCK_BYTES, encoding=encoding)
        parse_options = pa_csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quotes else False,
            newlines_in_values=quotes,
            invalid_row_handler=note_ragged,
        )
        convert_options = pa_csv.ConvertOptions(
            column_types=dict(columns), include_columns=list(columns), strings_can_be_null=True, null_values=[""]
        )
        with self.open() as file:
            try:
                for batch in pa_csv.open_csv(file, read_options, parse_options, convert_options):
                    yield pa.Table.from_batches([batch])
            except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeError) as error:
                form = CsvForm(delimiter, names, quotes, encoding)
                fault = fault_of_csv(self, form, list(columns), error, ragged)
                if self.is_own:
                    raise DataError(f"{self.name}: {fault}") from error
                raise DataError(
                    f"{self.name} is not in the published format ({fault}); is it another version, or edited?"
                ) from error

    def parquet_tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Some columns of a Parquet file, or all, block by block.

        Raises:
            DataError: a column is missing.
        """
        with self.open() as file, _explained(self.name):
            parquet = pq.ParquetFile(file if file.seekable() else io.BytesIO(file.read()))
            if columns is None:
                columns = parquet.schema_arrow.names
            missing = [column for column in columns if column not in parquet.schema_arrow.names]
            if missing:
                raise DataError(f"{self.name}: no column {missing[0]!r}; the columns are {parquet.schema_arrow.names}")
            for batch in parquet.iter_batches(ROWS_A_BATCH, columns=list(columns)):
                yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class JsonBlock:
    """Lines of a file, an object each.

    Attributes:
        file: where they are from.
        first_line: the number of the first.
        content: all of them.
    """

    file: RawFile
    first_line: int
    content: bytes

    def table(self, schema: pa.Schema) -> pa.Table | None:
        """Some fields of them; None where Arrow cannot read one, be it damaged or of another type."""
        try:
            return _arrow_table_of_json(self.content, schema)
        except ValueError:  # Arrow's errors and those of UTF-8
            return None

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects, with their line numbers, as `RawFile.json_rows` has them."""
        lines = enumerate(self.content.split(b"\n"), self.first_line)
        return self.file._json_rows(self.file._texts(lines, "utf-8"), "json")


def tables_of_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows that Python made as tables of `ROWS_A_BATCH` rows; at least one, maybe empty."""
    remaining = iter(rows)
    block = list(islice(remaining, ROWS_A_BATCH))
    yield pa.Table.from_pylist(block, schema=schema)
    while block := list(islice(remaining, ROWS_A_BATCH)):
        yield pa.Table.from_pylist(block, schema=schema)


def _arrow_table_of_json(block: bytes, schema: pa.Schema) -> pa.Table:
    table = pa_json.read_json(
        pa.BufferReader(block),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    table.validate(full=True)  # of UTF-8
    return table


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Errors of readers and decompressors, with the file and what to do."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise DataError(f"{name} is truncated or damaged ({error}); download it again") from error
    except (pa.ArrowInvalid, pa.ArrowKeyError, csv.Error) as error:
        raise DataError(
            f"{name} is not in the published format ({str(error)[:200]}); is it another version, or edited?"
        ) from error
