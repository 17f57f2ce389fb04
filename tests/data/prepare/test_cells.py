"""Cells of somebody's log are read as what they are, and one that cannot be is named by its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf.data.prepare import raw_files
from recbase_hf.data.prepare.cells import CellKind, CellReader
from recbase_hf.data.prepare.columns import UnixSeconds
from recbase_hf.data.prepare.own_csv import CsvColumns, own_data
from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.errors import DataError


def read(kind: CellKind, *blocks: list[str | None]) -> list[Any]:
    reader = CellReader("log.csv, column 'c'", kind)
    return [value for block in blocks for value in reader.read(pa.array(block, pa.string())).to_pylist()]


@pytest.mark.parametrize(
    ("kind", "cells", "values"),
    [
        ("id", ["007", " a "], ["007", " a "]),
        ("place", ["3", " -1 ", "", None, "9007199254740993"], [3, -1, None, None, 2**53 + 1]),
        ("place", ["3.0", "1e3"], [3, 1000]),
        ("rating", ["4.5", ".5", "-1", ""], [4.5, 0.5, -1.0, None]),
        ("label", ["1", "0.0", ""], [1, 0, None]),
        ("time", ["1500000000", "", "1500000000.5"], [1.5e9, None, 1500000000.5]),
        ("time", ["1500000000250", None], [1500000000.25, None]),
        ("time", ["2020-01-01", "2020-01-01 00:01", "2020-01-01T01:00:00+01:00"], [1577836800, 1577836860, 1577836800]),
        ("time", ["2020-01-01T00:00:00.123456789Z"], [1577836800.123456]),
    ],
)
def test_cells_are_read(kind: CellKind, cells: list[str | None], values: list[Any]) -> None:
    assert read(kind, cells) == values
    assert read(kind, *([cell] for cell in cells)) == values


@pytest.mark.parametrize(
    ("kind", "cells", "message"),
    [
        ("id", ["a", " "], "row 2: the id is missing"),
        ("place", ["1", "1.5"], "row 2: '1.5' is no whole number"),
        ("rating", ["1", "nan"], "row 2: 'nan' is no number; write one, or empty the cell"),
        ("rating", ["1", "5,0"], "row 2: '5,0' is no number"),
        ("label", ["1", "", "2"], "row 3: '2' is neither 0 nor 1"),
        ("time", ["", "2020-01-01", "1577836800"], "row 3: '1577836800' is a number, unlike the time in row 2; write"),
        ("time", ["1577836800", "2020-01-01"], "row 2: '2020-01-01' is no number, unlike the time in row 1"),
        ("time", ["1577836800", "1577836800000"], "row 2: .* counts milliseconds, but .* in row 1 seconds"),
        ("time", ["2020-01-01", "", "01/02/2020"], "row 3: '01/02/2020' is no time; write .* ISO 8601"),
        ("time", ["2020-01-01", "2020-13-01"], "row 2: '2020-13-01' is no time"),
    ],
)
def test_cells_that_cannot_be_read_are_named(kind: CellKind, cells: list[str | None], message: str) -> None:
    for blocks in ([cells], [[cell] for cell in cells]):
        with pytest.raises(DataError, match=f"log.csv, column 'c', {message}"):
            read(kind, *blocks)


def test_a_file_counts_seconds_or_milliseconds_not_both() -> None:
    milliseconds = UnixSeconds("pairs.csv, column 'timestamp'")
    assert milliseconds.of(pa.array([None, 1_500_000_000_999])).to_pylist() == [None, 1_500_000_000]
    with pytest.raises(DataError, match=r"row 4: 0 counts seconds, but 1500000000999 in row 2 milliseconds"):
        milliseconds.of(pa.array([1_500_000_000_000, 0]))
    seconds = UnixSeconds("pairs.csv, column 'timestamp'")
    assert seconds.of(pa.array([1_500_000_000])).to_pylist() == [1_500_000_000]


def own(folder: Path, log: str, **columns: str) -> CsvColumns:
    (folder / "log.csv").write_text(log, encoding="utf-8")
    return CsvColumns(folder / "log.csv", "user", "item", texts=("name",), **columns)


def test_a_log_gets_types(tmp_path: Path) -> None:
    log = '\ufeff"user",item,name,when,stars,place,liked\n1,a,A,2020-01-01,4.5,1,1\n1,b,B,,,,\n'
    columns = own(tmp_path, log, timestamp="when", rating="stars", order="place", label="liked")
    prepare(own_data(columns, "log"), tmp_path, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "interactions.parquet").to_pylist()
    first = {"user_id": "1", "item_id": "a", "timestamp": 1577836800.0, "order": 1, "rating": 4.5, "label": 1}
    assert rows[0] == first
    assert rows[1] == {**dict.fromkeys(first), "user_id": "1", "item_id": "b"}


def test_rows_are_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "_BLOCK_BYTES", 30)
    log = "user,item,name,when\n" + "1,a,A,1577836800\n" * 9 + "1,a,A,1577836800000\n"
    with pytest.raises(DataError, match=r"log\.csv, column 'when', row 10: 1577836800000.* counts milliseconds"):
        prepare(own_data(own(tmp_path, log, timestamp="when"), "log"), tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match=r"log\.csv, column 'item', row 2: the id is missing"):
        prepare(own_data(own(tmp_path, "user,item,name\n1,a,A\n1,,B\n"), "log"), tmp_path, tmp_path / "out")


def test_other_columns_are_other_data(tmp_path: Path) -> None:
    log = "user,item,name,when,then\n1,a,A,1,2\n"
    settings = {own_data(own(tmp_path, log, timestamp=name), "log").settings for name in ("when", "then")}
    assert len(settings) == 2
