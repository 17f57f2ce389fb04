"""Code vectors are where codes lie; mirror images keep all that is between items and change all their codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbase_hf.modeling.token_layout import TokenLayout

from quantizers.small_quantizers import CODES, LEVELS, WIDTH, clustered_vectors, small_quantizer
from recbase_hf.language_model import start_from_code_vectors
from recbase_hf.quantizers.geometry import Mirrors, code_vectors
from tiny_world import make_model

KINDS = ["product", "fsq", "cl-vae", "residual-kmeans"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_quantizer_has_code_vectors(kind):
    vectors = code_vectors(small_quantizer(kind))
    assert vectors.shape == (LEVELS, CODES, WIDTH)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors.mean(axis=1), 0.0, atol=1e-5)


def test_where_codes_add_vectors_these_are_the_code_vectors():
    quantizer = small_quantizer("residual-kmeans")
    torch.nn.init.normal_(quantizer.codebooks)
    books = quantizer.codebooks.detach().numpy()
    np.testing.assert_allclose(code_vectors(quantizer), books - books.mean(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 2, 1_000_003])
def test_a_mirror_image_keeps_distances_and_twice_mirrored_is_the_original(kind, number):
    mirrors, vectors = Mirrors(small_quantizer(kind)), clustered_vectors(50)
    mean = vectors.mean(axis=0)
    image = mirrors.image(vectors, mean, number)
    assert not np.allclose(image, vectors, atol=1e-3)
    np.testing.assert_allclose((image - mean) @ (image - mean).T, (vectors - mean) @ (vectors - mean).T, atol=1e-4)
    np.testing.assert_allclose(mirrors.image(image, mean, number), vectors, atol=1e-5)


def test_image_zero_is_the_original_and_every_other_number_another():
    mirrors, vectors, mean = Mirrors(small_quantizer("product")), clustered_vectors(50), np.zeros(WIDTH)
    np.testing.assert_array_equal(mirrors.image(vectors, mean, 0), vectors)
    images = {mirrors.image(vectors, mean, number).round(4).tobytes() for number in range(20)}
    assert len(images) == 20


def test_near_codes_start_with_like_embeddings_and_nothing_else_is_touched():
    layout = TokenLayout(num_levels=2, codebook_size=40)
    model, untouched = (make_model(layout, hidden_size=128, num_attention_heads=4) for _ in range(2))
    places = np.linspace(0, 1, 40)[None, :, None] * np.ones((2, 1, 3))  # codes along a line
    start_from_code_vectors(model, layout, places.astype(np.float32), seed=0)
    before, after = (one.get_input_embeddings().weight.detach() for one in (untouched, model))
    codes = np.arange(1, 1 + layout.num_codes)
    others = np.setdiff1d(np.arange(len(after)), codes)
    torch.testing.assert_close(after[others], before[others], rtol=0, atol=0)
    for level in range(2):
        embeddings = torch.nn.functional.normalize(after[layout.level_ids(level)], dim=1)
        cosines = (embeddings @ embeddings.T).numpy()
        assert cosines[20, 21] > cosines[20, 24] + 0.1 > cosines[20, 39] + 0.1
    levels = [after[layout.level_ids(level)] for level in range(2)]
    assert abs(float(torch.nn.functional.cosine_similarity(*levels).mean())) < 0.3, "levels have places of their own"
