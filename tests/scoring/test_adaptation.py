"""Weights follow from the histories alone: what finds their newest items counts, what does not does not."""

from __future__ import annotations

import numpy as np
import pytest

from recbase_hf import DataError, ItemCatalog, RecBaseScorer, UnknownItemError
from recbase_hf.evaluation.rankers.adapted import AdaptedModel, AdaptedText
from recbase_hf.evaluation.rankers.recbase import VIEWS, MirroredRanker
from recbase_hf.scoring.adaptation import LEAST_USERS, adapt, fitted_weights, model_components
from recbase_hf.scoring.calibration import text_similarity
from tiny_world import make_world

ITEMS = 200


@pytest.fixture(scope="module")
def world():
    return make_world()


def histories_of_a_world(count: int, seed: int = 0) -> list[np.ndarray]:
    """Users like the items of one tenth of the catalog; half of their items are among its most popular."""
    rng = np.random.default_rng(seed)
    tenths = rng.integers(0, 10, count)
    return [
        rng.permutation(
            np.unique(np.where(rng.random(6) < 0.5, rng.integers(0, 4, 6), rng.integers(0, 20, 6)) + 20 * tenth)
        )
        for tenth in tenths
    ]


def same_tenth(histories, candidates):
    pairs = zip(histories, candidates, strict=True)
    return np.concatenate([(rows // 20 == history[-1] // 20).astype(float) for history, rows in pairs])


def noise(histories, candidates):
    return np.random.default_rng(0).normal(size=sum(map(len, candidates)))


def test_what_finds_the_newest_items_counts_and_noise_does_not():
    adaptation = adapt(histories_of_a_world(500), ITEMS, {"tenth": same_tenth, "noise": noise})
    assert adaptation.weights["tenth"] > 2.0
    assert abs(adaptation.weights["noise"]) < 0.3
    assert adaptation.weights["popularity"] > 0.3
    assert adaptation.users == sum(len(history) >= 2 for history in histories_of_a_world(500))


def test_an_event_does_not_vouch_for_itself():
    """Of items that nobody else has, a count that includes the event asked for would look like a perfect predictor."""
    histories = [np.array([2 * user, 2 * user + 1]) for user in range(100)]
    adaptation = adapt(histories, 200, {})
    assert adaptation.weights["popularity"] <= 0.0


def test_scores_are_the_weighed_sum_and_users_do_not_touch_each_other():
    histories = histories_of_a_world(300)
    adaptation = adapt(histories, ITEMS, {"tenth": same_tenth})
    candidates = [np.array([1, 50, 199]), np.array([3]), np.array([7, 8])]
    found = adaptation.scores(histories[:3], candidates)
    for user in range(3):
        expected = adaptation.weights["tenth"] * same_tenth([histories[user]], [candidates[user]])
        expected = expected + adaptation.weights["popularity"] * adaptation.popularity[candidates[user]]
        np.testing.assert_allclose(found[user], expected)
        np.testing.assert_array_equal(adaptation.scores([histories[user]], [candidates[user]])[0], found[user])
    assert adaptation.scores([], []) == []


def test_popularity_counts_histories():
    histories = [*histories_of_a_world(100), np.array([5, 5, 5, 7, 5]), np.array([], dtype=np.int64)]
    expected = np.log1p([sum(item in history for history in histories) for item in range(ITEMS)])
    np.testing.assert_allclose(adapt(histories, ITEMS, {}).popularity, expected)


def test_the_fit_is_that_of_the_likelihood():
    """At the optimum of a conditional logit the mean of each feature over the likelihoods is that of the first."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 5, 2)) + 0.5 * (np.arange(5) == 0)[None, :, None]
    takes_part = rng.random((400, 5)) < 0.8
    takes_part[:, 0] = True
    weights = fitted_weights(features, takes_part)
    likelihoods = np.where(takes_part, np.exp(features @ weights), 0.0)
    likelihoods /= likelihoods.sum(axis=1, keepdims=True)
    gradient = (features[:, 0] - (likelihoods[..., None] * features).sum(axis=1)).mean(axis=0)
    np.testing.assert_allclose(gradient, 2e-3 * weights * features[takes_part].std(axis=0) ** 2, atol=1e-5)


def test_too_few_histories_are_refused_with_what_to_do():
    histories = histories_of_a_world(LEAST_USERS - 1)
    with pytest.raises(DataError, match=f"{LEAST_USERS - 1} of {LEAST_USERS} histories hold two items.*hand in more"):
        adapt([*(history[:2] for history in histories), np.array([1])], ITEMS, {})


def test_the_components_of_a_model_are_its_scores(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    histories, candidates = [np.array([1, 2, 3]), np.array([], dtype=np.int64)], [np.array([4, 5, 4]), np.array([7])]
    parts = {
        name: component(histories, candidates) for name, component in model_components(scorer, world.catalog).items()
    }
    joint, without = (
        np.concatenate(scorer.score_rows(histories, candidates, catalog=world.catalog, method="joint", alpha=alpha))
        for alpha in (0.0, 1.0)
    )
    np.testing.assert_allclose(parts["joint"], joint, rtol=1e-5)
    np.testing.assert_allclose(parts["joint"] - parts["prior"], without, rtol=1e-4, atol=1e-4)
    text = [text_similarity(world.catalog.centered_vectors, *pair) for pair in zip(histories, candidates, strict=True)]
    np.testing.assert_allclose(parts["text"], np.concatenate(text))


def test_a_scorer_adapts_to_item_ids(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    rng = np.random.default_rng(0)
    histories = [[f"item-{row}" for row in rng.choice(len(world.catalog), 4, replace=False)] for _ in range(60)]
    adapted = scorer.adapt(histories, catalog=world.catalog)
    assert sorted(adapted.weights) == ["joint", "popularity", "prior", "text"]
    everything = world.catalog.item_ids
    scores = adapted.score(histories[0], everything)
    both = adapted.score(histories[:2], [everything, everything[:3]])
    np.testing.assert_allclose(both[0], scores, rtol=1e-5)
    assert len(both[1]) == 3
    found = adapted.recommend(histories[0], k=5)
    allowed = [row for row, item in enumerate(everything) if item not in histories[0]]
    assert [item.score for item in found] == pytest.approx(sorted(scores[allowed], reverse=True)[:5], rel=1e-5)
    assert not {item.item_id for item in found} & set(histories[0])
    assert adapted.recommend(histories[0], k=len(everything), exclude_history=False)[0].score == pytest.approx(
        scores.max()
    )
    with pytest.raises(UnknownItemError, match="nowhere"):
        adapted.score(["nowhere"], everything[:2])
    with pytest.raises(ValueError, match="k is 0"):
        adapted.recommend(histories[0], k=0)
    with pytest.raises(ValueError, match="histories of many users"):
        scorer.adapt(histories[0], catalog=world.catalog)
    with pytest.raises(ValueError, match="one history"):
        adapted.recommend(histories[:2], k=1)


def test_whoever_ranks_by_item_ids_gets_what_was_evaluated(world):
    """Also where histories are longer than the model reads."""
    scorer = RecBaseScorer(world.model, world.tokenizer)
    rng = np.random.default_rng(1)
    rows = [rng.choice(len(world.catalog), scorer.max_history + 10, replace=False) for _ in range(60)]
    adapted = scorer.adapt([[world.catalog.item_ids[row] for row in past] for past in rows], catalog=world.catalog)
    ranker = AdaptedModel(scorer, world.catalog, rows)
    assert adapted.weights == pytest.approx(ranker.adaptation.weights, rel=1e-4)
    scores = adapted.score([world.catalog.item_ids[row] for row in rows[0]], world.catalog.item_ids)
    np.testing.assert_allclose(ranker.scores([rows[0]], None)[0], scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ranker.scores([rows[0]], [np.array([3, 5])]), scores[[3, 5]], rtol=1e-4, atol=1e-4)
    text = AdaptedText(world.catalog.vectors, rows)
    assert set(text.adaptation.weights) == {"text", "popularity"}
    assert text.scores(rows[:2], None).shape == (2, len(world.catalog))


def test_the_mirrored_ranker_is_the_mean_over_views(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    histories, candidates = [np.array([1, 2]), np.array([4])], [np.array([3, 9]), np.array([0])]
    views = [
        np.concatenate(
            scorer.score_rows(
                histories,
                candidates,
                catalog=world.catalog.mirrored(number, tokenizer=world.tokenizer),
                method="joint",
                alpha=1.0,
            )
        )
        for number in range(VIEWS)
    ]
    ranker = MirroredRanker(scorer, world.catalog)
    np.testing.assert_allclose(ranker.scores(histories, candidates), np.mean(views, axis=0), rtol=1e-4, atol=1e-5)
    assert ranker.scores(histories, None).shape == (2, len(world.catalog))


def test_weights_of_another_adapter_are_refused(world, monkeypatch):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    histories = [[f"item-{(7 * user + step) % 40}" for step in range(4)] for user in range(60)]
    adapted = scorer.adapt(histories, catalog=world.catalog)
    monkeypatch.setattr(type(scorer), "active_adapter", property(lambda _: "other"))
    with pytest.raises(ValueError, match="now 'other' is active"):
        adapted.score(histories[0], ["item-1"])
    with pytest.raises(ValueError, match="adapt again"):
        adapted.recommend(histories[0], 1)


def test_a_catalog_of_codes_alone_cannot_be_adapted_to(world):
    scorer = RecBaseScorer(world.model, world.tokenizer)
    catalog = ItemCatalog.from_codes(world.items, world.catalog.codes, codebook_size=8, tokenizer=world.tokenizer)
    with pytest.raises(DataError, match="no vectors"):
        scorer.adapt([["item-1", "item-2"]] * 60, catalog=catalog)
