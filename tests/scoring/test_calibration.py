"""Calibrated scores are what their formula says, come back whole from a bundle, and are fitted on what was named."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf import DataError, FingerprintMismatchError, ItemCatalog, RecBaseScorer, UnknownItemError
from recbase_hf.errors import LeakageError
from recbase_hf.evaluation.metrics import gauc
from recbase_hf.scoring import calibration as module
from recbase_hf.scoring.calibration import Calibration, require_not_fitted_on, text_similarity
from recbase_hf.scoring.calibration_fit import ALPHAS, TEXT_WEIGHTS, Mix, ScoreComponents, fit_mix, score_components
from tiny_world import make_model, make_tokenizer, make_world

HISTORIES = [["item-4", "item-9", "item-2"], [], [f"item-{row}" for row in range(30)]]
CANDIDATES = [["item-3", "item-3", "item-7", "item-0"], ["item-5"], [f"item-{row}" for row in range(40)]]


@pytest.fixture(scope="module")
def world():
    """One of its own, because a catalog keeps the scores under an empty history."""
    return make_world()


@pytest.fixture(scope="module")
def calibrated(world):
    """A calibration that makes use of everything."""
    return a_calibration(world)


def a_calibration(world, **changes) -> Calibration:
    values = {
        "method": "catalog",
        "alpha": 0.4,
        "text_weight": 1.5,
        "fitted_on": {"books": "0123"},
        "items_of": {"books": "4567"},
        "fingerprint": world.tokenizer.fingerprint,
        "figures": {"books": {"users": 9, "calibrated": 0.75}},
    }
    return Calibration(**{**values, **changes})


def scorer_with(world, calibration, **options) -> RecBaseScorer:
    return RecBaseScorer(world.model, world.tokenizer, calibration=calibration, **options)


def codes_only(world) -> ItemCatalog:
    return ItemCatalog.from_codes(world.items, world.catalog.codes, codebook_size=8, tokenizer=world.tokenizer)


# ---- the score -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["catalog", "joint"])
def test_the_calibrated_score_is_its_formula(world, method):
    scorer = scorer_with(world, a_calibration(world, method=method))
    catalog, vectors = world.catalog, world.catalog.centered_vectors.astype(np.float64)
    assert len(HISTORIES[2]) > scorer.max_history
    found = scorer.score_calibrated(HISTORIES, CANDIDATES, catalog=catalog)
    for history, candidates, scores in zip(HISTORIES, CANDIDATES, found, strict=True):
        plain, empty = (scorer.score(part, candidates, catalog=catalog, method=method) for part in (history, []))
        past = vectors[catalog.rows(history[-scorer.max_history :])]
        for place, vector in enumerate(vectors[catalog.rows(candidates)]):
            similarity = math.log(sum(math.exp(5 * float(vector @ other)) for other in past)) if history else 0.0
            expected = plain[place] - 0.4 * empty[place] + 1.5 * similarity
            assert scores[place] == pytest.approx(expected, rel=1e-5, abs=1e-4)
        assert scores.dtype == plain.dtype == np.float32


def test_one_user_many_users_and_rows_give_the_same(world, calibrated):
    scorer, catalog = scorer_with(world, calibrated), world.catalog
    many = scorer.score_calibrated(HISTORIES, CANDIDATES, catalog=catalog)
    rows = [[catalog.rows(ids) for ids in part] for part in (HISTORIES, CANDIDATES)]
    of_rows = scorer.score_calibrated_rows(*rows, catalog=catalog)
    for history, candidates, part, again in zip(HISTORIES, CANDIDATES, many, of_rows, strict=True):
        np.testing.assert_array_equal(part, again)
        one = scorer.score_calibrated(history, candidates, catalog=catalog)
        np.testing.assert_allclose(one, part, rtol=1e-5, atol=1e-5)


def test_naive_scores_are_calibrated_alike(world, calibrated):
    tree, naive = (
        scorer_with(world, calibrated, strategy=strategy).score_calibrated(HISTORIES, CANDIDATES, catalog=world.catalog)
        for strategy in ("tree", "naive")
    )
    np.testing.assert_allclose(np.concatenate(tree), np.concatenate(naive), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["catalog", "joint"])
def test_without_alpha_and_text_weight_it_is_the_plain_score_and_needs_no_vectors(world, method):
    scorer = scorer_with(world, a_calibration(world, method=method, alpha=0.0, text_weight=0.0))
    for catalog in (world.catalog, codes_only(world)):
        found = scorer.score_calibrated(HISTORIES, CANDIDATES, catalog=catalog)
        for part, plain in zip(found, scorer.score(HISTORIES, CANDIDATES, catalog=catalog, method=method), strict=True):
            np.testing.assert_array_equal(part, plain)


def test_items_that_share_a_semantic_id_are_told_apart_by_their_texts(world, calibrated):
    codes = world.catalog.codes.copy()
    codes[7] = codes[3]
    catalog = replace(world.catalog, codes=codes)
    scorer = scorer_with(world, calibrated)
    plain, found = (
        score(["item-7"], ["item-3", "item-7"], catalog=catalog) for score in (scorer.score, scorer.score_calibrated)
    )
    assert plain[0] == plain[1]
    assert found[1] > found[0]


def test_another_calibration_can_be_given_for_a_batch(world, calibrated):
    rows = [np.array([4, 9])], [np.array([3, 7])]
    mine = scorer_with(world, calibrated).score_calibrated_rows(*rows, catalog=world.catalog)
    given_ = scorer_with(world, None).score_calibrated_rows(*rows, catalog=world.catalog, calibration=calibrated)
    np.testing.assert_array_equal(mine[0], given_[0])


def test_a_model_in_float64_gives_float64(world, calibrated):
    scorer = RecBaseScorer(make_model(world.tokenizer.layout, dtype=torch.float64), world.tokenizer)
    rows = [np.array([4, 9])], [np.array([3, 7])]
    assert scorer.score_calibrated_rows(*rows, catalog=world.catalog, calibration=calibrated)[0].dtype == np.float64


def test_similarities_do_not_depend_on_how_many_are_computed_at_a_time(world, monkeypatch):
    arguments = world.catalog.centered_vectors, np.array([3, 8]), np.arange(40)
    whole = text_similarity(*arguments)
    monkeypatch.setattr(module, "_ROWS", 7)
    np.testing.assert_allclose(text_similarity(*arguments), whole, rtol=1e-6, atol=1e-6)
    assert text_similarity(*arguments[:2], np.array([], dtype=np.int64)).shape == (0,)


def test_what_is_missing_is_said(world, calibrated):
    scorer, bare = scorer_with(world, calibrated), scorer_with(world, None)
    ask = (["item-4"], ["item-3"])
    with pytest.raises(ValueError, match=r"this bundle has no calibration; fit one .*recbase calibrate"):
        bare.score_calibrated(*ask, catalog=world.catalog)
    with pytest.raises(DataError, match="codes only and has no vectors; build it from its items"):
        scorer.score_calibrated(*ask, catalog=codes_only(world))
    with pytest.raises(UnknownItemError, match="item-99"):
        scorer.score_calibrated(["item-99"], ["item-3"], catalog=world.catalog)
    with pytest.raises(ValueError, match="1 histories but 2 candidate lists"):
        scorer.score_calibrated([["item-4"]], [["item-3"], ["item-5"]], catalog=world.catalog)
    with pytest.raises(IndexError, match="0 to 39"):
        scorer.score_calibrated_rows([np.array([40])], [np.array([3])], catalog=world.catalog)


# ---- in a bundle ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(world, calibrated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated") / "bundle"
    scorer_with(world, calibrated).save_pretrained(folder)
    return folder


def scores_of(scorer, world):
    return np.concatenate(scorer.score_calibrated(HISTORIES, CANDIDATES, catalog=world.catalog))


def test_a_loaded_scorer_gives_identical_scores(world, calibrated, bundle):
    loaded = RecBaseScorer.from_pretrained(bundle, device="cpu")
    assert loaded.calibration == calibrated == Calibration.load(bundle)
    np.testing.assert_array_equal(scores_of(loaded, world), scores_of(scorer_with(world, calibrated), world))


def test_it_comes_from_the_hub_too_where_there_is_one(world, calibrated, bundle, tmp_path):
    for name, has_one in (("with", True), ("without", False)):
        repository = tmp_path / f"models--nobody--{name}"
        snapshot = shutil.copytree(bundle, repository / "snapshots" / "abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
        if not has_one:
            (snapshot / "calibration.json").unlink()
        hub = {"cache_dir": tmp_path, "local_files_only": True}
        loaded = RecBaseScorer.from_pretrained(f"nobody/{name}", device="cpu", **hub)
        assert loaded.calibration == (calibrated if has_one else None)


def test_saving_without_one_removes_what_was_fitted_for_other_weights(world, bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    RecBaseScorer(make_model(world.tokenizer.layout, seed=1), world.tokenizer).save_pretrained(folder)
    assert Calibration.load(folder) is None
    assert RecBaseScorer.from_pretrained(folder, device="cpu").calibration is None


def test_that_of_another_tokenizer_is_refused(world, bundle, tmp_path):
    wrong = a_calibration(world, fingerprint="another")
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    edit(folder, fingerprint="another")
    for use in (
        lambda: wrong.save(bundle),
        lambda: scorer_with(world, wrong),
        lambda: scorer_with(world, None).score_calibrated_rows([], [], catalog=world.catalog, calibration=wrong),
        lambda: RecBaseScorer.from_pretrained(folder, device="cpu"),
    ):
        with pytest.raises(FingerprintMismatchError, match=r"the calibration .*another.* and the tokenizer"):
            use()


def test_a_folder_that_is_no_bundle_gets_none(calibrated, tmp_path):
    with pytest.raises(FileNotFoundError, match="not a RecBase bundle"):
        calibrated.save(tmp_path)
    assert not list(tmp_path.iterdir())


def edit(folder, **changes):
    path = folder / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": "half"}, "not supported between"),
        ({"text_weight": -1}, "text_weight is -1"),
        ({"text_weight": float("nan")}, "text_weight is nan"),
        ({"method": "sum"}, "method is 'sum'"),
        ({"format_version": 2}, "newer recbase-hf; upgrade"),
    ],
)
def test_a_file_with_impossible_values_is_named(bundle, tmp_path, changes, complaint):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    edit(folder, **changes)
    with pytest.raises(ValueError, match=rf"calibration\.json cannot be used \(.*{complaint}.*fit it again"):
        Calibration.load(folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "not valid JSON"), ("[]", "format_version"), ("3", "cannot be used"), ('{"format_version": 1}', "alpha")],
)
def test_a_damaged_file_is_named(bundle, tmp_path, content, complaint):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    (folder / "calibration.json").write_text(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        Calibration.load(folder)
    assert str(folder / "calibration.json") in str(caught.value)


# ---- the guard -----------------------------------------------------------------------------------------------------


def test_what_it_was_fitted_on_cannot_be_reported(calibrated):
    require_not_fitted_on(calibrated, "89ab", "cdef", "games")
    with pytest.raises(LeakageError, match=r"^shop: .*on this very data set \(as books\).* flatter; evaluate on"):
        require_not_fitted_on(calibrated, "0123", "4567", "shop")
    with pytest.raises(ValueError, match=r"^shop: .*fitted on its item table \(that of books\)"):
        require_not_fitted_on(calibrated, "89ab", "4567", "shop")


# ---- the fit -------------------------------------------------------------------------------------------------------


def components_of(labels, offsets, catalog, *, joint=None, prior=None, text=None) -> ScoreComponents:
    """Columns that are not given are 0."""
    nothing = np.zeros(len(labels), dtype=np.float32)
    catalog, joint, prior, text = (
        nothing if part is None else np.asarray(part, np.float32) for part in (catalog, joint, prior, text)
    )
    scores, priors = {"catalog": catalog, "joint": joint}, {"catalog": prior, "joint": nothing}
    return ScoreComponents(np.asarray(labels), np.asarray(offsets), scores, priors, text)


def drawn(num_users: int, *, seed: int = 0, **parts) -> ScoreComponents:
    """Users with one positive among five; a part is how much of the signal is in it; `catalog` has 0.7 of the prior."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(num_users * 5) % 5 == 0).astype(int)
    prior = rng.normal(size=len(labels)) * 3
    columns = {name: share * labels + rng.normal(size=len(labels)) for name, share in parts.items()}
    columns["catalog"] = columns.get("catalog", rng.normal(size=len(labels))) + 0.7 * prior
    return components_of(labels, np.arange(num_users + 1) * 5, prior=prior, **columns)


