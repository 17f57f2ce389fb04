"""The memory budget bounds what goes through the model together and changes no score."""

from __future__ import annotations

import gc
import re
import weakref

import numpy as np
import pytest
import torch

from recbase_hf import RecBaseScorer
from recbase_hf.scoring.memory import batch_sizes
from scoring.small_catalogs import limits, new_scorer, random_catalog, scorer_of, tokenizer_of

HISTORIES = [["1", "2"], [], ["3"], ["4", "5", "6", "7"], ["8"]]


def with_budget(budget):
    return RecBaseScorer(scorer_of(3).model, tokenizer_of(3), memory_budget=budget)


def least_budget(call):
    """What the message says is needed."""
    with pytest.raises(ValueError, match="memory_budget is 1 bytes, too small for one user") as refusal:
        call(with_budget(1))
    return int(re.search(r"needs ([\d,]+); give more, or shorten the history", str(refusal.value))[1].replace(",", ""))


@pytest.mark.parametrize(
    "call",
    [
        lambda scorer, catalog: scorer.score(HISTORIES, [catalog.item_ids] * 5, catalog=catalog, alpha=0.3),
        lambda scorer, catalog: scorer.recommend(HISTORIES, 9, catalog=catalog, method="joint"),
        lambda scorer, catalog: scorer.recommend(HISTORIES, 9, catalog=catalog, search="beam", alpha=0.3),
        lambda scorer, catalog: scorer.session(HISTORIES[0], catalog=catalog).recommend(9),
    ],
)
def test_what_the_error_asks_for_is_enough_and_no_less(call):
    catalog = random_catalog(40)
    needed = least_budget(lambda scorer: call(scorer, catalog))
    with pytest.raises(ValueError, match="too small for one user"):
        call(with_budget(needed - 1), catalog)
    few, many = call(with_budget(needed), catalog), call(scorer_of(3), catalog)
    for part, expected in zip(few, many, strict=True):
        scores, expected_scores = ([getattr(item, "score", item) for item in items] for items in (part, expected))
        if isinstance(scores[0], list | np.ndarray | float):
            np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-10)


def test_no_more_users_and_nodes_go_through_the_model_than_it_is_told():
    catalog, scorer = random_catalog(60), new_scorer()
    shapes = []
    scorer.model.get_decoder().register_forward_pre_hook(
        lambda _, arguments, options: shapes.append((arguments or (options["input_ids"],))[0].shape), with_kwargs=True
    )
    with limits(5, 2):
        scorer.score(HISTORIES, [catalog.item_ids] * 5, catalog=catalog, alpha=0.3)
        scorer.recommend(HISTORIES, 2, catalog=catalog, method="joint")
        scorer.recommend(HISTORIES, 2, catalog=catalog, search="beam", num_beams=5)
    histories = [shape for shape in shapes if shape[0] > 1]
    assert histories
    assert max(users for users, _ in histories) == 2
    longest_history = 1 + 3 * scorer.max_history
    assert max(users * tokens for users, tokens in shapes) <= 2 * longest_history
    nodes = [tokens for users, tokens in shapes if users == 1 and tokens not in (1, 4, 7, 10)]
    assert max(nodes) == 5


def test_longer_histories_more_beams_and_smaller_budgets_leave_room_for_fewer():
    model, layout = scorer_of(3).model, tokenizer_of(3).layout

    def sizes(budget=1 << 20, **options):
        return batch_sizes(model, layout, budget=budget, **{"history_tokens": 10, **options})

    with limits(10**9, 10**9):
        assert sizes(history_tokens=100).users < sizes().users
        assert sizes(history_tokens=100).nodes < sizes().nodes
        assert sizes(budget=1 << 19).users < sizes().users
        assert sizes(budget=1 << 19).nodes < sizes().nodes
    with limits(4, 10**9):
        assert sizes(beams=9).nodes == 9
    with pytest.raises(ValueError, match="a history of 10 tokens with 1000000 beams needs"):
        sizes(beams=1000000)


def test_a_catalog_is_forgotten_once_nobody_has_it():
    catalog, scorer = random_catalog(20), new_scorer()
    scorer.score(["1"], ["2"], catalog=catalog, alpha=0.5)
    trie = weakref.ref(catalog.trie)
    del catalog
    gc.collect()
    assert trie() is None


def test_a_model_is_forgotten_once_nobody_has_it():
    catalog, scorer = random_catalog(20), new_scorer()
    scorer.score(["1"], ["2"], catalog=catalog, alpha=0.5)
    scorer.recommend(["1"], 2, catalog=catalog, alpha=0.5)
    model = weakref.ref(scorer.model)
    del scorer
    gc.collect()
    assert model() is None
    assert len(catalog.priors) == 0


def test_scoring_leaves_no_trace_for_gradients():
    catalog, scorer = random_catalog(20), new_scorer(dtype=torch.float32)
    scorer.recommend(["1"], 2, catalog=catalog)
    scorer.score(["1"], ["2"], catalog=catalog)
    assert all(weight.grad is None and not weight.is_inference() for weight in scorer.model.parameters())
    assert torch.is_grad_enabled()
