"""After an interruption the same call goes on, and gives what it would have given at once; nothing half looks whole."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf.data.prepare import prepared, unfinished
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData, prepare
from recbase_hf.data.prepare.raw_files import RawFolder
from recbase_hf.errors import DataError

ITEMS = [{"item_id": ["a", "b", "a"], "title": ["A", "B", "again"]}, {"item_id": ["c"], "title": ["C"]}]
EVENTS = [
    {"user_id": ["u", "u"], "item_id": ["a", "x"]},
    {"user_id": ["v"], "item_id": ["b"]},
    {"user_id": ["v"], "item_id": ["c"]},
]
SHOWN = [
    {"user_id": ["u"], "history": [["a", "x"]], "candidates": [["b", "y"]], "labels": [[1, 0]]},
    {"user_id": ["v"], "history": [["b"]], "candidates": [["y", "c"]], "labels": [[1, 0]]},
]
TABLES = {"items": ITEMS, "interactions": EVENTS, "impressions": SHOWN}

Interrupt = Callable[[str, int], None]


def data_set(interrupt: Interrupt = lambda table, block: None, read: list[str] | None = None) -> PublishedData:
    """Three tables in blocks; before each block, and after the last, `interrupt` is called."""

    def adapter(raw: RawFolder) -> PreparedTables:
        raw.find("raw.txt")
        left_out: Counter[str] = Counter()

        def blocks(name: str) -> Iterator[pa.Table]:
            for number, block in enumerate(TABLES[name]):
                interrupt(name, number)
                left_out[f"{name} that are odd"] += 1
                if read is not None:
                    read.append(name)
                yield pa.table(block)
            interrupt(name, len(TABLES[name]))

        return PreparedTables(*map(blocks, TABLES), left_out=left_out)

    return PublishedData("tiny", "toys", "none", "nowhere", ("raw.txt",), ("title",), "bought", adapter)


def raw_folder(folder: Path) -> Path:
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    (raw / "raw.txt").write_text("raw")
    return raw


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def raise_at(table: str, block: int, error: BaseException) -> Interrupt:
    def interrupt(name: str, number: int) -> None:
        if (name, number) == (table, block):
            raise error

    return interrupt


PLACES = [(table, block) for table, blocks in TABLES.items() for block in range(len(blocks) + 1)]


@pytest.mark.parametrize(("table", "block"), PLACES)
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path, table: str, block: int) -> None:
    raw = raw_folder(tmp_path)
    facts = prepare(data_set(), raw, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        prepare(data_set(raise_at(table, block, KeyboardInterrupt())), raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    read: list[str] = []
    assert prepare(data_set(read=read), raw, tmp_path / "out") == facts
    assert content(tmp_path / "out") == content(tmp_path / "straight")
    finished = list(TABLES)[: list(TABLES).index(table)]
    assert set(read) == set(TABLES) - set(finished)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw", "straight"]


def test_all_that_was_left_out_is_counted(tmp_path: Path) -> None:
    facts = prepare(data_set(), raw_folder(tmp_path), tmp_path / "out")
    assert facts["rows"] == {"items": 3, "interactions": 3, "impressions": 1}
    assert (facts["repeated_items"], facts["interactions_of_unknown_items"], facts["unknown_items"]) == (1, 1, ["x"])
    assert (facts["unknown_history_items"], facts["unknown_candidates"]) == (1, 2)
    assert (facts["impressions_left_out"], facts["unknown_items_of_impressions"]) == (1, ["y", "x"])
    assert facts["left_out_of_raw_files"] == {
        "items that are odd": 2,
        "interactions that are odd": 3,
        "impressions that are odd": 2,
    }
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == facts


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_unfinished import data_set, prepare

def kill(table, block):
    if (table, block) == ("interactions", 2):
        os.kill(os.getpid(), signal.SIGKILL)

prepare(data_set(kill), Path({raw!r}), Path({out!r}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_killed_run_goes_on_and_its_litter_goes(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    script = KILLED.format(tests=str(Path(__file__).parent), raw=str(raw), out=str(tmp_path / "out"))
    ended = subprocess.run([sys.executable, "-c", script], env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    assert ended.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.unfinished", "raw"]
    assert any(path.name.endswith(".partial") for path in (tmp_path / ".out.unfinished").iterdir())
    read: list[str] = []
    prepare(data_set(read=read), raw, tmp_path / "out")
    assert "items" not in read
    prepare(data_set(), raw, tmp_path / "straight")
    assert content(tmp_path / "out") == content(tmp_path / "straight")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw", "straight"]


def other_raw_file(raw: Path) -> dict[str, Any]:
    (raw / "raw.txt").write_text("another")
    return {}


def touched_raw_file(raw: Path) -> dict[str, Any]:
    os.utime(raw / "raw.txt", ns=(0, 12345))
    return {}


@pytest.mark.parametrize(
    "change",
    [
        other_raw_file,
        touched_raw_file,
        lambda _: {"published": {"name": "other"}},
        lambda _: {"published": {"settings": "other"}},
        lambda _: {"unknown_items": "error"},
        lambda _: {"version": "9.9"},
    ],
)
def test_what_was_made_of_anything_else_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], dict[str, Any]]
) -> None:
    raw = raw_folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare(data_set(raise_at("interactions", 0, KeyboardInterrupt())), raw, tmp_path / "out")
    changed = change(raw)
    monkeypatch.setattr(prepared, "__version__", changed.get("version", prepared.__version__))
    read: list[str] = []
    published = dataclasses.replace(data_set(read=read), **changed.get("published", {}))
    policy = changed.get("unknown_items", "drop")
    if policy == "error":
        with pytest.raises(DataError, match=r"1 interactions have items .*such as x"):
            prepare(published, raw, tmp_path / "out", unknown_items="error")
    else:
        prepare(published, raw, tmp_path / "out", unknown_items=policy)
    assert read.count("items") == 2


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare(data_set(raise_at("interactions", 0, KeyboardInterrupt())), raw, tmp_path / "out")
    (tmp_path / ".out.unfinished" / "finished.json").write_text("{")
    read: list[str] = []
    prepare(data_set(read=read), raw, tmp_path / "out")
    assert read.count("items") == 2


def test_a_kill_while_all_is_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "write_json", interrupted_at_the_end(unfinished.write_json))
        with pytest.raises(KeyboardInterrupt):
            prepare(data_set(), raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare(data_set(), raw, tmp_path / "out")
    prepare(data_set(), raw, tmp_path / "straight")
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def interrupted_at_the_end(write: Callable[..., None]) -> Callable[..., None]:
    def write_or_stop(path: Path, facts: Any) -> None:
        if path.name == "dataset.json":
            raise KeyboardInterrupt
        write(path, facts)

    return write_or_stop


def test_damaged_raw_files_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 7"):
        prepare(data_set(raise_at("impressions", 1, DataError("line 7"))), raw_folder(tmp_path), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize("table", TABLES)
def test_a_full_disk_is_told_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    raw = raw_folder(tmp_path)
    columns = set(TABLES[table][0])
    real = pq.ParquetWriter.write_table

    def full(writer: pq.ParquetWriter, rows: pa.Table) -> None:
        if set(rows.column_names) == columns:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(writer, rows)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(
            OSError, match=rf"out: {table} \(after 0 rows\) could not .*No space left.*make room"
        ) as said:
            prepare(data_set(), raw, tmp_path / "out")
        assert said.value.errno == errno.ENOSPC
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.rglob("*.partial")]
    read: list[str] = []
    prepare(data_set(read=read), raw, tmp_path / "out")
    assert set(read) == set(list(TABLES)[list(TABLES).index(table) :])


def test_a_target_that_cannot_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_folder(tmp_path)
    (tmp_path / "file").write_text("")
    read: list[str] = []
    with pytest.raises(FileExistsError, match="is a file"):
        prepare(data_set(read=read), raw, tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError, match="holds the current folder"):
        prepare(data_set(read=read), raw, tmp_path)
    assert not read


# What is left out of impressions


def left_of(
    shown: Iterable[dict[str, Any]], folder: Path, **policy: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    published = data_set()

    def adapter(raw: RawFolder) -> PreparedTables:
        table = pa.Table.from_pylist([{"user_id": "u", **row} for row in shown])
        return published.adapter(raw)._replace(impressions=[table])

    facts = prepare(dataclasses.replace(published, adapter=adapter), raw_folder(folder), folder / "out", **policy)
    path = folder / "out" / "impressions.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else [], facts


def test_impressions_lose_unknown_items(tmp_path: Path) -> None:
    rows, facts = left_of(
        [
            {"history": ["a", "x", "b"], "candidates": ["b", "c"], "labels": [1, 0]},
            {"history": None, "candidates": ["x", "b", "c"], "labels": [0, 1, 0]},
            {"history": [], "candidates": ["b", "x"], "labels": [0, 1]},
            {"history": ["a"], "candidates": ["x", "y"], "labels": [1, 1]},
            {"history": ["a"], "candidates": ["b", "c"], "labels": [0, 0]},
        ],
        tmp_path,
    )
    assert rows == [
        {"user_id": "u", "history": ["a", "b"], "candidates": ["b", "c"], "labels": [1, 0]},
        {"user_id": "u", "history": None, "candidates": ["b", "c"], "labels": [1, 0]},
        {"user_id": "u", "history": ["a"], "candidates": ["b", "c"], "labels": [0, 0]},
    ]
    assert (facts["unknown_history_items"], facts["unknown_candidates"], facts["impressions_left_out"]) == (1, 4, 2)


def test_impressions_of_nothing_but_unknown_items_leave_no_file(tmp_path: Path) -> None:
    rows, facts = left_of([{"history": ["a"], "candidates": ["x"], "labels": [1]}], tmp_path)
    assert not rows
    assert facts["rows"]["impressions"] == 0


def test_labels_must_go_with_candidates(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="impressions, row 1: 1 labels for 2 candidates"):
        left_of([{"history": ["a"], "candidates": ["a", "b"], "labels": [1]}], tmp_path)


def test_unknown_items_of_impressions_may_be_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "interactions", [{"user_id": ["u"], "item_id": ["a"]}])
    with pytest.raises(DataError, match=r"1 places in impressions have items .* such as x; drop them with"):
        left_of([{"history": ["x"], "candidates": ["a"], "labels": [1]}], tmp_path, unknown_items="error")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(("table", "column"), [("items", "item_id"), ("interactions", "user_id")])
@pytest.mark.parametrize("missing", [None, ""])
def test_missing_ids_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, column: str, missing: str | None
) -> None:
    rows = {name: ["a"] for name in TABLES[table][0]}
    monkeypatch.setitem(TABLES, table, [rows, {**rows, column: pa.array([missing], pa.string())}])
    with pytest.raises(DataError, match=rf"{table}, row 2 of the raw files, column '{column}': the id is missing"):
        prepare(data_set(), raw_folder(tmp_path), tmp_path / "out")
