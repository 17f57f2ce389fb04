"""Where codes lie in the space of item vectors, and mirror images of that space.

Near items should be near to the language model too, also where it has never seen their codes together. So its code
embeddings start where the code vectors lie (`code_vectors`), and its training data may show every catalog in mirror
images as well (`Mirrors`), among whose codes nothing can be known by heart: what remains to be learned is how the next
item follows from those of the history, which is what holds in a domain that nobody has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recbase_hf.auto import Quantizer

__all__ = ["Mirrors", "code_vectors"]

_CONTEXTS = 16
"""Semantic IDs that a code stands in, of which a mean is taken."""

_SAMPLE = 4096
"""Semantic IDs drawn to find the principal axes: as many as say enough of 384 dimensions."""


def code_vectors(quantizer: Quantizer, *, seed: int = 0) -> np.ndarray:
    """Where each code of each level lies: (levels, codebook_size, width) float32.

    The mean of what semantic IDs with this code decode to, over the same random codes of the other levels for all of a
    level, less the mean of the level. Where a code adds a vector of its own, as in product and residual quantizers, it
    is that vector.
    """
    levels, size = quantizer.config.num_levels, quantizer.config.codebook_size
    others = np.random.default_rng(seed).integers(0, size, (_CONTEXTS, levels))
    found = []
    for level in range(levels):
        codes = np.repeat(others[None], size, axis=0)
        codes[:, :, level] = np.arange(size)[:, None]
        decoded = quantizer.decode(codes.reshape(-1, levels)).cpu().numpy()
        found.append(decoded.reshape(size, _CONTEXTS, -1).mean(axis=1))
    vectors = np.stack(found)
    return (vectors - vectors.mean(axis=1, keepdims=True)).astype(np.float32)


class Mirrors:
    """Mirror images of item vectors: the signs of some principal axes of the quantizer's space are turned around.

    An image keeps lengths, similarities and the spread along every axis, so it is as good a domain as the original,
    with other codes. Image 0 is the original.

    >>> from recbase_hf.auto import ProductQuantizerConfig, ProductQuantizerModel
    >>> config = ProductQuantizerConfig(input_dim=8, num_levels=2, codebook_size=4, level_dim=2)
    >>> quantizer = ProductQuantizerModel(config)
    >>> mirrors, vectors = Mirrors(quantizer), np.eye(8, dtype=np.float32)
    >>> image = mirrors.image(vectors, np.zeros(8, dtype=np.float32), number=1)
    >>> bool(np.allclose(image @ image.T, vectors @ vectors.T, atol=1e-5)), bool(np.allclose(image, vectors))
    (True, False)
    """

    def __init__(self, quantizer: Quantizer) -> None:
        levels, size = quantizer.config.num_levels, quantizer.config.codebook_size
        codes = np.random.default_rng(0).integers(0, size, (_SAMPLE, levels))
        decoded = quantizer.decode(codes).cpu().numpy().astype(np.float64)
        _, strengths, axes = np.linalg.svd(decoded - decoded.mean(axis=0), full_matrices=False)
        self._axes = axes[strengths > 1e-6 * strengths[0]].astype(np.float32)

    def image(self, vectors: np.ndarray, mean: np.ndarray, number: int) -> np.ndarray:
        """(items, width) float32 vectors, mirrored about `mean` (width,); every number is another image."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if not number:
            return vectors
        turned = self._axes[np.random.default_rng(number).random(len(self._axes)) < 0.5]
        return vectors - 2 * ((vectors - mean) @ turned.T) @ turned
