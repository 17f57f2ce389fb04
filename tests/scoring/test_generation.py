"""`generate` of transformers gives the catalog's items with this package's scores: by the processor, by our search."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor

from recbase_hf import (
    CatalogLogitsProcessor,
    FingerprintMismatchError,
    ItemCatalog,
    RecBaseScorer,
    catalog_generate,
)
from recbase_hf.scoring.method import ScoreMethod
from tiny_world import World, make_model, make_tokenizer, make_world

ITEMS, LEVELS = 40, 4
HISTORIES = [[3, 4], [5, 9, 20, 31, 2], [], [7]]


@pytest.fixture(scope="module")
def world64():
    return make_world(ITEMS, dtype=torch.float64)


def world_of_codes(codes, codebook_size=8, **options):
    """A catalog of given codes."""
    tokenizer = make_tokenizer(len(codes[0]), codebook_size)
    items = [{"item_id": f"item-{row}"} for row in range(len(codes))]
    catalog = ItemCatalog.from_codes(items, codes, codebook_size=codebook_size, fingerprint=tokenizer.fingerprint)
    return World(tokenizer, catalog, make_model(tokenizer.layout, **options), items)


def prompts_of(world, histories, side="left"):
    """Padded token ids and their mask."""
    rows = [world.tokenizer.layout.history_ids(world.catalog.codes[rows]) for rows in histories]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, tokens in zip(ids, rows, strict=True):
        row[slice(-len(tokens), None) if side == "left" else slice(len(tokens))] = torch.from_numpy(tokens)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def generate(world, prompts, *processors, method: ScoreMethod = "catalog", items=1, **options):
    """Stock `generate` with the processor."""
    processor = CatalogLogitsProcessor(world.catalog, prompts["input_ids"].shape[1], method=method)
    options = {
        "do_sample": False,
        "length_penalty": 0.0,
        "max_new_tokens": items * processor.layout.num_levels,
    } | options
    if options["do_sample"] or options.get("num_beams", 1) == 1:
        del options["length_penalty"]
    return world.model.generate(
        **prompts,
        logits_processor=[processor, *processors],
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )


def search(world, prompts, **options):
    """`generate` with our own search."""
    options = {"max_new_tokens": world.catalog.codes.shape[1], "return_dict_in_generate": True} | options
    return world.model.generate(**prompts, custom_generate=catalog_generate, catalog=world.catalog, **options)


def generated_codes(world, sequences, width):
    """(n, items, levels) of (n, tokens) sequences after prompts of a width."""
    ids = sequences[:, width:].numpy()
    return np.stack([world.tokenizer.layout.ids_to_codes(row) for row in ids])


def legal(world, codes):
    return {tuple(code) for code in codes.reshape(-1, codes.shape[-1])} <= set(map(tuple, world.catalog.codes))


def recommended(world, history, k, **options):
    """The best k semantic IDs and their scores, from the scorer."""
    ids = [world.catalog.item_ids[row] for row in history]
    found = RecBaseScorer(world.model, world.tokenizer).recommend(
        ids, len(world.catalog), catalog=world.catalog, exclude_history=False, **options
    )
    best: dict[tuple, float] = {}
    for item in found:
        (row,) = world.catalog.rows([item.item_id])
        best.setdefault(tuple(world.catalog.codes[row]), item.score)
    return list(best)[:k], list(best.values())[:k]


@pytest.mark.parametrize("method", ["catalog", "joint"])
@pytest.mark.parametrize("form", [generate, search])
def test_the_best_are_those_of_the_scorer(world64, form, method):
    prompts = prompts_of(world64, HISTORIES)
    found = form(world64, prompts, method=method, num_beams=ITEMS, num_return_sequences=12)
    width = prompts["input_ids"].shape[1]
    assert found.sequences.shape == (len(HISTORIES) * 12, width + LEVELS)
    assert torch.equal(found.sequences[::12, :width], prompts["input_ids"])
    codes = generated_codes(world64, found.sequences, width)[:, 0].reshape(len(HISTORIES), 12, LEVELS)
    precision = {"rtol": 0, "atol": 1e-10} if form is search else {"rtol": 1e-5, "atol": 1e-5}
    for user, history in enumerate(HISTORIES):
        expected, scores = recommended(world64, history, 12, method=method)
        assert list(map(tuple, codes[user])) == expected
        np.testing.assert_allclose(found.sequences_scores.view(-1, 12)[user], scores, **precision)


@pytest.mark.parametrize("method", ["catalog", "joint"])
def test_narrow_beams_find_what_the_scorers_beams_find(world64, method):
    prompts = prompts_of(world64, [HISTORIES[1]])
    found = search(world64, prompts, method=method, num_beams=3, num_return_sequences=3)
    scorer = RecBaseScorer(world64.model, world64.tokenizer)
    ids = [world64.catalog.item_ids[row] for row in HISTORIES[1]]
    options = {"catalog": world64.catalog, "method": method, "exclude_history": False}
    items = scorer.recommend(ids, 3, search="beam", num_beams=3, **options)
    codes = {tuple(world64.catalog.codes[row]) for row in world64.catalog.rows([item.item_id for item in items])}
    assert codes <= set(map(tuple, generated_codes(world64, found.sequences, prompts["input_ids"].shape[1])[:, 0]))
    assert items[0].score == pytest.approx(float(found.sequences_scores[0]), abs=1e-10)


def test_both_forms_follow_the_same_narrow_beams(world):
    prompts = prompts_of(world, HISTORIES)
    options = {"method": "joint", "num_beams": 4, "num_return_sequences": 4}
    ours, stock = search(world, prompts, **options), generate(world, prompts, **options)
    assert torch.equal(ours.sequences, stock.sequences)
    torch.testing.assert_close(ours.sequences_scores, stock.sequences_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [True, False])
def test_padding_changes_nothing(world, mask):
    options = {"num_beams": 6, "num_return_sequences": 5}
    alone = [search(world, prompts_of(world, [history]), **options) for history in HISTORIES]
    for side in ("left", "right"):
        prompts = prompts_of(world, HISTORIES, side)
        if not mask:  # `generate` then knows the padding by its token
            del prompts["attention_mask"]
        together = search(world, prompts, **options)
        assert torch.equal(together.sequences[:, -LEVELS:], torch.cat([one.sequences[:, -LEVELS:] for one in alone]))
        expected = torch.cat([one.sequences_scores for one in alone])
        torch.testing.assert_close(together.sequences_scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "recbase_tree"])
def test_any_attention_will_do(world, attention):
    prompts = prompts_of(world, HISTORIES)
    world.model.set_attn_implementation(attention)
    options = {"num_beams": ITEMS, "num_return_sequences": 3}
    stock = generate(world, prompts, **options)
    world.model.set_attn_implementation(attention)
    assert torch.equal(search(world, prompts, **options).sequences, stock.sequences)


def test_without_the_dictionary_only_the_sequences_come_back(world):
    prompts = prompts_of(world, HISTORIES)
    found = search(world, prompts, num_beams=4, num_return_sequences=2, return_dict_in_generate=False)
    assert torch.equal(found, search(world, prompts, num_beams=4, num_return_sequences=2).sequences)


def test_one_beam_is_enough(world):
    assert legal(world, generated_codes(world, search(world, prompts_of(world, [[1, 2]])).sequences, 9))


@pytest.mark.parametrize("form", [generate, search])
def test_a_catalog_of_one_item_is_certain(form):
    world = world_of_codes([[3, 0, 7]])
    found = form(world, prompts_of(world, [[], [0]]), num_beams=4)
    assert generated_codes(world, found.sequences, 4).tolist() == [[[3, 0, 7]]] * 2
    torch.testing.assert_close(found.sequences_scores, torch.zeros(2), rtol=0, atol=1e-6)


def test_one_level_is_a_semantic_id_too():
    world = world_of_codes([[3], [5], [5]], dtype=torch.float64)
    prompts = prompts_of(world, [[0, 1]])
    stock = generate(world, prompts, num_beams=4, num_return_sequences=2)
    ours = search(world, prompts, num_beams=4, num_return_sequences=2)
    assert torch.equal(stock.sequences, ours.sequences)
    probability = dict(zip(ours.sequences[:, -1].tolist(), ours.sequences_scores.exp().tolist(), strict=True))
    assert probability[1 + 3] + 2 * probability[1 + 5] == pytest.approx(1)


def test_fewer_semantic_ids_than_asked_for():
    world = world_of_codes([[1, 2], [1, 3], [4, 4], [4, 4]])
    prompts = prompts_of(world, [[0]])
    with pytest.raises(ValueError, match="num_return_sequences is 4, but the catalog has 3 semantic IDs"):
        search(world, prompts, num_beams=5, num_return_sequences=4)
    stock = generate(world, prompts, num_beams=5, num_return_sequences=4)
    assert torch.equal(stock.sequences[:3], search(world, prompts, num_beams=5, num_return_sequences=3).sequences)
    assert stock.sequences_scores[2] > -100
    assert stock.sequences_scores[3] < -1e8


@pytest.mark.parametrize("method", ["catalog", "joint"])
def test_several_items_in_a_row(world64, method):
    prompts = prompts_of(world64, [[3, 4], [8]])
    found = generate(world64, prompts, method=method, items=2, num_beams=8, num_return_sequences=4)
    codes = generated_codes(world64, found.sequences, prompts["input_ids"].shape[1])
    assert codes.shape == (8, 2, LEVELS)
    assert legal(world64, codes)
    rows = [[np.flatnonzero((world64.catalog.codes == code).all(axis=1))[0] for code in row] for row in codes]
    scorer = RecBaseScorer(world64.model, world64.tokenizer)
    for (first, second), history, score in zip(rows, [[3, 4]] * 4 + [[8]] * 4, found.sequences_scores, strict=True):
        pairs = [np.array(history), np.array([*history, first])], [np.array([first]), np.array([second])]
        parts = scorer.score_rows(*pairs, catalog=world64.catalog, method=method)
        assert float(sum(parts).item()) == pytest.approx(float(score), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.3}, {"top_p": 0.8}, {"num_beams": 3}])
def test_sampling_draws_items_of_the_catalog(world, options):
    torch.manual_seed(0)
    prompts = prompts_of(world, HISTORIES)
    options = {"num_return_sequences": 3 if "num_beams" in options else 100} | options
    found = generate(world, prompts, items=2, do_sample=True, **options)
    assert legal(world, generated_codes(world, found.sequences, prompts["input_ids"].shape[1]))


def test_sampling_with_joint_draws_a_semantic_id_as_often_as_its_items_are_probable():
    world = world_of_codes([[1, 2], [1, 2], [1, 2], [1, 5], [6, 0], [6, 0], [6, 7]], initializer_range=0.1)
    prompts = prompts_of(world, [[3, 4]])
    torch.manual_seed(0)
    found = generate(world, prompts, method="joint", do_sample=True, num_return_sequences=4000)
    drawn = generated_codes(world, found.sequences, 5)[:, 0]
    scorer = RecBaseScorer(world.model, world.tokenizer)
    (scores,) = scorer.score_rows([np.array([3, 4])], [np.arange(7)], catalog=world.catalog)
    for code in np.unique(world.catalog.codes, axis=0):
        expected = np.exp(scores[(world.catalog.codes == code).all(axis=1)]).sum()
        assert (drawn == code).all(axis=1).mean() == pytest.approx(expected, abs=0.03)


def test_greedy_search_takes_the_best_code_each_time(world):
    prompts = prompts_of(world, HISTORIES)
    found = generate(world, prompts, items=2)
    assert legal(world, generated_codes(world, found.sequences, prompts["input_ids"].shape[1]))


class Forces(LogitsProcessor):
    """Writes one token at one place, whatever is legal."""

    def __init__(self, length, token):
        self.length, self.token = length, token

    def __call__(self, input_ids, scores):
        if input_ids.shape[1] == self.length:
            scores = torch.full_like(scores, float("-inf"))
            scores[:, self.token] = 0.0
        return scores


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_sampling_ends_behind_a_token_that_is_not_legal(world, temperature):
    prompts = prompts_of(world, [[1, 2], [4, 4]])
    layout = world.tokenizer.layout
    found = generate(world, prompts, Forces(10, layout.bos), do_sample=True, temperature=temperature)
    assert found.sequences[:, 10].tolist() == [layout.bos] * 2
    assert found.sequences[:, 11].tolist() == [layout.bos + 1] * 2  # <eos>


def test_beam_search_leaves_what_another_processor_made_illegal():
    world = world_of_codes([[1, 2], [1, 3], [2, 4], [3, 5], [3, 6]])
    prompts = prompts_of(world, [[0]])
    banned = [[1 + 8 + code] for code in (2, 3, 4)]
    found = generate(world, prompts, num_beams=6, num_return_sequences=2, bad_words_ids=banned)
    assert sorted(map(tuple, generated_codes(world, found.sequences, 3)[:, 0])) == [(3, 5), (3, 6)]


CODES = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12)


@pytest.mark.parametrize("table_entries", [0, 1 << 20])  # children by binary search, and from a table
@given(codes=CODES, data=st.data(), method=st.sampled_from(["catalog", "joint"]))
@settings(max_examples=40, deadline=None)
def test_the_legal_tokens_are_those_that_continue_a_prefix_of_the_catalog(table_entries, codes, data, method):
    catalog = ItemCatalog.from_codes([{"item_id": str(row)} for row in range(len(codes))], codes, codebook_size=4)
    processor = CatalogLogitsProcessor(catalog, prompt_length=2, method=method)
    layout, depth = processor.layout, data.draw(st.integers(0, 2))
    items = layout.codes_to_ids(codes).tolist()
    anything = st.lists(st.integers(0, layout.num_tokens - 1), min_size=depth, max_size=depth)
    of_an_item = st.sampled_from([item[:depth] for item in items])
    prefixes = data.draw(st.lists(anything | of_an_item, min_size=1, max_size=8))
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(len(prefixes), 20)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recbase_hf.scoring.trie_tensors._TABLE_ENTRIES", table_entries)
        got = processor(torch.tensor([[0, layout.bos, *items[0], *prefix] for prefix in prefixes]), scores)

    assert got.dtype == torch.float64
    for prefix, row, of_row in zip(prefixes, got, scores, strict=True):
        shares = Counter(item[depth] for item in items if item[:depth] == prefix)
        if not shares:
            assert row.exp().sum() == 0
            assert row.isfinite().nonzero()[:, 0].tolist() == [layout.bos + 1]
            continue
        assert row.isfinite().nonzero()[:, 0].tolist() == sorted(shares)
        normalized_over = list(range(20))[layout.level_ids(depth)] if method == "joint" else list(shares)
        total = of_row[normalized_over].logsumexp(0)
        for token, count in shares.items():
            shared = np.log(count) if method == "catalog" and depth == 2 else 0.0
            assert float(row[token]) == pytest.approx(float(of_row[token] - total - shared))


@pytest.mark.parametrize("table_entries", [0, 1 << 20])
def test_the_next_nodes_child_of_the_same_code_is_not_taken(monkeypatch, table_entries):
    monkeypatch.setattr("recbase_hf.scoring.trie_tensors._TABLE_ENTRIES", table_entries)
    processor = CatalogLogitsProcessor(world_of_codes([[0, 1, 0], [1, 2, 0]]).catalog, prompt_length=0)
    wrong = torch.tensor([[1 + 0, 1 + 8 + 2]])
    assert processor(wrong, torch.zeros(1, 64)).isfinite().nonzero()[:, 1].tolist() == [processor.layout.bos + 1]


def test_a_row_without_a_legal_score_leaves_only_eos(world):
    processor = CatalogLogitsProcessor(world.catalog, prompt_length=1)
    bos, size = processor.layout.bos, world.model.config.vocab_size
    scores = torch.zeros(2, size)
    scores[0, processor.layout.level_ids(0)] = float("-inf")
    got = processor(torch.full((2, 1), bos), scores)
    assert got[0].isfinite().nonzero()[:, 0].tolist() == [bos + 1]
    assert float(got[1].exp().sum()) == pytest.approx(1)


def test_half_precision_scores_are_normalized_in_float32(world):
    processor = CatalogLogitsProcessor(world.catalog, prompt_length=1)
    scores = torch.zeros(1, world.model.config.vocab_size, dtype=torch.bfloat16)
    assert processor(torch.full((1, 1), processor.layout.bos), scores).dtype == torch.float32


def test_the_processor_leaves_its_input_as_it_was(world):
    processor = CatalogLogitsProcessor(world.catalog, prompt_length=1)
    scores = torch.randn(3, world.model.config.vocab_size)
    before = scores.clone()
    processor(torch.full((3, 1), processor.layout.bos), scores)
    assert torch.equal(scores, before)


def test_the_processor_refuses_what_does_not_fit(world):
    with pytest.raises(ValueError, match="method is 'both'; it must be one of joint, catalog"):
        CatalogLogitsProcessor(world.catalog, 5, method="both")
    with pytest.raises(ValueError, match="prompt_length is -1"):
        CatalogLogitsProcessor(world.catalog, -1)
    processor = CatalogLogitsProcessor(world.catalog, 5)
    with pytest.raises(ValueError, match="prompt_length is 5, but the input has 3 tokens"):
        processor(torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 64))
    with pytest.raises(ValueError, match="the model has 20 tokens, but 4 levels of 8 codes need 37"):
        processor(torch.ones(1, 5, dtype=torch.long), torch.zeros(1, 20))
    with pytest.raises(ValueError, match="NaN"):
        processor(torch.ones(1, 5, dtype=torch.long), torch.full((1, 64), float("nan")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "both"}, "method is 'both'"),
        ({"do_sample": True}, "does not sample"),
        ({"max_new_tokens": 8}, "max_new_tokens is 8, but catalog_generate generates one item of 4 codes"),
        ({"repetition_penalty": 1.5}, "takes no logits processors, got RepetitionPenaltyLogitsProcessor"),
        ({"numbeams": 3}, "numbeams"),
    ],
)
def test_the_search_refuses_what_it_does_not_do(world, options, message):
    with pytest.raises(ValueError, match=message):
        search(world, prompts_of(world, [[1]]), **options)


def test_the_search_refuses_a_model_of_another_vocabulary_or_tokenizer(world):
    prompts = prompts_of(world, [[1]])
    small = make_model(make_tokenizer(2, 8).layout, vocab_size=21)
    with pytest.raises(ValueError, match="the model has 21 tokens, but 4 levels of 8 codes need 37"):
        small.generate(**prompts, custom_generate=catalog_generate, catalog=world.catalog, max_new_tokens=4)
    other = make_model(world.tokenizer.layout)
    other.config.recbase = {"fingerprint": "another"}
    with pytest.raises(FingerprintMismatchError, match="catalog"):
        other.generate(**prompts, custom_generate=catalog_generate, catalog=world.catalog, max_new_tokens=4)


def test_the_search_refuses_a_prompt_of_padding(world):
    prompts = prompts_of(world, [[1], []])
    prompts["attention_mask"][1] = 0
    with pytest.raises(ValueError, match="prompt 1 has no token"):
        search(world, prompts)
