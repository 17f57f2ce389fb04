"""Raw files: loose, gzipped and in archives they read the same, and every fault is named with its place."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbase_hf.data.prepare import raw_files
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows
from recbase_hf.errors import DataError


def raw_file(folder: Path, content: str | bytes, name: str = "raw.txt") -> RawFile:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return RawFile(path)


def as_loose(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def as_gzip(folder: Path, name: str, content: bytes) -> None:
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def as_zip(folder: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr(f"inner/{name}", content)


def as_gzip_in_zip(folder: Path, name: str, content: bytes) -> None:
    as_zip(folder, f"{name}.gz", gzip.compress(content))


# Finding


@pytest.mark.parametrize("store", [as_loose, as_gzip, as_zip, as_gzip_in_zip])
def test_packed_files_read_as_loose_ones(tmp_path: Path, store: Any) -> None:
    content = b'{"a": 1}\n{"a": 2}\n'
    store(tmp_path, "rows.json", content)
    file = RawFolder(tmp_path).find("rows.json", "rows.json.gz")
    with file.open() as opened:
        assert opened.read() == content
    assert list(file.lines()) == [(1, '{"a": 1}'), (2, '{"a": 2}')]
    assert [row for _, row in file.json_rows()] == [{"a": 1}, {"a": 2}]
    assert [table.to_pydict() for _, table in file.json_tables({"a": pa.int64()})] == [{"a": [1, 2]}]


def test_names_are_found_in_subfolders_and_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "ML-1M").mkdir()
    raw_file(tmp_path / "ML-1M", "x", "Ratings.DAT")
    assert RawFolder(tmp_path).find("ratings.dat").base_name == "Ratings.DAT"


def test_the_first_pattern_wins_and_all_are_sorted(tmp_path: Path) -> None:
    for name in ("part_2.txt", "part_1.txt", "other.csv"):
        raw_file(tmp_path, "x", name)
    folder = RawFolder(tmp_path)
    assert folder.find("missing.txt", "other.csv", "part_1.txt").base_name == "other.csv"
    assert [file.base_name for file in folder.all("part_*.txt")] == ["part_1.txt", "part_2.txt"]
    assert folder.look_for("missing.txt") is None


def test_what_is_not_found_is_told_with_what_is_there(tmp_path: Path) -> None:
    raw_file(tmp_path, "x", "movies.dat")
    with pytest.raises(FileNotFoundError, match=r"holds no movies\.csv .*movies\.dat; is it .*another version"):
        RawFolder(tmp_path).find("movies.csv")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        RawFolder(tmp_path / "nowhere")


def test_two_files_of_a_name_are_refused(tmp_path: Path) -> None:
    as_loose(tmp_path, "rows.json", b"{}")
    as_zip(tmp_path, "rows.json", b"{}")
    with pytest.raises(DataError, match=r"rows\.json.* are there; leave one"):
        RawFolder(tmp_path).find("rows.json")


# Damage


def damaged_gzip(folder: Path) -> RawFile:
    content = gzip.compress(json.dumps({"a": list(range(5000))}).encode() + b"\n")
    return raw_file(folder, content[:-100], "rows.json.gz")


def test_a_truncated_gzip_is_named_by_every_reader(tmp_path: Path) -> None:
    file = damaged_gzip(tmp_path)
    for read in (file.lines, file.json_rows, lambda: file.json_tables({"a": pa.int64()})):
        with pytest.raises(DataError, match=r"rows\.json\.gz is truncated or damaged .*download it again"):
            list(read())
    with pytest.raises(DataError, match=r"rows\.json\.gz is truncated or damaged"):
        list(file.csv_tables({"a": pa.int64()}))


def test_what_is_no_gzip_and_no_zip_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.gz is truncated or damaged"):
        list(raw_file(tmp_path, "plain", "rows.gz").lines())
    raw_file(tmp_path, "plain", "rows.zip")
    with pytest.raises(DataError, match=r"rows\.zip is truncated or damaged"):
        RawFolder(tmp_path).find("rows.csv")


# Lines


def test_lines_lose_their_ends_and_keep_their_numbers(tmp_path: Path) -> None:
    assert list(raw_file(tmp_path, "a\r\n\n b \nc").lines()) == [(1, "a"), (3, " b "), (4, "c")]


def test_lines_in_another_encoding_are_named(tmp_path: Path) -> None:
    file = raw_file(tmp_path, "a\nAmélie\n".encode("latin-1"))
    assert list(file.lines("latin-1"))[1] == (2, "Amélie")
    with pytest.raises(DataError, match=r"line 2: not utf-8"):
        list(file.lines())


def test_delimited_rows(tmp_path: Path) -> None:
    file = raw_file(tmp_path, '1::"A" title::x|y\n2::B\n')
    rows = file.delimited_rows("::", ["id", "title", "genres"])
    assert next(rows) == (1, {"id": "1", "title": '"A" title', "genres": "x|y"})
    with pytest.raises(DataError, match=r"line 2: 2 fields separated by '::', not the 3 .*\(id, title, genres\)"):
        next(rows)


# JSON


def test_python_dictionaries_where_they_are_published(tmp_path: Path) -> None:
    file = raw_file(tmp_path, "{'a': u'x', 'b': True}\n")
    assert list(file.json_rows("python")) == [(1, {"a": "x", "b": True})]
    with pytest.raises(DataError, match=r"line 1: no json object"):
        list(file.json_rows())


@pytest.mark.parametrize(("line", "message"), [("[1]", "list where an object"), ("{", "no json object")])
def test_lines_that_are_no_objects_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"line 2: {message}"):
        list(raw_file(tmp_path, f'{{"a": 1}}\n{line}\n').json_rows())


@pytest.mark.parametrize("line", [b"[1]", b'{"a": ', b'{"a": "one"}', b'{"a": 1.5}', b'{"a": 1, "b": "\xff"}'])
def test_json_tables_name_the_line_that_is_wrong(tmp_path: Path, line: bytes) -> None:
    file = raw_file(tmp_path, b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"line 3: no JSON object with a \(int64\), b \(string\) "):
        list(file.json_tables({"a": pa.int64(), "b": pa.string()}))


def test_json_tables_tell_of_fields_that_no_object_has(tmp_path: Path) -> None:
    file = raw_file(tmp_path, '{"a": null, "c": 0}\n{"a": null, "b": 2}\n')
    (_, table), *_ = file.json_tables({"a": pa.int64(), "b": pa.int64()})
    assert table.to_pylist() == [{"a": None, "b": None}, {"a": None, "b": 2}]
    with pytest.raises(DataError, match=r"line 1: no field 'x'; the fields are a, c; is it another version"):
        list(file.json_tables({"x": pa.int64()}))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.none() | st.integers(-5, 5)}), max_size=8),
    block=st.integers(1, 80),
)
def test_blocks_of_any_size_hold_the_same_rows(tmp_path: Path, rows: list[dict[str, Any]], block: int) -> None:
    file = raw_file(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_files, "_BLOCK_BYTES", block)
        blocks = list(file.json_tables({"a": pa.string(), "b": pa.int64()}))
    assert [row for _, table in blocks for row in table.to_pylist()] == rows
    assert [first for first, _ in blocks] == [
        1 + sum(table.num_rows for _, table in blocks[:place]) for place in range(len(blocks))
    ]


# CSV and Parquet


def test_csv_tables(tmp_path: Path) -> None:
    file = raw_file(tmp_path, 'id,title,other\n007,"Me, ""myself""",1\n8,NA,2\n9,,3\n')
    (table,) = file.csv_tables({"title": pa.string(), "id": pa.string()})
    assert table.to_pydict() == {"title": ['Me, "myself"', "NA", None], "id": ["007", "8", "9"]}


