"""What a fit promises of every kind of quantizer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from quantizers.small_quantizers import (
    CODES,
    DOMAINS,
    LEVELS,
    TRAINED_KINDS,
    WIDTH,
    before_each_step,
    centered,
    clustered_vectors,
    fit,
    small_config,
    small_quantizer,
)
from recbase_hf import DataError, FsqConfig, QuantizerTraining, fit_quantizer
from recbase_hf.doctor.measures import neighbor_recall
from recbase_hf.quantizers.kinds import KINDS
from training.small_runs import assert_same_weights

every_kind = pytest.mark.parametrize("kind", KINDS)


def error(quantizer, vectors, codes):
    """Mean squared distance of vectors to what codes decode to."""
    return float((quantizer.decode(codes) - vectors).square().sum(dim=1).mean())


# ---- what comes out ------------------------------------------------------------------------------------------------


def test_the_codes_of_each_level_are_used_and_say_what_an_item_is(fitted):
    _, quantizer, reports = fitted
    vectors = centered(quantizer)
    codes = quantizer.encode(vectors)
    for level in range(LEVELS):
        assert len(codes[:, level].unique()) >= 0.9 * CODES
        assert reports[level].perplexity >= 0.4 * CODES
    others = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))]
    assert error(quantizer, vectors, codes) < 0.5 * error(quantizer, vectors, others)
    assert error(quantizer, vectors, codes) < 0.65, "a unit vector that is guessed to be zero costs 1"


def test_a_fitted_quantizer_reconstructs_better_than_one_that_was_not(fitted):
    kind, quantizer, _ = fitted
    vectors, unfitted = centered(quantizer), small_quantizer(kind)
    assert error(quantizer, vectors, quantizer.encode(vectors)) < 0.6 * error(
        unfitted, vectors, unfitted.encode(vectors)
    )


def test_fewer_levels_decode_to_something_coarser(fitted):
    _, quantizer, _ = fitted
    vectors = centered(quantizer)
    codes = quantizer.encode(vectors)
    errors = [error(quantizer, vectors, codes[:, :levels]) for levels in range(1, LEVELS + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0] < 0.9


def test_the_reports_are_about_all_items_that_were_fitted_on(fitted):
    _, quantizer, reports = fitted
    vectors = centered(quantizer)
    codes = quantizer.encode(vectors)
    assert [report.level for report in reports] == list(range(1, LEVELS + 1))
    for report in reports:
        column = codes[:, report.level - 1]
        shares = torch.bincount(column) / len(column)
        assert report.reconstruction_loss == pytest.approx(error(quantizer, vectors, codes[:, : report.level]), 1e-4)
        assert report.used_codes == len(column.unique())
        assert report.perplexity == pytest.approx(float(torch.special.entr(shares).sum().exp()), 1e-4)


def test_the_fitted_cosines_are_what_new_items_of_the_same_kind_have(fitted):
    _, quantizer, _ = fitted
    new = {"first": clustered_vectors(4000), "second": clustered_vectors(2000, seed=1)}
    vectors = centered(quantizer, new)
    cosines = torch.nn.functional.cosine_similarity(quantizer.decode(quantizer.encode(vectors)), vectors)
    found = quantizer.fitted_cosines.numpy()
    assert float((cosines < found[1]).float().mean()) < 0.06, "sixty items were held out"
    assert abs(float((cosines < found[50]).float().mean()) - 0.5) < 0.15
    assert (np.diff(found) >= 0).all()
    assert (np.abs(found) <= 1 + 1e-6).all()


def test_the_corpus_mean_is_the_mean_of_the_domains_means(fitted):
    _, quantizer, _ = fitted
    expected = np.mean([part.mean(axis=0) for part in DOMAINS.values()], axis=0)
    np.testing.assert_allclose(quantizer.corpus_mean.numpy(), expected, atol=1e-6)


def test_what_comes_back_is_ready_to_use(fitted):
    _, quantizer, _ = fitted
    assert not quantizer.training
    assert quantizer.device.type == "cpu"
    assert all(torch.isfinite(tensor).all() for tensor in quantizer.state_dict().values())


def families_in_noise(count, seed):
    """Unit vectors of forty families that lie apart in 40 directions; in 8 others there is louder noise."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(40, 48))[rng.integers(40, size=count)]
    vectors[:, :8] = 1.6 * rng.normal(size=(count, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["product", "fsq", "cl-vae"])
def test_the_neighbor_loss_keeps_the_neighborhoods_of_new_items(kind):
    def mean_recall(neighbor_weight):
        config = small_config(kind, input_dim=48, neighbor_weight=neighbor_weight)
        recalls = []
        for seed in range(2):
            known, new = np.split(families_in_noise(800, seed), 2)
            quantizer, _ = fit(config, {"known": known}, seed=seed)
            vectors = centered(quantizer, {"new": new})
            codes = quantizer.encode(vectors)
            decoded = quantizer.decode(codes).numpy()
            recalls.append(neighbor_recall(vectors.numpy(), decoded, codes=codes.numpy()))
        return np.mean(recalls)

    assert mean_recall(1.0) > 1.25 * mean_recall(0.0)


@every_kind
def test_without_steps_a_quantizer_has_its_start(kind):
    _, reports = fit(kind, max_steps_per_level=0)
    assert [report.steps for report in reports] == [0] * LEVELS
    assert all(report.used_codes >= 0.8 * CODES for report in reports)
    if kind != "rq-vae":  # whose encoder and decoder start at random
        losses = [report.reconstruction_loss for report in reports]
        assert 0.85 > losses[0] > losses[1] > losses[2]
        assert losses[2] < 0.6


# ---- what it depends on --------------------------------------------------------------------------------------------


@every_kind
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(kind):
    options = {"max_steps_per_level": 8, "evaluate_every": 3}
    (first, reports), (again, same_reports) = (fit(kind, **options) for _ in range(2))
    assert_same_weights(again, first)
    assert same_reports == reports
    other = fit(kind, **options, seed=1)[0].state_dict()
    assert any(not torch.equal(other[name], tensor) for name, tensor in first.named_parameters())


@every_kind
def test_the_length_of_the_vectors_does_not_matter(kind):
    longer = {name: 2.0 * vectors for name, vectors in DOMAINS.items()}
    options = {"max_steps_per_level": 3}
    assert_same_weights(fit(kind, longer, **options)[0], fit(kind, **options)[0])


@pytest.mark.parametrize("kind", ["product", "fsq", "cl-vae"])
@pytest.mark.parametrize("options", [{"gradient_accumulation": 4}, {"mixed_precision": "bf16"}], ids=str)
def test_an_accelerator_made_for_a_language_model_gives_the_same_quantizer(new_accelerator, kind, options):
    steps = {"max_steps_per_level": 4, "evaluate_every": 2}
    made_for_it = fit(kind, accelerator=new_accelerator(), **steps)[0]
    assert_same_weights(fit(kind, accelerator=new_accelerator(**options), **steps)[0], made_for_it)


@pytest.mark.parametrize(("domain_balance", "least", "most"), [(0.0, 34, 40), (1.0, 12, 28)])
def test_domains_are_drawn_by_their_balance_also_where_the_large_are_cut_short(domain_balance, least, most):
    domains = {"small": clustered_vectors(100), "large": clustered_vectors(3000, seed=1)}
    small, batches = None, []

    def look(model, vectors):
        nonlocal small
        if small is None:
            small = {row.tobytes() for row in centered(model, domains)[:100].numpy().round(3)}
        batches.append(sum(row.tobytes() in small for row in vectors.numpy().round(3)) / len(vectors))

    with before_each_step(look):
        fit("product", domains, max_items=200, domain_balance=domain_balance, max_steps_per_level=40 // LEVELS + 1)
    assert least <= sum(share < 0.5 for share in batches[:40]) <= most


@pytest.mark.parametrize("kind", ["product", "residual-kmeans"])
def test_codebooks_start_from_items_where_k_means_is_off(kind):
    quantizer, _ = fit(kind, kmeans_start=False, max_steps_per_level=0)
    vectors = centered(quantizer)
    points = quantizer.features(vectors)[:, 0] if kind == "product" else vectors
    apart = torch.cdist(quantizer.codebooks[0], points).min(dim=1).values
    assert apart.max() < 1e-3
    clustered, _ = fit(kind, max_steps_per_level=0)
    assert (torch.cdist(clustered.codebooks[0], points).min(dim=1).values > 1e-2).any()


# ---- odd data ------------------------------------------------------------------------------------------------------

ODD = {
    "fewer items than codes": clustered_vectors(7),
    "one item": clustered_vectors(1),
    "all alike": np.repeat(clustered_vectors(1), 50, axis=0),
    "zeros": np.zeros((30, WIDTH), dtype=np.float32),
    "three different items": np.repeat(clustered_vectors(3), 30, axis=0),
    "two axes": np.eye(WIDTH, dtype=np.float32)[:2].repeat(9, axis=0),
}


@every_kind
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("steps", [0, 4])
def test_small_and_uniform_data_can_be_fitted(kind, name, steps):
    quantizer, reports = fit(kind, {"odd": ODD[name]}, max_steps_per_level=steps, evaluate_every=2)
    assert all(torch.isfinite(tensor).all() for tensor in quantizer.state_dict().values())
    assert all(np.isfinite(report.reconstruction_loss) for report in reports)
    vectors = centered(quantizer, {"odd": ODD[name]})
    codes = quantizer.encode(torch.cat([vectors, torch.zeros(1, WIDTH), torch.from_numpy(clustered_vectors(20, 9))]))
    assert ((codes >= 0) & (codes < CODES)).all()
    assert torch.isfinite(quantizer.decode(codes)).all()
    different = len(np.unique(ODD[name], axis=0))
    assert len(codes[: len(vectors)].unique(dim=0)) <= different, "what is alike stays alike"


@pytest.mark.parametrize("kind", ["product", "cl-vae", "residual-kmeans"])
@pytest.mark.parametrize("name", ["fewer items than codes", "three different items", "two axes"])
def test_k_means_tells_apart_what_differs(kind, name):
    _, reports = fit(kind, {"odd": ODD[name]}, max_steps_per_level=0)
    assert reports[0].used_codes == len(np.unique(ODD[name], axis=0))
    assert reports[-1].reconstruction_loss < 1e-3


def test_a_grid_of_more_scalars_than_the_vectors_are_wide_uses_them_all():
    _, reports = fit(FsqConfig(input_dim=WIDTH, num_levels=4, grid=[4] * 5), max_steps_per_level=0)
    losses = [1.0, *(report.reconstruction_loss for report in reports)]
    assert all(after < before - 0.1 for before, after in pairwise(losses))
    assert all(report.used_codes > 100 for report in reports)


@pytest.mark.parametrize("codebook_size", [2, 8, 32])
def test_a_scalar_of_two_steps_takes_both(codebook_size):
    _, reports = fit(small_config("fsq", codebook_size=codebook_size), max_steps_per_level=0)
    assert all(report.used_codes > 0.75 * codebook_size for report in reports)


# ---- what is refused -----------------------------------------------------------------------------------------------


@every_kind
def test_vectors_of_another_width_are_refused(kind):
    with pytest.raises(DataError, match=r"the item vectors are 8 wide.*configuration says 16"):
        fit(kind, {"books": np.ones((5, 8), np.float32)})


@every_kind
def test_vectors_that_are_not_finite_are_named(kind):
    vectors = clustered_vectors(30)
    vectors[17, 3] = np.nan
    with pytest.raises(DataError, match="shoes, vector 17: NaN or infinity"):
        fit(kind, {"books": clustered_vectors(5), "shoes": vectors})


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"max_items": 0}, "max_items is 0"),
        ({"epochs_per_level": 0}, "epochs_per_level is 0"),
        ({"max_steps_per_level": -1}, "max_steps_per_level"),
        ({"domain_balance": 1.5}, r"domain_balance is 1\.5"),
        ({"validation_share": 1.0}, r"validation_share is 1\.0"),
        ({"curriculum": "epoch"}, "curriculum is 'epoch'; it must be one of convergence, epochs, none"),
    ],
)
def test_impossible_settings_are_named(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        QuantizerTraining(**wrong)


@pytest.mark.parametrize("kind", TRAINED_KINDS)
def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch, new_accelerator, kind):
    accelerator = new_accelerator()
    monkeypatch.setattr(type(accelerator), "num_processes", 3)
    with pytest.raises(ValueError, match="batch_size is 512; for 3 processes it must be a multiple of 768"):
        fit(kind, accelerator=accelerator, batch_size=512)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"batch_size is 700; .* a multiple of 256, or at most 256"):
        fit_quantizer(DOMAINS, small_config(kind), QuantizerTraining(batch_size=700))


def test_a_loss_that_is_not_finite_stops_the_training():
    def break_it(model, _vectors):
        with torch.no_grad():
            model.codebooks.fill_(float("nan"))

    with before_each_step(break_it), pytest.raises(FloatingPointError, match="at step 1; lower learning_rate"):
        fit("product")
