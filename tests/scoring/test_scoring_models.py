"""Scores are those of the model as it is used: with adapters, while it trains, and for users of every size together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbase_hf import RecBaseScorer, UnknownItemError
from recbase_hf.auto import RecBaseScoringPipeline
from recbase_hf.scoring.tree_attention import EncodedHistories, TreeAttention
from scoring.small_catalogs import catalog_of, new_scorer, random_catalog

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # which PEFT still asks
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
]

HISTORY, CANDIDATES = ["3", "7"], ["1", "2", "9", "11"]


@pytest.fixture
def scorer():
    return new_scorer()


@pytest.fixture
def catalog():
    return random_catalog(30)


def with_adapters(scorer, *names, **options):
    """The scorer of a model with LoRA adapters that change it."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, **options)
    model = peft.get_peft_model(scorer.model, config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    return RecBaseScorer(model, scorer.tokenizer), RecBaseScorer(model, scorer.tokenizer, strategy="naive")


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["v_proj", "lm_head"]])
def test_adapters_count_also_on_the_head(scorer, catalog, targets):
    plain = scorer.score(HISTORY, CANDIDATES, catalog=catalog)
    tree, naive = with_adapters(scorer, "one", target_modules=targets)
    scores = tree.score(HISTORY, CANDIDATES, catalog=catalog)
    np.testing.assert_allclose(scores, naive.score(HISTORY, CANDIDATES, catalog=catalog), atol=1e-9)
    assert np.abs(scores - plain).max() > 1e-3


def test_calibration_follows_the_active_adapter(scorer, catalog):
    tree, naive = with_adapters(scorer, "one", "two", target_modules=["q_proj", "down_proj"])
    found = []
    for name in ("one", "two", "one"):
        tree.model.set_adapter(name)
        found.append(tree.score(HISTORY, CANDIDATES, catalog=catalog, alpha=0.5))
        expected = naive.score(HISTORY, CANDIDATES, catalog=catalog, alpha=0.5)
        np.testing.assert_allclose(found[-1], expected, atol=1e-9)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    with tree.model.disable_adapter():
        expected = naive.score(HISTORY, CANDIDATES, catalog=catalog, alpha=0.5)
        np.testing.assert_allclose(tree.score(HISTORY, CANDIDATES, catalog=catalog, alpha=0.5), expected, atol=1e-9)


def test_adapters_that_add_tokens_are_refused(scorer, catalog):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    prompted = RecBaseScorer(peft.get_peft_model(scorer.model, config), scorer.tokenizer)
    with pytest.raises(ValueError, match="adds tokens to each prompt"):
        prompted.score(HISTORY, CANDIDATES, catalog=catalog)


def test_a_model_in_training_is_scored_without_dropout_and_trains_on(scorer, catalog):
    expected = scorer.score(HISTORY, CANDIDATES, catalog=catalog)
    scorer.model.train()
    scorer.model.config.attention_dropout = 0.5
    scorer.model.activation_checkpointing_enable()
    np.testing.assert_array_equal(scorer.score(HISTORY, CANDIDATES, catalog=catalog), expected)
    assert scorer.model.training
    session = scorer.session(HISTORY, catalog=catalog)
    np.testing.assert_allclose(session.score(CANDIDATES), expected, atol=1e-9)
    assert scorer.model.training


def test_layers_that_see_a_part_of_the_history_are_refused(scorer, catalog):
    scorer.model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ValueError, match="use_sliding_window"):
        scorer.score(HISTORY, CANDIDATES, catalog=catalog)


def test_users_of_unequal_size_take_no_more_room_than_their_nodes():
    counts = [1] * 60 + [900] + [1] * 60 + [3, 2, 4]
    users = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    lengths = torch.full((len(counts),), 5)
    keys = [torch.zeros(len(counts), 1, 5, 2)]
    tree = TreeAttention(EncodedHistories(keys, keys, lengths, torch.zeros(len(counts), 4)), users, [(None, None)])
    rows = [len(counts[band._users]) * band._longest for band in tree._bands]
    assert sum(rows) <= 2 * sum(counts)
    assert [band.nodes.start for band in tree._bands[1:]] == [band.nodes.stop for band in tree._bands[:-1]]
    assert tree._bands[-1].nodes.stop == sum(counts)


def test_generators_are_read_once(scorer, catalog):
    expected = scorer.score(HISTORY, CANDIDATES, catalog=catalog)
    np.testing.assert_array_equal(scorer.score(iter(HISTORY), map(str, CANDIDATES), catalog=catalog), expected)
    listed = scorer.recommend(iter(HISTORY), 2, catalog=catalog, allowed=iter(CANDIDATES))
    assert {item.item_id for item in listed} <= set(CANDIDATES)


def test_a_failed_append_changes_nothing(scorer, catalog, monkeypatch):
    session = scorer.session(HISTORY, catalog=catalog)
    expected = session.score(CANDIDATES)
    monkeypatch.setattr(type(scorer.model.get_decoder()), "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.append("5")
    monkeypatch.undo()
    assert session.history == HISTORY
    np.testing.assert_array_equal(session.score(CANDIDATES), expected)


def test_the_pipeline_takes_one_request_at_a_time_and_no_mixture(scorer):
    pipeline = RecBaseScoringPipeline(model=scorer.model, tokenizer=scorer.tokenizer, device="cpu")
    requests = [{"history": [[0, 1, 2]] * n, "candidates": [[3, 1, 2]]} for n in (1, 2)]
    with pytest.raises(ValueError, match="one request at a time"):
        list(pipeline(requests, batch_size=2))
    with pytest.raises(ValueError, match="not mixed"):
        pipeline({"history": ["<a_0><b_1><c_2>", "a red shoe"], "candidates": ["<a_3><b_1><c_2>"]})


def test_a_memory_budget_is_a_number_of_bytes(scorer):
    with pytest.raises(TypeError, match="such as 1 << 30"):
        RecBaseScorer(scorer.model, scorer.tokenizer, memory_budget="1GB")


def test_an_id_that_lost_its_zeros_is_recognized(scorer):
    catalog = catalog_of([[0, 1, 2], [1, 2, 3]], item_ids=["007", "Tk"])
    with pytest.raises(UnknownItemError, match=r"did you mean '007'\?"):
        scorer.score(["7"], ["Tk"], catalog=catalog)
    with pytest.raises(UnknownItemError, match=r"did you mean 'Tk'\?"):
        scorer.score([], ["tk"], catalog=catalog)
    with pytest.raises(TypeError, match="one item id"):
        scorer.session([], catalog=catalog).append(["007", "Tk"])
