"""Items are left out whole, at random from (seed, step, row) alone, and two of each window stay."""

from __future__ import annotations

import numpy as np
import pytest

from recbase_hf.shards.packing import PackedRows
from recbase_hf.training.history_dropout import drop_items
from recbase_hf.training.rows import RowBatch, RowReader
from training.small_runs import LAYOUT, TRAIN, all_rows

ROWS = all_rows(TRAIN)
MOST = ROWS.input_ids.shape[1] // LAYOUT.num_levels


def windows(rows: PackedRows) -> list[list[list[tuple[int, ...]]]]:
    """The items of each window of each row; checks that rows are windows of whole items, then padding."""
    found = []
    for row in rows.input_ids.tolist():
        length = len(row) - row[::-1].index(next(token for token in row[::-1] if token != LAYOUT.pad))
        assert LAYOUT.pad not in row[:length]
        assert row[0] == LAYOUT.bos
        parts = " ".join(map(str, row[1:length])).split(f" {LAYOUT.bos} ")
        of_row = []
        for part in parts:
            tokens = np.array(part.split(), dtype=int).reshape(-1, LAYOUT.num_levels)
            LAYOUT.ids_to_codes(tokens)
            of_row.append([tuple(item) for item in tokens.tolist()])
        found.append(of_row)
    return found


def drop(probability: float, seed: int = 0) -> PackedRows:
    return drop_items(ROWS, np.random.default_rng(seed).random((len(ROWS), MOST)), probability)


def is_part_in_order(part: list, whole: list) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(5))
def test_windows_keep_at_least_two_items_in_their_order(probability, seed):
    for before, after in zip(windows(ROWS), windows(drop(probability, seed)), strict=True):
        assert len(after) == len(before)
        for whole, part in zip(before, after, strict=True):
            assert 2 <= len(part) <= len(whole)
            assert is_part_in_order(part, whole)


def test_nothing_is_left_out_at_probability_zero():
    assert np.array_equal(drop(0.0).input_ids, ROWS.input_ids)


def test_about_that_share_is_left_out_of_long_windows():
    items = np.tile([1, 5], 50)
    rows = PackedRows(np.concatenate([[[LAYOUT.bos]], items[None]], axis=1).repeat(200, axis=0), LAYOUT)
    left = drop_items(rows, np.random.default_rng(0).random((200, 50)), 0.3)
    assert left.num_targets / rows.num_targets == pytest.approx(0.7, abs=0.01)


def read(keys: list[tuple[int, int]], seed: int = 3) -> RowBatch:
    return RowReader(TRAIN, history_dropout=0.4, seed=seed).read_at(keys)


def test_what_is_left_out_follows_from_seed_step_and_row():
    rows = range(len(TRAIN))
    together = read([(5, row) for row in rows])
    assert all((together.input_ids[row] == read([(5, row)]).input_ids[0]).all() for row in rows)
    assert (together.input_ids != read([(6, row) for row in rows]).input_ids).any()
    assert (together.input_ids != read([(5, row) for row in rows], seed=4).input_ids).any()


def test_positions_and_targets_are_those_of_what_stays():
    reader = RowReader(TRAIN, history_dropout=0.4)
    keys = [(0, row) for row in range(len(TRAIN))]
    batch = reader.read_at(keys)
    again = PackedRows(batch.input_ids.numpy(), LAYOUT)
    assert (batch.position_ids.numpy() == again.position_ids).all()
    assert len(batch.targets) == again.num_targets < ROWS.num_targets
    assert batch.sizes.tolist() == [again.num_tokens, sum(map(len, windows(ROWS)))]
