"""Which rows a step sees depends on seed and step alone."""

from __future__ import annotations

from itertools import chain

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.training.batches import SeededBatches


@given(num_rows=st.integers(1, 20), batch_size=st.integers(1, 25), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_epoch_covers_each_row_once_and_every_batch_is_full(num_rows, batch_size, seed):
    epochs = 3
    stop = -(-epochs * num_rows // batch_size)
    batches = list(SeededBatches(num_rows=num_rows, batch_size=batch_size, stop=stop, seed=seed))
    assert [len(batch) for batch in batches] == [batch_size] * stop
    stream = list(chain.from_iterable(batches))
    for epoch in range(epochs):
        assert sorted(stream[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


@given(num_rows=st.integers(1, 20), batch_size=st.integers(1, 7), start=st.integers(0, 12), more=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_a_later_start_gives_the_rest_of_the_same_batches(num_rows, batch_size, start, more):
    settings_ = {"num_rows": num_rows, "batch_size": batch_size, "stop": start + more, "seed": 3}
    assert list(SeededBatches(**settings_, start=start)) == list(SeededBatches(**settings_))[start:]
    assert len(SeededBatches(**settings_, start=start)) == more


@given(num_rows=st.integers(1, 20), half=st.integers(1, 5), steps=st.integers(1, 9), start=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_two_processes_with_half_the_batch_see_the_same_global_batches(num_rows, half, steps, start):
    alone = SeededBatches(num_rows=num_rows, batch_size=2 * half, start=start, stop=start + steps, seed=1)
    halved = SeededBatches(num_rows=num_rows, batch_size=half, start=2 * start, stop=2 * (start + steps), seed=1)
    # How Accelerate shares the batches of a loader out.
    shares = [list(BatchSamplerShard(halved, num_processes=2, process_index=process)) for process in range(2)]
    assert [len(share) for share in shares] == [steps, steps]
    assert [first + second for first, second in zip(*shares, strict=True)] == list(alone)


def test_epochs_and_seeds_have_different_orders():
    first, second = SeededBatches(num_rows=30, batch_size=30, stop=2, seed=0)
    assert first != second
    assert first != next(iter(SeededBatches(num_rows=30, batch_size=30, stop=1, seed=1)))


@pytest.mark.parametrize(("num_rows", "batch_size"), [(0, 4), (4, 0)])
def test_no_rows_or_an_empty_batch_is_refused(num_rows, batch_size):
    with pytest.raises(ValueError, match="at least 1"):
        SeededBatches(num_rows=num_rows, batch_size=batch_size, stop=1)
