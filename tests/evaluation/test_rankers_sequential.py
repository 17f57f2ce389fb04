"""SASRec and GRU4Rec learn an order, from the training histories alone, and the same one each time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.rankers.sequential import Gru4Rec, SasRec, SequentialSettings

ITEMS = 24
SETTINGS = SequentialSettings(width=32, max_length=8, batch_events=128, learning_rate=0.01, dropout=0.1, max_epochs=15)
SAMPLED = replace(SETTINGS, full_softmax=5, negatives=12)

both = pytest.mark.parametrize("make", [SasRec, Gru4Rec])


def cycle_world(users: int = 120) -> Histories:
    """After an item comes the next; the last two items of the catalog have no event."""
    generator = np.random.default_rng(0)
    starts, lengths = generator.integers(ITEMS - 2, size=users), generator.integers(2, 12, size=users)
    items = [(start + np.arange(length)) % (ITEMS - 2) for start, length in zip(starts, lengths, strict=True)]
    names = np.array([f"u{user}" for user in range(users)], dtype=object)
    return Histories(names, np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(items))


@both
@pytest.mark.parametrize("settings", [SETTINGS, SAMPLED], ids=["full softmax", "sampled softmax"])
def test_the_next_item_of_a_cycle_is_learned(make: type[SasRec], settings: SequentialSettings) -> None:
    ranker = make(cycle_world(), ITEMS, settings=settings)
    starts = np.arange(ITEMS - 2)
    histories = [(start + np.arange(4)) % (ITEMS - 2) for start in starts]
    best = ranker.scores(histories, None).argmax(axis=1)
    assert (best == (starts + 4) % (ITEMS - 2)).mean() > 0.9


@both
def test_one_seed_gives_one_result(make: type[SasRec]) -> None:
    world, settings = cycle_world(40), replace(SAMPLED, max_epochs=2)
    histories = [np.array([3, 4]), np.empty(0, dtype=np.int64)]
    state = torch.random.get_rng_state()
    first = make(world, ITEMS, seed=1, settings=settings).scores(histories, None)
    torch.rand(3)
    np.testing.assert_array_equal(first, make(world, ITEMS, seed=1, settings=settings).scores(histories, None))
    assert (first != make(world, ITEMS, seed=2, settings=settings).scores(histories, None)).any()
    torch.random.set_rng_state(state)
    make(world, ITEMS, settings=settings)
    assert torch.equal(state, torch.random.get_rng_state())


@both
def test_items_without_a_training_event_come_last_and_say_nothing(make: type[SasRec]) -> None:
    ranker = make(cycle_world(), ITEMS, settings=replace(SETTINGS, max_epochs=1))
    scores = ranker.scores([np.array([3, 4])], None)[0]
    assert scores[-2:].max() < scores[:-2].min()
    np.testing.assert_array_equal(scores, ranker.scores([np.array([3, ITEMS - 1, 4, ITEMS - 2])], None)[0])


@both
def test_no_position_sees_what_comes_after_it(make: type[SasRec]) -> None:
    network = make(cycle_world(), ITEMS, settings=replace(SETTINGS, max_epochs=1))._network
    tokens = torch.tensor([[0, 3, 5, 6, 2], [0, 3, 5, 9, 0]])
    with torch.inference_mode():
        states = network(tokens)
    torch.testing.assert_close(states[0, :3], states[1, :3])
    assert not torch.allclose(states[0, 3], states[1, 3])


@both
def test_only_the_newest_items_of_long_histories_count(make: type[SasRec]) -> None:
    ranker = make(cycle_world(), ITEMS, settings=replace(SETTINGS, max_epochs=1))
    long = np.arange(20)
    np.testing.assert_array_equal(ranker.scores([long], None), ranker.scores([long[-7:]], None))
    assert (ranker.scores([long], None) != ranker.scores([long[-6:]], None)).any()


def test_long_training_histories_are_cut_and_nothing_is_lost() -> None:
    ranker = SasRec(cycle_world(), ITEMS, settings=replace(SETTINGS, max_epochs=1, max_length=4))
    one = Histories(np.array(["ann"], dtype=object), np.array([0, 10]), np.arange(10))
    assert [part.tolist() for part in ranker._sequences(one)] == [[1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]


def test_sampled_loss_is_the_full_one_on_average() -> None:
    ranker = SasRec(cycle_world(), ITEMS, settings=replace(SAMPLED, max_epochs=1, negatives=4096))
    states, targets = torch.randn(50, 32), torch.arange(50) % 20
    weights = ranker._network.items.weight[1:]
    full = torch.nn.functional.cross_entropy(states @ weights.T, targets)
    assert ranker._training_loss(states, targets).item() == pytest.approx(full.item(), abs=0.02)


@both
def test_a_single_user_is_enough_to_train(make: type[SasRec]) -> None:
    one = Histories(np.array(["ann"], dtype=object), np.array([0, 1]), np.array([2]))
    scores = make(one, 4, settings=replace(SETTINGS, max_epochs=2)).scores([np.array([1])], None)
    assert scores[0].argmax() == 2
