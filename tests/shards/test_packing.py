"""Packing loses nothing, invents nothing, and keeps the users of a row apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recbase_hf.modeling.token_layout import TokenLayout

from recbase_hf.data.histories import Histories
from recbase_hf.shards.packing import IGNORED, PackedRows, cut_windows, pack_histories
from tiny_world import make_model

LAYOUT = TokenLayout(num_levels=2, codebook_size=8)
ITEMS = 20
CODES = np.random.default_rng(0).integers(0, LAYOUT.codebook_size, (ITEMS, LAYOUT.num_levels))
lists_of_items = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=15), max_size=12)


def as_histories(lists: list[list[int]]) -> Histories:
    lengths = [len(items) for items in lists]
    users = np.array([f"user-{user}" for user in range(len(lists))], dtype=object)
    items = np.array([item for items in lists for item in items], dtype=int)
    return Histories(users, np.concatenate([[0], np.cumsum(lengths)]).astype(int), items)


def pack(lists: list[list[int]], **options: int) -> PackedRows:
    return pack_histories(as_histories(lists), CODES, LAYOUT, **{"row_length": 21, "max_items": 5, **options})


def windows_of_row(rows: PackedRows, row: int) -> list[slice]:
    """Where the windows of a row lie: from each `<bos>` to the next one, or to the padding."""
    ids = rows.input_ids[row]
    end = int((ids != LAYOUT.pad).sum())
    assert (ids[end:] == LAYOUT.pad).all(), "padding stands only at the end"
    starts = np.flatnonzero(ids == LAYOUT.bos).tolist()
    assert starts[0] == 0
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], end], strict=True)]


def tokens(items: list[int]) -> tuple[int, ...]:
    return tuple(LAYOUT.history_ids(CODES[items]).tolist())


@given(lists=lists_of_items, max_items=st.integers(1, 10), min_items=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_every_window_is_packed_exactly_once_and_in_order(lists, max_items, min_items):
    wanted = Counter()
    for items in lists:
        for end in range(len(items), 0, -max_items):
            window = items[max(0, end - max_items) : end]
            wanted[tokens(window)] += len(window) >= min_items
    assume(wanted.total())
    rows = pack(lists, max_items=max_items, min_items=min_items)
    packed = Counter(
        tuple(rows.input_ids[row, at].tolist()) for row in range(len(rows)) for at in windows_of_row(rows, row)
    )
    assert packed == +wanted


@given(lists=lists_of_items, row_length=st.integers(11, 40))
@settings(max_examples=100, deadline=None)
def test_positions_restart_and_labels_stay_within_the_user(lists, row_length):
    assume(any(len(items) >= 2 for items in lists))
    rows = pack(lists, row_length=row_length)
    assert (rows.input_ids.dtype, rows.position_ids.dtype, rows.labels.dtype) == (np.uint16, np.int32, np.int32)
    assert rows.input_ids.shape == rows.position_ids.shape == rows.labels.shape == (len(rows), row_length)
    targets = 0
    for row in range(len(rows)):
        expected_labels = np.full(row_length, IGNORED)
        end = 0
        for at in windows_of_row(rows, row):
            end = at.stop
            ids = rows.input_ids[row, at]
            assert rows.position_ids[row, at].tolist() == list(range(len(ids)))
            expected_labels[at.start : at.stop - 1] = ids[1:]
            targets += len(ids) - 1
        assert rows.position_ids[row, end:].tolist() == list(range(row_length - end)), (
            "padding is a document of its own"
        )
        assert rows.labels[row].tolist() == expected_labels.tolist()
    assert rows.num_targets == targets
    assert rows.efficiency == pytest.approx((rows.input_ids != LAYOUT.pad).sum() / rows.input_ids.size)


def test_long_histories_are_cut_from_the_end_so_that_the_newest_window_is_full():
    rows = pack([[0, 1, 2, 3, 4, 5, 6]], max_items=3, row_length=7)
    assert sorted(map(tuple, rows.input_ids.tolist())) == sorted([tokens([1, 2, 3]), tokens([4, 5, 6])])
    with_first = pack([[0, 1, 2, 3, 4, 5, 6]], max_items=3, row_length=7, min_items=1)
    assert (*tokens([0]), *[LAYOUT.pad] * 4) in set(map(tuple, with_first.input_ids.tolist()))


@given(lists=lists_of_items, max_items=st.integers(2, 6), shift=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_shifted_cuts_still_hold_every_item_once_and_leave_short_histories_whole(lists, max_items, shift):
    histories = as_histories(lists)
    plain = cut_windows(histories, max_items, min_items=1)
    shifts = np.full(len(lists), min(shift, max_items - 1))
    shifted = cut_windows(histories, max_items, min_items=1, shifts=shifts)
    for windows in (plain, shifted):
        places = [place for window in zip(*windows, strict=True) for place in range(*window)]
        assert sorted(places) == list(range(len(histories.items)))
        assert (windows.ends - windows.starts).max(initial=0) <= max_items
    whole = [(start, start + len(items)) for start, items in zip(histories.offsets, lists, strict=False)]
    for window, items in zip(whole, lists, strict=True):
        if 1 <= len(items) <= max_items:
            assert window in set(zip(*map(np.ndarray.tolist, shifted), strict=True))


def test_the_newest_window_of_a_shifted_history_keeps_something_to_learn_from():
    histories = as_histories([list(range(9))])
    starts, ends = cut_windows(histories, 4, min_items=2, shifts=np.array([3]))
    assert (starts.tolist(), ends.tolist()) == ([7, 3, 0], [9, 7, 3])


def test_a_window_may_fill_its_row():
    rows = pack([[0, 1, 2], [3, 4, 5]], max_items=3, row_length=7)
    assert len(rows) == 2
    assert rows.efficiency == 1.0
    assert (rows.labels[:, -1] == IGNORED).all()


def test_a_max_items_that_does_not_fit_a_row_is_refused_with_the_value_that_fits():
    with pytest.raises(ValueError, match=r"5 items take 11 tokens, a row has 10; lower max_items to 4"):
        pack([[0, 1]], max_items=5, row_length=10)


@pytest.mark.parametrize("lists", [[], [[]], [[1], [2]]])
def test_histories_without_anything_to_learn_give_no_row(lists):
    rows = pack(lists)
    assert rows.input_ids.shape == (0, 21)
    assert (rows.num_targets, rows.efficiency) == (0, 1.0)


def test_packing_the_same_histories_again_gives_the_same_rows():
    lists = [np.random.default_rng(seed).integers(0, ITEMS, seed % 14).tolist() for seed in range(40)]
    first, second = pack(lists), pack(lists)
    np.testing.assert_array_equal(first.input_ids, second.input_ids)


def test_realistic_histories_leave_hardly_any_padding():
    rng = np.random.default_rng(0)
    layout = TokenLayout(num_levels=4, codebook_size=64)
    lengths = np.clip(rng.lognormal(2.3, 1.0, 4000).astype(int), 1, 400)  # half have under ten items, a few hundreds
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    histories = Histories(np.arange(4000).astype(str).astype(object), offsets, rng.integers(0, 500, offsets[-1]))
    codes = rng.integers(0, 64, (500, 4))
    for shifts in (None, rng.integers(0, 100, 4000)):
        rows = pack_histories(histories, codes, layout, row_length=512, max_items=100, shifts=shifts)
        assert rows.efficiency >= 0.98


# ---- what the model makes of packed rows -------------------------------------------------------------------------


def logits(model, rows: PackedRows) -> torch.Tensor:
    ids, positions = (torch.from_numpy(array.astype(np.int64)) for array in (rows.input_ids, rows.position_ids))
    with torch.no_grad():
        return model(input_ids=ids, position_ids=positions, use_cache=False).logits


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    model = make_model(LAYOUT)
    model.set_attn_implementation(request.param)
    return model


MIXED = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [11, 12], [13, 14, 15, 16], [17, 18], [19, 0, 1, 2, 3, 4, 5, 6]]


def test_packed_logits_and_loss_equal_those_of_each_window_alone(model):
    rows = pack(MIXED, row_length=25)
    assert max(len(windows_of_row(rows, row)) for row in range(len(rows))) >= 3
    packed = logits(model, rows)
    packed_loss = torch.nn.functional.cross_entropy(
        packed.flatten(0, 1), torch.from_numpy(rows.labels).long().flatten(), ignore_index=IGNORED
    )
    loss_sum = 0.0
    for row in range(len(rows)):
        for at in windows_of_row(rows, row):
            ids = torch.from_numpy(rows.input_ids[row, at].astype(np.int64))[None]
            with torch.no_grad():
                alone = model(input_ids=ids).logits[0]
            torch.testing.assert_close(packed[row, at], alone, rtol=0, atol=1e-5)
            loss_sum += float(torch.nn.functional.cross_entropy(alone[:-1], ids[0, 1:], reduction="sum"))
    assert float(packed_loss) == pytest.approx(loss_sum / rows.num_targets, abs=1e-5)


def test_no_user_sees_the_others_of_the_row(model):
    before, after = pack([[1, 2, 3], [4, 5], [6, 7]]), pack([[1, 2, 3], [14, 15], [16, 17]])
    assert len(before) == len(after) == 1
    mine = slice(0, 7)
    np.testing.assert_array_equal(before.input_ids[0, mine], after.input_ids[0, mine])
    first, second = logits(model, before), logits(model, after)
    assert torch.equal(first[0, mine], second[0, mine])
    assert not torch.allclose(first[0, 7:], second[0, 7:])


def test_the_last_user_of_a_row_does_not_see_the_ones_before(model):
    before, after = pack([[1, 2, 3], [4, 5], [6, 7]]), pack([[11, 12, 13], [14, 15], [6, 7]])
    mine = windows_of_row(before, 0)[-1]
    np.testing.assert_array_equal(before.input_ids[0, mine], after.input_ids[0, mine])
    torch.testing.assert_close(logits(model, before)[0, mine], logits(model, after)[0, mine], rtol=0, atol=1e-6)
