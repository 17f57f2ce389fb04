"""A delimited file that cannot be read is refused with its name, the line and what to do."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recbase_hf.data.prepare import raw_files
from recbase_hf.data.prepare.csv_faults import CsvForm
from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.data.prepare.registry import published_data
from recbase_hf.errors import DataError

COLUMNS = {"id": pa.string(), "rating": pa.float64()}
GOOD = "".join(f'"{number}\nx",4.5\n' for number in range(20))


def refused(folder: Path, content: bytes, name: str = "ratings.csv", **options: Any) -> str:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as said:
        list(RawFile(folder / name).csv_tables(COLUMNS, **options))
    message = str(said.value)
    assert message.startswith(str(folder / name))
    return message


@pytest.mark.parametrize("block", [40, 1 << 20])
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (f"id,rating\n{GOOD}é,1\n".encode("latin-1"), "line 42: not utf-8 .*save it as utf-8, or name the encoding"),
        (f"id,rating\n{GOOD}7\n".encode(), "line 42: 1 cells where there are 2 columns; put cells .* double quotes"),
        (f"id,rating\n{GOOD}7,1,2\n".encode(), "line 42: 3 cells where there are 2 columns"),
        (f"id,rating\n{GOOD}7,five\n".encode(), "line 42, column 2: 'five' where double is wanted"),
        (f"other,id,rating\n{GOOD.replace(',', ',,')}7,five,five\n".encode(), "line 42, column 3: 'five' where double"),
        (b"id;rating\n1;2\n", "line 1: one column, 'id;rating', where 'id', 'rating' are wanted; is ',' the right del"),
        (b"\xef\xbb\xbfid,stars\n1,2\n", "no column 'rating'; the columns are id, stars"),
        (b"", "empty"),
    ],
)
def test_faults_have_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, content: bytes, fault: str
) -> None:
    monkeypatch.setattr(raw_files, "_BLOCK_BYTES", block)
    message = refused(tmp_path, content)
    assert re.search(rf"not in the published format \(.*{fault}.*is it another version", message, re.DOTALL), message
    (tmp_path / "ratings.csv").unlink()
    assert re.search(fault, refused(tmp_path, gzip.compress(content), "ratings.csv.gz"))


def test_files_without_a_header(tmp_path: Path) -> None:
    names = ["id", "rating"]
    assert "line 2: 3 cells" in refused(tmp_path, b"1\t2\n3\t4\t5\n", delimiter="\t", names=names, quotes=False)
    assert "one column, '1,2', where" in refused(tmp_path, b"1,2\n3,4\n", delimiter="\t", names=names, quotes=False)
    assert "line 1, column 2: 'x' where double" in refused(tmp_path, b"1,x\n", names=names)


def test_letters_of_another_encoding_than_asked_for(tmp_path: Path) -> None:
    assert "not utf-16" in refused(tmp_path, b"id,rating\n1,2\n", encoding="utf-16")
    with pytest.raises(DataError, match="there is no encoding 'utf-9'"):
        CsvForm(",", None, quotes=True, encoding="utf-9")


def test_a_truncated_archive(tmp_path: Path) -> None:
    packed = gzip.compress(b"id,rating\n" + b"".join(b"%d,%d\n" % (n, n**3) for n in range(5000)))
    assert "is truncated or damaged" in refused(tmp_path, packed[:-2000], "ratings.csv.gz")


def test_the_archive_of_another_data_set(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/movies.dat", "1::A (1990)::Drama\n")
    with pytest.raises(
        FileNotFoundError, match=r"no movies\.csv .*ml-1m\.zip, member ml-1m/movies\.dat; is it the raw"
    ):
        prepare(published_data("movielens-32m"), tmp_path, tmp_path / "out")
    (tmp_path / "ml-1m.zip").write_bytes((tmp_path / "ml-1m.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"ml-1m\.zip is truncated or damaged .*download it again"):
        RawFolder(tmp_path).find("movies.csv")