def test_csv_tables_without_a_header_and_without_quotes(tmp_path: Path) -> None:
    file = raw_file(tmp_path, 'x\t"5\ny\t6"\n'.encode("utf-16"))
    (table,) = file.csv_tables(
        {"size": pa.string()}, delimiter="\t", names=["id", "size"], quotes=False, encoding="utf-16"
    )
    assert table.to_pydict() == {"size": ['"5', '6"']}


@pytest.mark.parametrize(
    ("content", "message"),
    [("id;rating\n1;2\n", "'id'"), ("id,rating\n1,x\n", "'x'"), ("id,rating\n1\n", "columns"), ("", "[Ee]mpty")],
)
def test_other_csv_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = raw_file(tmp_path, content, "ratings.csv")
    with pytest.raises(DataError, match=rf"ratings\.csv is not in the published format \(.*{message}"):
        list(file.csv_tables({"id": pa.string(), "rating": pa.float64()}))


def test_parquet_tables(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "loose.parquet")
    as_zip(tmp_path, "packed.parquet", (tmp_path / "loose.parquet").read_bytes())
    for name in ("loose.parquet", "packed.parquet"):
        file = RawFolder(tmp_path).find(name)
        assert [table.to_pydict() for table in file.parquet_tables(["b"])] == [{"b": ["x", "y"]}]
        with pytest.raises(DataError, match=r"no column 'c'; the columns are \['a', 'b'\]"):
            list(file.parquet_tables(["c"]))


def test_tables_of_rows_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "ROWS_A_BATCH", 2)
    schema = pa.schema({"a": pa.int64()})
    sizes = [[table.num_rows for table in tables_of_rows([{"a": 1}] * count, schema)] for count in (0, 2, 5)]
    assert sizes == [[0], [2], [2, 2, 1]]
