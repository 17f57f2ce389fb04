"""What some published files have that others have not: another encoding, texts on several lines, numbers alike."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.data.prepare.registry import published_data


def column_of(name: str, folder: Path, table: str, column: str) -> list[str]:
    prepare(published_data(name), folder, folder / "out")
    values: list[str] = pq.read_table(folder / "out" / f"{table}.parquet")[column].to_pylist()
    return values


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_accents_of_movielens_1m_and_10m(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "movies.dat").write_bytes("73::Misérables, Les (1995)::Drama\n".encode(encoding))
    (tmp_path / "ratings.dat").write_text("1::73::4.5::838985046\n")
    assert column_of("movielens-1m", tmp_path, "items", "title") == ["Misérables, Les"]


LOG = "UserID\tClicknewsID\tdwelltime\texposure_time\tpos\tneg\tstart\tend\tdwelltime_pos\n"
CLICK = "U1\tN1\t9\t\tN2\tN1\t7/3/2019 6:43:49 AM\t7/3/2019 7:06:06 AM\t34\n"


@pytest.mark.parametrize(
    ("written", "bodies"),
    [
        ('"First.\n\nSecond,\t""so""."', ['First.\n\nSecond,\t"so".', "B"]),
        ('"Never closed', ['"Never closed', "B"]),
        ('"Closed"', ["Closed", "B"]),
    ],
)
def test_quotation_marks_of_pens(tmp_path: Path, written: str, bodies: list[str]) -> None:
    header = "News ID\tCategory\tTopic\tHeadline\tNews body\tTitle entity\tEntity content\n"
    news = f"N1\tsports\tsoccer\tA\t{written}\t{{}}\t{{}}\nN2\tnews\tworld\tB\tB\t{{}}\t{{}}\n"
    (tmp_path / "news.tsv").write_text(header + news)
    (tmp_path / "train.tsv").write_text(LOG + CLICK)
    (tmp_path / "valid.tsv").write_text(LOG)
    assert column_of("pens", tmp_path, "items", "body") == bodies


def test_pairs_of_ninerec_name_the_item_first_where_users_are_numbered_alike(tmp_path: Path) -> None:
    (tmp_path / "Bili_Food_item.csv").write_text("1,一,One\n2,二,Two\n", encoding="utf-8")
    (tmp_path / "Bili_Food_pair.csv").write_text("1,2,100\n2,2,200\n")
    assert column_of("ninerec-bili-food", tmp_path, "interactions", "user_id") == ["2", "2"]
