"""A tiny world: a deterministic text encoder, a small quantizer, a catalog with collisions and a random model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH = 16


class HashEncoder:
    """A sentence encoder made of word hashes: texts that share words get like vectors."""

    name = "tests/hash-encoder"
    revision = None
    dimension = WIDTH

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.stack([sum((self._word(word) for word in text.split()), np.zeros(WIDTH)) for text in texts])
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    @staticmethod
    def _word(word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
        return np.random.default_rng(seed).normal(size=WIDTH)


@dataclass(frozen=True)
class World:
    tokenizer: object
    catalog: object
    model: object
    items: list[dict[str, str]]


def make_tokenizer(num_levels: int = 4, codebook_size: int = 8, seed: int = 0):
    import torch

    from recbase_hf import ClVaeConfig, ClVaeModel, RecBaseTokenizer

    torch.manual_seed(seed)
    config = ClVaeConfig(
        input_dim=WIDTH,
        hidden_dims=[32],
        latent_dim=8,
        num_levels=num_levels,
        codebook_size=codebook_size,
        mean_shrinkage=1,
    )
    tokenizer = RecBaseTokenizer(
        quantizer=ClVaeModel(config),
        text_encoder=HashEncoder.name,
        item_template={"version": 1, "fields": ["title"], "lead": None},
    )
    tokenizer.attached_text_encoder = HashEncoder()
    return tokenizer


def make_model(layout, *, seed: int = 0, dtype=None, **overrides):
    """A random model with weights large enough that its probabilities are far from uniform."""
    import torch

    from recbase_hf.language_model import new_language_model, qwen2_config

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.3}
    config = qwen2_config("tiny", layout, max_items=16, **{**sizes, **overrides})
    return new_language_model(config, seed=seed).eval().to(dtype or torch.float32)


def make_items(count: int) -> list[dict[str, str]]:
    """Titles of two words; items 0 and 1 have the same, so that at least one semantic ID collides."""
    words = ["red", "blue", "green", "old", "new", "big", "small", "soft"]
    things = ["shoe", "sock", "hat", "belt", "scarf", "glove", "coat"]
    pairs = [f"{words[i % 8]} {things[(i // 8) % 7]} {i // 56}" for i in range(count)]
    pairs[1] = pairs[0]
    return [{"item_id": f"item-{i}", "title": pair} for i, pair in enumerate(pairs)]


def make_world(count: int = 40, *, num_levels: int = 4, codebook_size: int = 8, **model_options) -> World:
    from recbase_hf import ItemCatalog

    tokenizer = make_tokenizer(num_levels, codebook_size)
    items = make_items(count)
    catalog = ItemCatalog.from_items(items, tokenizer=tokenizer)
    return World(tokenizer, catalog, make_model(tokenizer.layout, **model_options), items)
