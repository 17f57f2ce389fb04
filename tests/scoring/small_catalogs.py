"""Drawn catalogs, users and limits for the scoring tests, and what a search must find in them, by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import strategies as st

from recbase_hf import ItemCatalog, RecBaseScorer
from tiny_world import make_model, make_tokenizer

CODEBOOK_SIZE = 4
MAX_HISTORY = 3

methods = st.sampled_from(["joint", "catalog"])
alphas = st.sampled_from([0.0, 0.3, 0.9])
"""Not 1, which takes all scores under an empty history to 0, so that rounding would decide on their order."""


@cache
def tokenizer_of(num_levels: int, codebook_size: int = CODEBOOK_SIZE):
    return make_tokenizer(num_levels, codebook_size)


def new_scorer(num_levels: int = 3, dtype=torch.float64, *, codebook_size: int = CODEBOOK_SIZE, **options):
    """A scorer with a model of its own, whose context holds `MAX_HISTORY` items and a candidate."""
    tokenizer = tokenizer_of(num_levels, codebook_size)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    context = {"max_position_embeddings": 1 + num_levels * (MAX_HISTORY + 1)}
    return RecBaseScorer(make_model(tokenizer.layout, dtype=dtype, **{**sizes, **context, **options}), tokenizer)


scorer_of = cache(new_scorer)


def catalog_of(codes, *, codebook_size: int = CODEBOOK_SIZE, item_ids=None) -> ItemCatalog:
    """A catalog of any codes; without vectors, item 7 is called `7`."""
    codes = np.asarray(codes)
    item_ids = [str(row) for row in range(len(codes))] if item_ids is None else item_ids
    return ItemCatalog.from_codes(
        [{"item_id": item_id, "title": f"title {item_id}"} for item_id in item_ids],
        codes,
        codebook_size=codebook_size,
        tokenizer=tokenizer_of(codes.shape[1], codebook_size),
    )


def random_catalog(count: int, num_levels: int = 3, *, codebook_size: int = CODEBOOK_SIZE) -> ItemCatalog:
    codes = np.random.default_rng(0).integers(0, codebook_size, (count, num_levels))
    return catalog_of(codes, codebook_size=codebook_size)


@st.composite
def catalogs(draw) -> ItemCatalog:
    """One to fourteen items; a level with one code gives nodes with one child, levels with few give collisions."""
    sizes = draw(st.lists(st.integers(1, CODEBOOK_SIZE), min_size=1, max_size=5))
    item = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return catalog_of(draw(st.lists(item, min_size=1, max_size=14)))


def items_of(catalog: ItemCatalog, *, max_size: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(catalog.item_ids), max_size=max_size)


def histories_of(catalog: ItemCatalog, *, max_users: int = 5) -> st.SearchStrategy[list[list[str]]]:
    """Of one to `max_users` users: none, some, and more items than the context holds."""
    return st.lists(items_of(catalog, max_size=MAX_HISTORY + 2), min_size=1, max_size=max_users)


def limits(max_nodes: int, max_users: int):
    """A context in which so many trie nodes and users, at most, go through the model together."""
    return patch.multiple("recbase_hf.scoring.memory", MAX_NODES=max_nodes, MAX_USERS=max_users)


some_limits = st.builds(limits, st.sampled_from([1, 2, 3, 1000]), st.sampled_from([1, 2, 3, 1000]))


def best_by_brute_force(
    scorer: RecBaseScorer, catalog: ItemCatalog, history: Sequence[str], is_allowed: np.ndarray, **options
) -> list[tuple[str, float]]:
    """All allowed items of a catalog without vectors, with their scores: best first, then by item id."""
    scores = scorer.score(history, catalog.item_ids, catalog=catalog, **options)
    allowed = [(catalog.item_ids[row], float(scores[row])) for row in np.flatnonzero(is_allowed)]
    return sorted(allowed, key=lambda item: (-item[1], item[0]))


def assert_recommended(found, expected: list[tuple[str, float]], **tolerance: float) -> None:
    assert [item.item_id for item in found] == [item_id for item_id, _ in expected]
    np.testing.assert_allclose([item.score for item in found], [score for _, score in expected], **tolerance)
