"""The scoring pipeline gives the scorer's joint scores, with the package and from a checkpoint alone."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import pipeline

from recbase_hf import RecBaseScorer, RecBaseScoringPipeline, RecBaseTokenizer
from tiny_world import make_model, make_world


@pytest.fixture(scope="module")
def scoring(world):
    return pipeline("recbase-scoring", model=world.model, tokenizer=world.tokenizer, device="cpu")


def joint_scores(world, history, candidates):
    ids = world.catalog.item_ids
    history, candidates = [ids[row] for row in history], [ids[row] for row in candidates]
    return RecBaseScorer(world.model, world.tokenizer).score(history, candidates, catalog=world.catalog, method="joint")


@pytest.mark.parametrize("history", [[], [3], [5, 5, 9], list(range(14))])
def test_scores_of_codes_are_the_scorers_joint_scores(world, scoring, history):
    candidates = [8, 1, 0, 33, 8]
    found = scoring({"history": world.catalog.codes[history], "candidates": world.catalog.codes[candidates]})
    np.testing.assert_allclose(found["scores"], joint_scores(world, history, candidates), rtol=1e-5)
    assert found["ranking"] == np.argsort(-np.array(found["scores"]), kind="stable").tolist()


def test_a_history_longer_than_the_context_loses_its_oldest_items_as_with_the_scorer(world, scoring):
    history = [row % 40 for row in range(70)]
    found = scoring({"history": world.catalog.codes[history], "candidates": world.catalog.codes[:5]})
    np.testing.assert_allclose(found["scores"], joint_scores(world, history, range(5)), rtol=1e-5)


@pytest.mark.parametrize("num_levels", [1, 2])
def test_other_numbers_of_levels_score_alike(num_levels):
    world = make_world(20, num_levels=num_levels, codebook_size=4)
    scoring = RecBaseScoringPipeline(model=world.model, tokenizer=world.tokenizer, device="cpu")
    found = scoring({"history": world.catalog.codes[[3, 4]], "candidates": world.catalog.codes[:6]})
    np.testing.assert_allclose(found["scores"], joint_scores(world, [3, 4], range(6)), rtol=1e-5)


def test_texts_are_scored_as_their_codes_are_whatever_else_is_in_the_call(world, scoring):
    texts = world.catalog.texts
    codes = world.tokenizer.encode_items(texts)
    found = scoring({"history": texts[:3], "candidates": texts[3:]})["scores"]
    by_codes = scoring({"history": codes[:3].tolist(), "candidates": codes[3:].tolist()})["scores"]
    np.testing.assert_allclose(found, by_codes, rtol=1e-5)
    alone = scoring({"history": texts[:3], "candidates": texts[3:4]})["scores"]
    np.testing.assert_allclose(alone, found[:1], rtol=1e-5)


def test_lists_arrays_and_a_stream_of_requests_score_alike(scoring, scoring_request):
    expected = scoring(scoring_request)
    arrays = {name: np.array(codes) for name, codes in scoring_request.items()}
    assert scoring(arrays) == expected
    assert scoring([scoring_request, arrays]) == [expected, expected]
    assert list(scoring(request for request in [scoring_request])) == [expected]


def test_candidates_may_be_split_over_several_forwards(scoring, scoring_request):
    expected = scoring(scoring_request)["scores"]
    found = scoring(scoring_request, candidates_per_forward=3)["scores"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_top_k_shortens_the_ranking_wherever_it_is_given(world, scoring, scoring_request):
    whole = scoring(scoring_request)
    assert scoring(scoring_request, top_k=3) == {"scores": whole["scores"], "ranking": whole["ranking"][:3]}
    assert scoring(scoring_request, top_k=99) == whole
    preset = pipeline("recbase-scoring", model=world.model, tokenizer=world.tokenizer, device="cpu", top_k=2)
    assert preset(scoring_request)["ranking"] == whole["ranking"][:2]
    assert preset(scoring_request, top_k=4)["ranking"] == whole["ranking"][:4]


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"history": []}, r"\['candidates'\] missing"),
        ("shoes", "takes a dictionary"),
        ({"history": [], "candidates": []}, "candidates is empty"),
        ({"history": [[1, 2, 3, 9]], "candidates": [[0, 0, 0, 0]]}, "item 0, level 3: code 9"),
        ({"history": [[1, 2, 3]], "candidates": [[0, 0, 0, 0]]}, "different lengths"),
        ({"history": [], "candidates": [[1, 2, 3]]}, "has 4 codes"),
        ({"history": ["red shoe"], "candidates": [[0, 0, 0, 0]]}, "both as texts or both as codes"),
        ({"history": np.zeros((2, 16)), "candidates": np.ones((2, 16))}, "whole numbers"),
    ],
)
def test_bad_input_is_named(scoring, request_, complaint):
    with pytest.raises(ValueError, match=complaint):
        scoring(request_)


def test_bad_options_are_named(scoring, scoring_request):
    with pytest.raises(TypeError, match="topk"):
        scoring(scoring_request, topk=3)
    with pytest.raises(ValueError, match="top_k is 0"):
        scoring(scoring_request, top_k=0)
    with pytest.raises(ValueError, match="candidates_per_forward is 0"):
        scoring(scoring_request, candidates_per_forward=0)


def test_a_saved_bundle_loads_with_the_packages_own_class(bundle, scoring, scoring_request):
    loaded = pipeline("recbase-scoring", model=str(bundle), pipeline_class=RecBaseScoringPipeline, device="cpu")
    assert isinstance(loaded.tokenizer, RecBaseTokenizer)
    assert loaded(scoring_request) == scoring(scoring_request)


def test_a_saved_bundle_loads_with_its_own_code_when_that_is_trusted(bundle, scoring, scoring_request, modules_cache):
    loaded = pipeline("recbase-scoring", model=str(bundle), trust_remote_code=True, device="cpu")
    assert loaded(scoring_request) == scoring(scoring_request)


def test_a_saved_bundle_by_name_alone_asks_for_trust_even_with_the_package(bundle):
    # transformers prefers what a checkpoint says about a task to what is registered for it
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline("recbase-scoring", model=str(bundle), device="cpu")


def test_a_process_without_the_package_scores_alike_or_asks_for_trust(without_package, scoring, scoring_request):
    assert without_package[True]["pipeline"] == scoring(scoring_request)
    assert "trust_remote_code=True" in without_package[False]["pipeline"]


def test_strings_of_code_tokens_are_codes(world, scoring):
    codes = world.catalog.codes
    strings = [
        "".join(world.tokenizer.convert_ids_to_tokens(ids)) for ids in world.tokenizer.codes_to_ids(codes).tolist()
    ]
    found = scoring({"history": strings[:3], "candidates": strings[3:9]})["scores"]
    assert found == scoring({"history": codes[:3].tolist(), "candidates": codes[3:9].tolist()})["scores"]


@pytest.mark.parametrize("collisions", ["reassign", "digit"])
def test_texts_are_refused_where_only_a_catalog_knows_their_codes(world, collisions):
    tokenizer = RecBaseTokenizer(quantizer=world.tokenizer.quantizer, collisions=collisions)
    scoring = RecBaseScoringPipeline(model=make_model(tokenizer.layout), tokenizer=tokenizer, device="cpu")
    with pytest.raises(ValueError, match=f"collisions='{collisions}' a text has a semantic ID only within a catalog"):
        scoring({"history": [], "candidates": world.catalog.texts[:3]})
    codes = np.zeros((3, tokenizer.layout.num_levels), dtype=int)
    codes[:, -1] = range(3)
    strings = ["".join(tokenizer.convert_ids_to_tokens(ids)) for ids in tokenizer.codes_to_ids(codes).tolist()]
    by_codes = scoring({"history": codes[:1], "candidates": codes})
    assert scoring({"history": strings[:1], "candidates": strings}) == by_codes
    assert len(by_codes["scores"]) == 3