@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=6), max_size=6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_its_gauc_is_that_of_the_metrics(users):
    labels = [int(label) for rows in users for label, _ in rows]
    scores = np.array([score for rows in users for _, score in rows], dtype=np.float32)
    offsets = np.cumsum([0, *map(len, users)])
    components = components_of(labels, offsets, scores)
    expected = gauc(labels, scores, np.repeat(np.arange(len(users)), np.diff(offsets)))
    if not expected.scored_users:
        with pytest.raises(ValueError, match="no user has both"):
            components.gauc(scores)
        return
    assert components.gauc(scores) == pytest.approx(expected.value, abs=1e-12)
    both = components.gauc(np.stack([scores, -scores], axis=1))
    assert both.tolist() == pytest.approx([expected.value, 1 - expected.value], abs=1e-12)


def test_the_best_of_the_grid_is_found():
    domains = {name: drawn(60, seed=seed, catalog=1.0, text=1.0) for seed, name in enumerate("ab")}
    mix = fit_mix(domains)

    def mean(mix: Mix) -> float:
        return float(np.mean([part.gauc(part.mixed(mix)) for part in domains.values()]))

    grid = [
        Mix(method, alpha, weight) for method in ("catalog", "joint") for alpha in ALPHAS for weight in TEXT_WEIGHTS
    ]
    assert mean(mix) >= max(map(mean, grid))


