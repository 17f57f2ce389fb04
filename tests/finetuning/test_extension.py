"""An extended tokenizer tells the items of a far domain apart, keeps what codes mean, and is another tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbase_hf import (
    FsqConfig,
    FsqModel,
    ItemCatalog,
    ProductQuantizerConfig,
    RecBaseScorer,
    RecBaseTokenizer,
    ResidualKMeansConfig,
    fit_quantizer,
)
from recbase_hf.errors import FingerprintMismatchError
from recbase_hf.finetuning.extension import extend_tokenizer
from tiny_world import WIDTH, make_model

LEVELS, CODES = 3, 8


def domain(seed: int, items: int = 300) -> np.ndarray:
    """Unit vectors in a subspace of a domain's own."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, 4)) @ rng.normal(size=(4, WIDTH)) + 0.1 * rng.normal(size=(items, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def tokenizer_of(kind: str) -> RecBaseTokenizer:
    shape = {"input_dim": WIDTH, "num_levels": LEVELS, "codebook_size": CODES}
    config = {
        "product": lambda: ProductQuantizerConfig(**shape, level_dim=4),
        "residual": lambda: ResidualKMeansConfig(**shape),
    }[kind]()
    from recbase_hf import QuantizerTraining

    quantizer, _ = fit_quantizer({"old": domain(0)}, config, QuantizerTraining(max_steps_per_level=20))
    return RecBaseTokenizer(quantizer=quantizer, text_encoder="tests/hash-encoder", collisions="keep")


@pytest.fixture(scope="module", params=["product", "residual"])
def tokenizer(request):
    return tokenizer_of(request.param)


def table(vectors: np.ndarray) -> list[dict[str, str]]:
    return [{"item_id": str(row), "text": f"item {row}"} for row in range(len(vectors))]


def catalog_of(tokenizer: RecBaseTokenizer, vectors: np.ndarray) -> ItemCatalog:
    return ItemCatalog.from_items(table(vectors), tokenizer=tokenizer, vectors=vectors)


def test_items_of_the_far_domain_are_told_apart_better(tokenizer):
    far = domain(1)
    extended, report = extend_tokenizer(tokenizer, {"far": far}, [2, 3])
    assert report.cosine_after > report.cosine_before + 0.03
    assert report.ids_after > report.ids_before
    for which, expected in ((tokenizer, report.ids_before), (extended, report.ids_after)):
        assert len(np.unique(catalog_of(which, far).codes, axis=0)) == expected
    assert f"{report.ids_after:,} after" in str(report)


def test_levels_that_were_not_named_stay(tokenizer):
    before, extended = tokenizer.quantizer.codebooks, extend_tokenizer(tokenizer, {"far": domain(1)}, [2, 3])[0]
    after = extended.quantizer.codebooks
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    far = domain(1)
    np.testing.assert_array_equal(catalog_of(tokenizer, far).codes[:, 0], catalog_of(extended, far).codes[:, 0])


def test_inertia_keeps_codes_where_they_were(tokenizer):
    far = {"far": domain(1)}
    moved = {}
    for inertia in (1.0, 1e6):
        extended, report = extend_tokenizer(tokenizer, far, [3], inertia=inertia)
        moved[inertia] = (extended.quantizer.codebooks - tokenizer.quantizer.codebooks).norm().item(), report.kept
    assert moved[1e6][0] < 0.01 * moved[1.0][0]
    assert moved[1e6][1] == 1.0


def test_a_code_that_nobody_uses_stays(tokenizer):
    one = np.repeat(domain(1, items=1), 5, axis=0)
    extended, _ = extend_tokenizer(tokenizer, {"one": one}, [3], inertia=0.0)
    still = (extended.quantizer.codebooks[2] == tokenizer.quantizer.codebooks[2]).all(dim=1)
    assert still.sum() >= CODES - 1
    assert extended.quantizer.codebooks.isfinite().all()


def test_an_extension_repeats_and_survives_saving(tokenizer, tmp_path):
    first, second = (extend_tokenizer(tokenizer, {"far": domain(1)}, [2, 3])[0] for _ in "12")
    first.save_pretrained(tmp_path)
    assert first.fingerprint == second.fingerprint == RecBaseTokenizer.from_pretrained(tmp_path).fingerprint
    assert first.fingerprint != tokenizer.fingerprint


def test_old_catalogs_are_refused_until_they_are_migrated(tokenizer):
    far = domain(1)
    extended, _ = extend_tokenizer(tokenizer, {"far": far}, [2, 3])
    old = catalog_of(tokenizer, far)
    scorer = RecBaseScorer(make_model(extended.layout), extended)
    with pytest.raises(FingerprintMismatchError, match="different tokenizers"):
        scorer.score(["0"], ["1"], catalog=old)
    migrated = old.migrate(extended, items=table(far))
    np.testing.assert_array_equal(migrated.codes, catalog_of(extended, far).codes)
    assert np.isfinite(scorer.score(["0"], ["1"], catalog=migrated)).all()


def test_levels_that_cannot_be_refitted_alone_are_refused():
    residual, product = tokenizer_of("residual"), tokenizer_of("product")
    with pytest.raises(ValueError, match="codes what those before it leave; add 3"):
        extend_tokenizer(residual, {"far": domain(1)}, [2])
    extend_tokenizer(product, {"far": domain(1)}, [2])
    for levels in ([], [0], [4]):
        with pytest.raises(ValueError, match="the tokenizer has the levels 1 to 3"):
            extend_tokenizer(product, {"far": domain(1)}, levels)
    with pytest.raises(ValueError, match="inertia is -1"):
        extend_tokenizer(product, {"far": domain(1)}, [3], inertia=-1)


def test_a_grid_cannot_be_refitted():
    tokenizer = RecBaseTokenizer(quantizer=FsqModel(FsqConfig(input_dim=WIDTH, num_levels=2, grid=[4, 4])))
    with pytest.raises(ValueError, match="fixed grid and no code vectors"):
        extend_tokenizer(tokenizer, {"far": domain(1)}, [2])
