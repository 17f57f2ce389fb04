"""A table of any size is scored in parts, by any number of processes, and no interruption loses or repeats a row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbase_hf import DataError, FingerprintMismatchError, ItemCatalog, RecBaseScorer, UnknownItemError
from recbase_hf.scoring import table as table_module
from recbase_hf.scoring.table import score_table
from recbase_hf.scoring.table_rows import open_table
from tiny_world import make_model, make_tokenizer
from training.conftest import forget_accelerate
from training.two_processes import needs_cpu_only, run_twice

ITEMS, ROWS = 40, 23
Score = Callable[[], list[Path]]


@pytest.fixture
def scorer(world):
    return RecBaseScorer(world.model, world.tokenizer)


@pytest.fixture
def catalog(world):
    return world.catalog


@pytest.fixture(scope="module")
def pairs() -> pa.Table:
    """Users with histories and candidate lists of all sizes, some of none."""
    rng = np.random.default_rng(0)
    histories = [[f"item-{i}" for i in rng.integers(0, ITEMS, row % 5)] for row in range(ROWS)]
    candidates = [[f"item-{i}" for i in rng.integers(0, ITEMS, row % 4)] for row in range(ROWS)]
    histories[7], candidates[9] = None, None
    columns = {"user_id": [f"user-{row}" for row in range(ROWS)], "history": histories, "candidates": candidates}
    return pa.table({**columns, "day": pa.array(range(ROWS), pa.int16())})


@pytest.fixture(scope="module", autouse=True)
def _fresh_accelerate():
    forget_accelerate()
    yield
    forget_accelerate()


class Killed(BaseException):
    """What ends a process at any moment."""


def limited(score_rows: Callable, parts: int) -> Callable:
    """A `score_rows` that scores so many parts and no more."""
    calls = iter(range(parts))

    def score_or_die(*arguments, **options):
        if next(calls, None) is None:
            raise Killed
        return score_rows(*arguments, **options)

    return score_or_die


@pytest.fixture
def kill_after(scorer, monkeypatch):
    """Runs a function and kills it behind so many parts."""

    def run(parts: int, function: Score) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(scorer, "score_rows", limited(scorer.score_rows, parts))
            with pytest.raises(Killed):
                function()

    return run


@pytest.fixture
def in_turn(monkeypatch):
    """Runs a function as each of several processes, one after the other; each is killed while it waits at the end."""

    def run(function: Score, processes: Sequence[int], count: int) -> None:
        for index in processes:
            process = SimpleNamespace(process_index=index, num_processes=count, is_main_process=index == 0)
            process.wait_for_everyone = Mock(side_effect=[None, Killed])
            with monkeypatch.context() as patch:
                patch.setattr(table_module, "_processes", lambda process=process: process)
                with pytest.raises(Killed):
                    function()

    return run


def joined(shards) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(shard).read() for shard in shards])


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "alpha"), [("joint", 0.0), ("catalog", 0.5)])
@pytest.mark.parametrize("rows_per_part", [1, 4, 1000])
def test_every_row_gets_the_scores_of_its_user_alone(scorer, catalog, pairs, tmp_path, rows_per_part, method, alpha):
    options = {"catalog": catalog, "method": method, "alpha": alpha}
    (shard,) = score_table(scorer, pairs, tmp_path, rows_per_part=rows_per_part, **options)
    for row in pq.read_table(shard).to_pylist():
        number = row["day"]
        history, candidates = pairs["history"][number].as_py() or [], row["candidates"] or []
        expected = scorer.score(history, candidates, **options)
        np.testing.assert_allclose(row["scores"], expected, rtol=1e-5, atol=1e-5)


def test_the_other_columns_pass_through_in_order(scorer, catalog, pairs, tmp_path):
    (shard,) = score_table(scorer, pairs, tmp_path / "out", catalog=catalog, rows_per_part=5)
    assert shard == tmp_path / "out" / "scores-00000-of-00001.parquet"
    found = pq.read_table(shard)
    assert found.column_names == ["user_id", "candidates", "day", "scores"]
    assert found.drop_columns(["scores"]).equals(pairs.drop_columns(["history"]))
    assert found.schema.field("scores").type == pa.list_(pa.float32())
    assert found["scores"].null_count == 0
    assert sorted(path.name for path in shard.parent.iterdir()) == ["_settings.json", shard.name]


def sources(pairs: pa.Table, folder) -> dict:
    """The same table in every form; the files are cut unevenly."""
    for kind in ("parquet", "jsonl"):
        (folder / kind).mkdir()
    for number, (start, stop) in enumerate([(0, 4), (4, 4), (4, ROWS)]):
        piece = pairs.slice(start, stop - start)
        pq.write_table(piece, folder / "parquet" / f"part-{number}.parquet", row_group_size=3)
        lines = [json.dumps(row) + "\n\n" for row in piece.to_pylist()]
        (folder / "jsonl" / f"part-{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "parquet" / "_SUCCESS").touch()
    pq.write_table(pairs, folder / "one.parquet")
    dataset = datasets.Dataset(pairs)
    return {
        "a parquet file": folder / "one.parquet",
        "a folder of parquet files": str(folder / "parquet"),
        "a folder of JSON-lines files": folder / "jsonl",
        "a dataset": dataset,
        "an iterable dataset": dataset.to_iterable_dataset(),
        "a shuffled dataset": dataset.select(range(ROWS)[::-1]).select(range(ROWS)[::-1]),
        "an Arrow table": pa.concat_tables([pairs.slice(0, 6), pairs.slice(6)]),
        "a DataFrame": pairs.to_pandas(),
        "a list of dictionaries": pairs.to_pylist(),
    }


def test_every_form_of_the_table_gives_the_same_scores(scorer, catalog, pairs, tmp_path):
    expected = pq.read_table(*score_table(scorer, pairs, tmp_path / "out", catalog=catalog, rows_per_part=5))
    for name, source in sources(pairs, tmp_path).items():
        shards = score_table(scorer, source, tmp_path / name, catalog=catalog, rows_per_part=5)
        found = joined(shards)
        assert found["scores"].equals(expected["scores"]), name
        assert found["candidates"].to_pylist() == expected["candidates"].to_pylist(), name


@given(
    rows=st.integers(0, 12),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    start=st.integers(0, 12),
    size=st.integers(1, 6),
)
def test_parts_are_the_rows_from_any_row_on(tmp_path_factory, rows, sizes, start, size):
    folder = tmp_path_factory.mktemp("parts")
    table = pa.table({"number": pa.array(range(rows), pa.int64())})
    for number, group in enumerate(sizes):
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=group)
    numbers = list(range(rows)) * len(sizes)
    parts = [part["number"].to_pylist() for part in open_table(folder).parts(start, size)]
    assert parts == [numbers[first : first + size] for first in range(start, len(numbers), size)]


def test_item_ids_may_be_whole_numbers(scorer, world, tmp_path):
    items = [{"item_id": str(number), "title": item["title"]} for number, item in enumerate(world.items)]
    catalog = ItemCatalog.from_items(items, tokenizer=world.tokenizer)
    as_text = pa.table({"history": [["3", "5"]], "candidates": [["7", "0"]]})
    as_numbers = pa.table({"history": [[3, 5]], "candidates": [np.array([7, 0], dtype=np.int16)]})
    coded = pa.array(["3", "5"]).dictionary_encode()
    as_categories = pa.table({"history": pa.ListArray.from_arrays([0, 2], coded), "candidates": [["7", "0"]]})
    found = [
        pq.read_table(*score_table(scorer, table, tmp_path / str(number), catalog=catalog))
        for number, table in enumerate([as_text, as_numbers, as_categories])
    ]
    assert found[0]["scores"] == found[1]["scores"] == found[2]["scores"]
    assert found[1]["candidates"].type.value_type == pa.int16()


def test_columns_of_json_lines_have_one_type_in_all_parts(scorer, catalog, tmp_path):
    rows = [{"candidates": [], "history": []}] * 2 + [{"candidates": ["item-1"], "history": ["item-2"], "note": "x"}]
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (shard,) = score_table(scorer, tmp_path / "table.jsonl", tmp_path / "out", catalog=catalog, rows_per_part=1)
    found = pq.read_table(shard)
    assert found["note"].to_pylist() == [None, None, "x"]
    assert found["candidates"].to_pylist() == [[], [], ["item-1"]]


def test_a_table_without_rows_gives_a_shard_without_rows(scorer, catalog, pairs, tmp_path):
    (shard,) = score_table(scorer, pairs.slice(0, 0), tmp_path / "out", catalog=catalog)
    found = pq.read_table(shard)
    assert (found.num_rows, found.column_names) == (0, ["user_id", "candidates", "day", "scores"])
    (tmp_path / "empty.jsonl").touch()
    (shard,) = score_table(scorer, tmp_path / "empty.jsonl", tmp_path / "other", catalog=catalog)
    assert pq.read_table(shard).column_names == ["scores"]


# ---- going on --------------------------------------------------------------------------------------------------------


def test_a_resumed_run_equals_a_straight_one_byte_for_byte(scorer, catalog, pairs, tmp_path, kill_after, monkeypatch):
    score = partial(score_table, scorer, pairs, catalog=catalog, rows_per_part=4)
    score(tmp_path / "straight")
    kill_after(2, partial(score, tmp_path / "resumed"))
    parts = ["000000000000-000000000004.parquet", "000000000004-000000000008.parquet"]
    assert sorted(contents(tmp_path / "resumed" / "_parts")) == parts
    monkeypatch.setattr(scorer, "score_rows", limited(scorer.score_rows, 4))  # what is left, and not a part more
    score(tmp_path / "resumed")
    assert contents(tmp_path / "straight") == contents(tmp_path / "resumed")


def test_a_finished_output_is_returned_as_it_is(scorer, catalog, pairs, tmp_path, monkeypatch):
    shards = score_table(scorer, pairs, tmp_path, catalog=catalog)
    before = contents(tmp_path)
    monkeypatch.setattr(scorer, "score_rows", limited(scorer.score_rows, 0))
    assert score_table(scorer, pairs, tmp_path, catalog=catalog) == shards
    assert contents(tmp_path) == before


def test_several_processes_share_the_rows(scorer, catalog, pairs, tmp_path, in_turn):
    expected = pq.read_table(*score_table(scorer, pairs, tmp_path / "one", catalog=catalog, rows_per_part=4))
    output = tmp_path / "three"
    score = partial(score_table, scorer, pairs, output, catalog=catalog, rows_per_part=4)
    in_turn(score, range(3), 3)
    shards = score()
    assert [shard.name for shard in shards] == [f"scores-0000{index}-of-00003.parquet" for index in range(3)]
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [8, 8, 7]
    assert joined(shards).equals(expected)
    assert set(contents(output)) == {"_settings.json", *(shard.name for shard in shards)}


def test_processes_without_rows_write_shards_without_rows(scorer, catalog, pairs, tmp_path, in_turn):
    score = partial(score_table, scorer, pairs, tmp_path, catalog=catalog)
    in_turn(score, range(2), 2)
    assert [pq.read_table(shard).num_rows for shard in score()] == [0, ROWS]


def test_another_number_of_processes_goes_on(scorer, catalog, pairs, tmp_path, in_turn, monkeypatch):
    expected = pq.read_table(*score_table(scorer, pairs, tmp_path / "one", catalog=catalog, rows_per_part=4))
    output = tmp_path / "changing"
    score = partial(score_table, scorer, pairs, output, catalog=catalog, rows_per_part=4)
    in_turn(score, [0], 3)
    in_turn(score, [0], 2)
    left = ["scores-00000-of-00002.parquet", "scores-00000-of-00003.parquet"]
    assert [path.name for path in sorted(output.glob("scores-*"))] == left
    monkeypatch.setattr(scorer, "score_rows", limited(scorer.score_rows, 3))  # what is left, and not a part more
    shards = score()
    assert joined(shards).equals(expected)
    assert set(contents(output)) == {"_settings.json", shards[0].name}


@needs_cpu_only
def test_two_processes_wait_for_each_other(scorer, catalog, pairs, tmp_path):
    expected = pq.read_table(*score_table(scorer, pairs, tmp_path / "one", catalog=catalog, rows_per_part=4))

    def score(_accelerator, output: Path) -> None:
        shards = score_table(scorer, pairs, output, catalog=catalog, rows_per_part=4)
        assert all(shard.exists() for shard in shards)

    run_twice(score, tmp_path / "two")
    shards = [tmp_path / "two" / f"scores-0000{index}-of-00002.parquet" for index in range(2)]
    assert joined(shards).equals(expected)
    assert set(contents(tmp_path / "two")) == {"_settings.json", *(shard.name for shard in shards)}


def test_what_was_left_half_written_or_half_tidied_is_tidied(scorer, catalog, pairs, tmp_path):
    shards = score_table(scorer, pairs, tmp_path, catalog=catalog)
    (tmp_path / "_parts").mkdir()
    for name in ("_parts/000000000000-000000000023.parquet", ".scores-00000-of-00002.parquet.9.partial", "notes.txt"):
        (tmp_path / name).touch()
    assert score_table(scorer, pairs, tmp_path, catalog=catalog) == shards
    assert set(contents(tmp_path)) == {"_settings.json", shards[0].name, "notes.txt"}


# ---- another run in the same folder ----------------------------------------------------------------------------------


def test_scores_made_otherwise_are_not_mixed(scorer, world, pairs, tmp_path, kill_after):
    catalog = world.catalog
    same = {"catalog": catalog, "rows_per_part": 4}
    kill_after(2, partial(score_table, scorer, pairs, tmp_path, **same))

    def message(table=pairs, by=scorer, **changes) -> str:
        with pytest.raises(ValueError, match="name another output folder") as error:
            score_table(by, table, tmp_path, **{**same, **changes})
        return str(error.value)

    assert "(method: catalog, now joint)" in message(method="joint")
    assert "(alpha: 0.0, now 0.5)" in message(alpha=0.5)
    assert "(rows_per_part: 4, now 8)" in message(rows_per_part=8)
    assert "(table, rows: 23, now 20)" in message(pairs.slice(0, 20))
    assert "(table)" in message(pairs.set_column(3, "day", pa.array(range(1, ROWS + 1), pa.int16())))
    assert "(catalog)" in message(catalog=catalog.remove(["item-39"]))
    other = make_model(world.tokenizer.layout)
    other.model.norm.weight.data[-1] += 1e-3
    assert "(model)" in message(by=RecBaseScorer(other, world.tokenizer))
    score_table(scorer, pairs, tmp_path, **same)
    assert "method" in message(method="joint")


def test_a_rewritten_file_is_another_table(scorer, catalog, pairs, tmp_path):
    pq.write_table(pairs, tmp_path / "table.parquet")
    score_table(scorer, tmp_path / "table.parquet", tmp_path / "out", catalog=catalog)
    os.utime(tmp_path / "table.parquet", (0, 0))
    with pytest.raises(ValueError, match=r"\(table\)"):
        score_table(scorer, tmp_path / "table.parquet", tmp_path / "out", catalog=catalog)


def test_a_folder_without_scores_yet_takes_any_settings(scorer, catalog, pairs, tmp_path, kill_after):
    kill_after(0, partial(score_table, scorer, pairs, tmp_path, catalog=catalog, method="joint"))
    score_table(scorer, pairs, tmp_path, catalog=catalog)
    assert json.loads((tmp_path / "_settings.json").read_text())["method"] == "catalog"


def test_processes_that_see_different_tables_are_refused(scorer, catalog, pairs, tmp_path, in_turn):
    in_turn(partial(score_table, scorer, pairs, tmp_path, catalog=catalog), [0], 2)
    with pytest.raises(ValueError, match="table"):
        in_turn(partial(score_table, scorer, pairs.slice(1), tmp_path, catalog=catalog), [1], 2)


# ---- bad input -------------------------------------------------------------------------------------------------------


def refused(scorer, catalog, table, output, **options) -> str:
    """The message of an error that comes before anything is scored or written."""
    with pytest.raises((DataError, UnknownItemError, OSError, TypeError, ValueError)) as error:
        score_table(scorer, table, output, catalog=catalog, **options)
    assert not (output / "_settings.json").exists()
    return str(error.value)


def test_an_unknown_item_is_named_with_its_place_before_anything_is_scored(scorer, catalog, pairs, tmp_path):
    rows = [{"history": ["item-1"], "candidates": ["item-2", "item-3"]} for _ in range(9)]
    rows[6] = {"history": ["item-1", "item-99"], "candidates": []}
    (tmp_path / "table.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    output = tmp_path / "out"
    with pytest.raises(UnknownItemError) as error:
        score_table(scorer, tmp_path / "table.jsonl", output, catalog=catalog, rows_per_part=4)
    place = f"{tmp_path / 'table.jsonl'}, row 7 (line 13), column 'history'"
    assert str(error.value).startswith(f"{place}: item 'item-99' is not in the catalog of 40 items; drop it")
    assert not output.exists()

    (tmp_path / "folder").mkdir()
    pq.write_table(pairs, tmp_path / "folder" / "a.parquet")
    pq.write_table(pa.table({"history": [[]], "candidates": [["item-40"]]}), tmp_path / "folder" / "b.parquet")
    message = refused(scorer, catalog, tmp_path / "folder", output)
    assert f"{tmp_path / 'folder' / 'b.parquet'}, row 1, column 'candidates': item 'item-40'" in message


def test_a_missing_item_id_is_named_with_its_place(scorer, catalog, tmp_path):
    table = pa.table({"history": [["item-1"], None], "candidates": [["item-2"], ["item-1", None]]})
    message = refused(scorer, catalog, table, tmp_path)
    assert "row 2, column 'candidates': an item id is missing" in message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"history": [["a"]]}, "no column 'candidates'; the columns are ['history']"),
        ({"history": ["a b"], "candidates": [["a"]]}, "column 'history': holds string; it must hold lists"),
        ({"history": [["a"]], "candidates": [[1.5]]}, "column 'candidates': holds list<item: double>"),
        ({"history": [["a"]], "candidates": [["a"]], "scores": [1]}, "'scores' already; rename or drop it"),
    ],
)
def test_wrong_columns_are_refused(scorer, catalog, tmp_path, columns, message):
    assert message in refused(scorer, catalog, pa.table(columns), tmp_path)


def test_a_column_that_comes_twice_is_refused(scorer, catalog, pairs, tmp_path):
    assert "two columns are called 'day'" in refused(
        scorer, catalog, pairs.append_column("day", pairs["day"]), tmp_path
    )


def test_files_that_cannot_be_read_are_refused_by_name(scorer, catalog, pairs, tmp_path):
    output = tmp_path / "out"

    def message(name: str, content: bytes = b"") -> str:
        if content:
            (tmp_path / name).write_bytes(content)
        return refused(scorer, catalog, tmp_path / name, output)

    assert "nowhere does not exist" in message("nowhere")
    assert "a cell of a CSV file holds none" in message("table.csv", b"history,candidates\n")
    assert "broken.parquet cannot be read" in message("broken.parquet", b"PAR1 and no more")
    assert "broken.jsonl, line 2: not valid JSON" in message("broken.jsonl", b'{"history": []}\n{"history": [}\n')
    assert "list.jsonl, line 1: holds a list" in message("list.jsonl", b"[1]\n")
    assert "latin.jsonl cannot be read" in message("latin.jsonl", b'{"history": ["\xe9"]}\n')
    mixed = b'{"history": ["a"]}\n{"history": [7]}\n'
    assert "mixed.jsonl, row 2 (line 2), column 'history'" in message("mixed.jsonl", mixed)
    (tmp_path / "empty").mkdir()
    assert "empty holds no file with the ending" in message("empty")
    (tmp_path / "both").mkdir()
    for name in ("a.parquet", "b.jsonl"):
        (tmp_path / "both" / name).touch()
    assert "holds both a.parquet and b.jsonl" in message("both")
    (tmp_path / "unlike").mkdir()
    for name, history in (("a", [["x"]]), ("b", [[7]])):
        pq.write_table(pa.table({"history": history}), tmp_path / "unlike" / f"{name}.parquet")
    assert "the types of a column do not go together" in message("unlike")
    assert "cannot read a dict" in refused(scorer, catalog, {"history": []}, output)


def test_a_table_that_shrinks_meanwhile_is_refused(scorer, catalog, pairs, tmp_path, monkeypatch):
    whole = open_table(pairs)
    shrunk = type(whole)("pairs", whole.schema, "", whole.pieces, open_table(pairs.slice(0, 20)).read)
    monkeypatch.setattr(table_module, "open_table", lambda source: shrunk)
    assert "has lost rows since it was opened" in refused(scorer, catalog, pairs, tmp_path)


def test_an_output_that_is_a_file_and_options_out_of_range_are_refused(scorer, catalog, pairs, tmp_path):
    (tmp_path / "file").touch()
    assert "file is a file; name a folder" in refused(scorer, catalog, pairs, tmp_path / "file")
    assert "rows_per_part is 0" in refused(scorer, catalog, pairs, tmp_path, rows_per_part=0)
    assert "alpha is nan" in refused(scorer, catalog, pairs, tmp_path, alpha=float("nan"))
    assert "method is 'best'" in refused(scorer, catalog, pairs, tmp_path, method="best")


def test_a_catalog_of_another_tokenizer_is_refused(scorer, world, pairs, tmp_path):
    other = ItemCatalog.from_items(world.items, tokenizer=make_tokenizer(seed=1))
    with pytest.raises(FingerprintMismatchError):
        score_table(scorer, pairs, tmp_path, catalog=other)
