"""Which rows a step sees depends on seed and step alone."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.training.batches import SeededBatches, rows_an_epoch


@given(num_rows=st.integers(1, 20), batch_size=st.integers(1, 25), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_epoch_covers_each_row_once_and_every_batch_is_full(num_rows, batch_size, seed):
    epochs = 3
    stop = -(-epochs * num_rows // batch_size)
    batches = list(SeededBatches(sizes=[num_rows], batch_size=batch_size, stop=stop, seed=seed))
    assert [len(batch) for batch in batches] == [batch_size] * stop
    stream = list(chain.from_iterable(batches))
    for epoch in range(epochs):
        assert sorted(stream[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


@given(num_rows=st.integers(1, 20), batch_size=st.integers(1, 7), start=st.integers(0, 12), more=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_a_later_start_gives_the_rest_of_the_same_batches(num_rows, batch_size, start, more):
    settings_ = {"sizes": [num_rows], "batch_size": batch_size, "stop": start + more, "seed": 3}
    assert list(SeededBatches(**settings_, start=start)) == list(SeededBatches(**settings_))[start:]
    assert len(SeededBatches(**settings_, start=start)) == more


@given(num_rows=st.integers(1, 20), half=st.integers(1, 5), steps=st.integers(1, 9), start=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_two_processes_with_half_the_batch_see_the_same_global_batches(num_rows, half, steps, start):
    alone = SeededBatches(sizes=[num_rows], batch_size=2 * half, start=start, stop=start + steps, seed=1)
    halved = SeededBatches(sizes=[num_rows], batch_size=half, start=2 * start, stop=2 * (start + steps), seed=1)
    # How Accelerate shares the batches of a loader out.
    shares = [list(BatchSamplerShard(halved, num_processes=2, process_index=process)) for process in range(2)]
    assert [len(share) for share in shares] == [steps, steps]
    assert [first + second for first, second in zip(*shares, strict=True)] == list(alone)


def test_epochs_and_seeds_have_different_orders():
    first, second = SeededBatches(sizes=[30], batch_size=30, stop=2, seed=0)
    assert first != second
    assert first != next(iter(SeededBatches(sizes=[30], batch_size=30, stop=1, seed=1)))


@pytest.mark.parametrize(("num_rows", "batch_size"), [(0, 4), (4, 0)])
def test_no_rows_or_an_empty_batch_is_refused(num_rows, batch_size):
    with pytest.raises(ValueError, match="at least 1"):
        SeededBatches(sizes=[num_rows], batch_size=batch_size, stop=1)


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any), temperature=st.floats(1, 100))
@settings(max_examples=100, deadline=None)
def test_an_epoch_has_as_many_rows_as_there_are_and_small_domains_gain(sizes, temperature):
    quotas = rows_an_epoch(sizes, temperature)
    assert sum(quotas) == sum(sizes)
    assert all(quota == 0 for quota, size in zip(quotas, sizes, strict=True) if size == 0)
    shares = [quota / size for quota, size in zip(quotas, sizes, strict=True) if size]
    large_first = [share for _, share in sorted(zip([-size for size in sizes if size], shares, strict=True))]
    assert all(right >= left - 1 for left, right in pairwise(large_first))
    assert rows_an_epoch(sizes, 1) == sizes


def test_a_mixed_epoch_takes_its_share_of_every_domain_and_every_row_in_turn():
    sizes, temperature = [90, 10], 2.0
    quotas = rows_an_epoch(sizes, temperature)
    assert quotas == [75, 25]
    stream = list(chain.from_iterable(SeededBatches(sizes=sizes, batch_size=10, stop=60, temperature=temperature)))
    for epoch in range(6):
        rows = stream[100 * epoch : 100 * (epoch + 1)]
        assert [sum(row < 90 for row in rows), sum(row >= 90 for row in rows)] == quotas
    large, small = [row for row in stream if row < 90], [row for row in stream if row >= 90]
    assert {large.count(row) for row in range(90)} == {5}  # 450 draws, in whole passes
    assert {small.count(row) for row in range(90, 100)} == {15}


def test_mixed_batches_are_the_same_on_two_processes_and_after_a_later_start():
    options = {"sizes": [7, 2, 4], "temperature": 3.0, "seed": 5}
    alone = list(SeededBatches(**options, batch_size=4, stop=12))
    halved = SeededBatches(**options, batch_size=2, stop=24)
    shares = [list(BatchSamplerShard(halved, num_processes=2, process_index=process)) for process in range(2)]
    assert [first + second for first, second in zip(*shares, strict=True)] == alone
    assert list(SeededBatches(**options, batch_size=4, start=5, stop=12)) == alone[5:]


def test_a_temperature_below_one_is_refused():
    with pytest.raises(ValueError, match=r"temperature is 0\.5"):
        SeededBatches(sizes=[3], batch_size=1, stop=1, temperature=0.5)


def test_passes_over_the_same_histories_take_turns():
    options = {"sizes": [6, 9], "passes": [[2, 2, 2], [3, 3, 3]], "seed": 4}
    batches = list(SeededBatches(**options, batch_size=5, stop=6))
    for epoch, rows in enumerate(batches):
        number = epoch % 3
        assert sorted(rows) == [*range(2 * number, 2 * number + 2), *range(6 + 3 * number, 6 + 3 * number + 3)]
    assert batches[0] != batches[3]
    assert list(SeededBatches(**options, batch_size=5, start=4, stop=6)) == batches[4:]
