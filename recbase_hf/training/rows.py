"""From domains to the packed rows that a language model is trained and validated on."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbase_hf.catalog.collisions import assign_codes
from recbase_hf.catalog.reading import template_of
from recbase_hf.data.domain import Domain
from recbase_hf.data.histories import Histories
from recbase_hf.data.packing import PackedRows, pack_histories

__all__ = ["join_histories", "training_rows"]


def training_rows(
    domains: list[Domain],
    tokenizer: Any,
    *,
    row_length: int,
    max_items: int,
    max_users: int = 0,
    validation_share: float = 0.05,
    seed: int = 0,
) -> tuple[PackedRows, PackedRows]:
    """Rows of training users, and rows of the validation users, who are others.

    Args:
        domains: each encoded as the catalog that it is, around its own mean.
        tokenizer: the `RecBaseTokenizer`.
        row_length: tokens a row.
        max_items: items a window.
        max_users: of each domain, drawn at random; 0 takes all.
        validation_share: of the users, at least one.
        seed: of both draws.
    """
    rng = np.random.default_rng(seed)
    codes = np.concatenate([_codes_in_catalog(domain, tokenizer) for domain in domains])
    histories = join_histories(domains, max_users, rng)
    histories = histories.select(np.flatnonzero(histories.lengths >= 2))  # one item alone has nothing to predict it
    order = rng.permutation(len(histories))
    held_out = max(1, int(validation_share * len(histories)))
    train, validation = (histories.select(np.sort(part)) for part in (order[held_out:], order[:held_out]))
    packing = {"row_length": row_length, "max_items": max_items}
    return (
        pack_histories(train, codes, tokenizer.layout, **packing),
        pack_histories(validation, codes, tokenizer.layout, **packing),
    )


def _codes_in_catalog(domain: Domain, tokenizer: Any) -> np.ndarray:
    """The semantic IDs (items, levels) int64 that the items will have in a catalog, when they are scored."""
    mean = tokenizer.catalog_mean(domain.vectors)
    if tokenizer.collisions == "keep":
        return tokenizer.encode_items(domain.vectors, mean=mean)
    texts = template_of(tokenizer).render_all(domain.items)
    return assign_codes(tokenizer, domain.vectors, texts, mean=mean)


def join_histories(domains: list[Domain], max_users: int, rng: np.random.Generator) -> Histories:
    """The users of all domains, at most `max_users` each (0: all), over one numbering of their items."""
    parts = [domain.histories for domain in domains]
    if max_users:
        parts = [part.select(np.sort(rng.permutation(len(part))[:max_users])) for part in parts]
    first_items = np.cumsum([0] + [len(domain.items) for domain in domains])
    first_events = np.cumsum([0] + [len(part.items) for part in parts])
    return Histories(
        users=np.concatenate([part.users for part in parts]),
        offsets=np.concatenate(
            [[0], *(part.offsets[1:] + first for part, first in zip(parts, first_events, strict=False))]
        ),
        items=np.concatenate([part.items + first for part, first in zip(parts, first_items, strict=False)]),
    )