def test_the_prior_that_was_added_is_taken_off_again():
    mix = fit_mix({"a": drawn(1000, catalog=2.0)})
    assert (mix.method, mix.text_weight) == ("catalog", 0.0)
    assert mix.alpha == pytest.approx(0.7, abs=0.11)


def test_the_better_method_and_useful_texts_are_chosen():
    assert fit_mix({"a": drawn(500, joint=2.0)}).method == "joint"
    assert fit_mix({"a": drawn(500, catalog=1.0, text=1.0)}).text_weight > 0.3


def test_of_equally_good_mixes_the_plainest_is_chosen():
    labels, offsets = [1, 0, 1, 0], [0, 2, 4]
    assert fit_mix({"a": components_of(labels, offsets, labels, joint=labels)}) == Mix("catalog", 0.0, 0.0)
    assert fit_mix({"a": components_of(labels, offsets, None, joint=labels)}) == Mix("joint", 0.0, 0.0)


def test_domains_count_alike_whatever_their_size():
    large, small = drawn(900, joint=1.0), drawn(100, seed=1, catalog=4.0)
    assert fit_mix({"large": large, "small": small}).method == "catalog"


def test_ten_domains_of_a_thousand_users_take_seconds():
    domains = {str(seed): drawn(1000, seed=seed, catalog=1.0, text=1.0) for seed in range(10)}
    start = time.process_time()
    fit_mix(domains)
    assert time.process_time() - start < 10


