"""The chunked loss is the plain one, level by level, whatever the chunk; and packed users do not see each other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from recbase_hf.shards.packing import IGNORED
from recbase_hf.training.loss import (
    chunked_cross_entropy,
    give_logits_again,
    give_losses,
    group_counts,
    group_sums,
)
from recbase_hf.training.rows import RowReader
from training.small_runs import LAYOUT, VALIDATION, all_rows, assert_same_weights, make_small_model

ROWS = all_rows(VALIDATION)
BATCH = RowReader(VALIDATION).read(range(len(VALIDATION)))


def plain_loss(model: torch.nn.Module) -> torch.Tensor:
    """As transformers would compute it: all logits, then the cross-entropy of what has a target."""
    logits = model(input_ids=BATCH.input_ids, position_ids=BATCH.position_ids, use_cache=False).logits
    labels = torch.from_numpy(ROWS.labels.astype(np.int64))
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def losses_of(model: torch.nn.Module, chunk: int = 7) -> torch.Tensor:
    give_losses(model, chunk=chunk)
    return model(BATCH.input_ids, BATCH.position_ids, BATCH.places, BATCH.targets)


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_chunked_loss_and_its_gradients_are_the_plain_ones(chunk, dtype, tolerance):
    plain, chunked = make_small_model().to(dtype), make_small_model().to(dtype)
    expected = plain_loss(plain)
    expected.backward()
    found = losses_of(chunked, chunk).mean()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), abs=tolerance)
    gradients = [{name: weight.grad for name, weight in model.named_parameters()} for model in (plain, chunked)]
    assert_same_weights(*gradients, atol=tolerance)


def test_only_targets_are_projected_and_no_more_than_a_chunk_at_once():
    model, sizes = make_small_model(), []
    model.lm_head.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    losses = losses_of(model, chunk=10)
    assert max(sizes) == 10
    assert sum(sizes) == ROWS.num_targets < ROWS.input_ids.size
    forward = len(sizes)
    losses.sum().backward()
    assert len(sizes) == 2 * forward - 1, "all but the last chunk are projected again"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_packed_user_has_the_loss_of_being_alone(attention):
    model = make_small_model()
    model.set_attn_implementation(attention)
    alone = []
    for row in ROWS.input_ids.astype(np.int64):
        starts = [*np.flatnonzero(row == LAYOUT.bos), int((row != LAYOUT.pad).sum())]
        for start, stop in pairwise(starts):
            ids = torch.from_numpy(row[start:stop])[None]
            alone.append(cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    torch.testing.assert_close(losses_of(model), torch.cat(alone), rtol=0, atol=1e-5)


def test_compiled_layers_give_the_same_losses():
    plain, compiled = make_small_model(), make_small_model()
    for layer in compiled.model.layers:
        layer.compile(backend="eager")
    torch.testing.assert_close(losses_of(compiled), losses_of(plain), rtol=0, atol=1e-6)


def test_groups_are_domains_times_levels():
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    groups = torch.tensor([3, 0, 3, 1])
    assert group_sums(losses, groups, 4).tolist() == [2, 8, 0, 5]
    assert group_counts(groups, 4).tolist() == [1, 1, 0, 2]
    assert not group_sums(losses, groups, 4).requires_grad


def test_the_levels_of_a_batch_are_those_of_its_targets():
    for level in range(LAYOUT.num_levels):
        ids = LAYOUT.level_ids(level)
        of_level = BATCH.targets[BATCH.groups == level]
        assert len(of_level) == ROWS.num_targets // LAYOUT.num_levels
        assert ((of_level >= ids.start) & (of_level < ids.stop)).all()


def test_no_targets_have_no_losses():
    states, targets = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert chunked_cross_entropy(states, targets, torch.nn.Linear(3, 5), chunk=4).shape == (0,)


def test_a_model_gives_logits_again():
    model = make_small_model()
    before = model(input_ids=BATCH.input_ids).logits
    losses_of(model)
    give_logits_again(model)
    assert torch.equal(model(input_ids=BATCH.input_ids).logits, before)