def test_nothing_to_fit_on_is_refused():
    with pytest.raises(ValueError, match="no domain to fit"):
        fit_mix({})
    with pytest.raises(ValueError, match="no user has both"):
        fit_mix({"a": components_of([1, 1], [0, 2], [0.5, 0.7])})


def test_what_the_fit_measures_is_what_the_scorer_gives(world):
    rng = np.random.default_rng(0)
    histories = [rng.permutation(40)[: 1 + user % 5] for user in range(30)]
    candidates = [rng.permutation(40)[:5] for _ in range(30)]
    labels = np.tile([0, 1, 0, 0, 0], 30)
    scorer = scorer_with(world, None)
    components = score_components(scorer, world.catalog, histories, candidates, labels)
    for mix in (Mix("catalog", 0.3, 2.0), Mix("joint", 1.0, 0.25)):
        own = a_calibration(world, **mix._asdict())
        scores = scorer.score_calibrated_rows(histories, candidates, catalog=world.catalog, calibration=own)
        np.testing.assert_allclose(components.mixed(mix), np.concatenate(scores), rtol=1e-4, atol=1e-4)
        assert components.figures(mix)["users"] == 30
        expected = gauc(labels, np.concatenate(scores), np.repeat(np.arange(30), 5)).value
        assert components.figures(mix)["calibrated"] == pytest.approx(expected, abs=0.01)


def test_codes_of_another_tokenizer_are_refused(world):
    scorer = RecBaseScorer(make_model(world.tokenizer.layout), make_tokenizer(seed=1))
    with pytest.raises(FingerprintMismatchError, match=r"the catalog .* and the tokenizer"):
        score_components(scorer, world.catalog, [np.array([1])], [np.array([2, 3])], np.array([0, 1]))
