"""A tokenizer for a far domain: the code vectors of its deeper levels move to where that domain's items lie.

Number and order of codes stay, and each code starts from where it was, so that a language model that knew the code
still knows about where it lies; fine-tuning its embedding rows does the rest. What changes is what codes mean: the new
tokenizer has a fingerprint of its own, catalogs of the old one are refused until they are migrated, and adapters too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbase_hf.catalog.measures import reconstruction_cosines
from recbase_hf.modeling.centering import center
from recbase_hf.modeling.modeling_quantizer import nearest_codes

if TYPE_CHECKING:
    from recbase_hf.auto import Quantizer, RecBaseTokenizer

__all__ = ["ExtensionReport", "extend_tokenizer"]


@dataclass(frozen=True)
class ExtensionReport:
    """What an extension did for the items of the new domains. `str()` says it in words.

    Attributes:
        items: how many.
        ids_before: distinct semantic IDs of them under the old tokenizer.
        ids_after: under the new one.
        cosine_before: mean cosine of items, centered, with what their semantic IDs decode to.
        cosine_after: the same under the new tokenizer.
        kept: of the codes of the refitted levels, the share that are still nearer to where they were than to where any
            other code of their level was.
        new_ids: share of the items whose semantic ID is another.
    """

    items: int
    ids_before: int
    ids_after: int
    cosine_before: float
    cosine_after: float
    kept: float
    new_ids: float

    def __str__(self) -> str:
        return (
            f"{self.items:,} items: {self.ids_before:,} semantic IDs before, {self.ids_after:,} after; cosine with "
            f"their reconstruction {self.cosine_before:.3f} before, {self.cosine_after:.3f} after\n"
            f"{self.kept:.1%} of the refitted codes still lie nearest to where they were; {self.new_ids:.1%} of the "
            "items have another semantic ID"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@torch.no_grad()
def extend_tokenizer(
    tokenizer: RecBaseTokenizer,
    vectors: Mapping[str, np.ndarray],
    levels: Sequence[int],
    *,
    inertia: float = 10.0,
    iterations: int = 10,
) -> tuple[RecBaseTokenizer, ExtensionReport]:
    """Refit the code vectors of some levels on items of new domains.

    k-means from where the code vectors are, in which each counts as `inertia` items that lie there: a code that the new
    domains do not use stays where it is, one that they use moves towards their items.

    Args:
        tokenizer: whose quantizer has codebooks (all kinds but `fsq`); it stays as it is.
        vectors: of each domain (items, width) float, as the text encoder gives them, not centered.
        levels: from 1. A residual quantizer's levels depend on those before, so that all from the first of these on
            have to be among them.
        inertia: items; 0 lets codes go wherever k-means takes them.
        iterations: of k-means.

    Returns:
        The new tokenizer, with another fingerprint, and what it does for the items.

    Raises:
        ValueError: the quantizer has no codebooks, a level is not one of its, or a setting is out of range.
    """
    old = tokenizer.quantizer
    _require_refittable(old, levels)
    if inertia < 0 or iterations < 1:
        raise ValueError(f"inertia is {inertia} and iterations {iterations}; give at least 0, and at least 1")
    quantizer = copy.deepcopy(old)
    points = torch.from_numpy(
        np.concatenate([center(part, tokenizer.catalog_mean(part)) for part in vectors.values()])
    ).to(old.corpus_mean)
    for level in sorted(set(levels)):
        book = quantizer.codebooks.data[level - 1]
        book.copy_(_refitted(_points_of_level(quantizer, points, level - 1), book, inertia, iterations))
    extended = type(tokenizer)(
        quantizer=quantizer,
        text_encoder=tokenizer.text_encoder_name,
        text_encoder_revision=tokenizer.text_encoder_revision,
        item_template=tokenizer.item_template,
        collisions=tokenizer.collisions,
    )
    extended.attached_text_encoder = tokenizer.attached_text_encoder
    return extended, _report(old, quantizer, points, [level - 1 for level in sorted(set(levels))])


def _require_refittable(quantizer: Quantizer, levels: Sequence[int]) -> None:
    kind, count = quantizer.config.model_type, quantizer.config.num_levels
    if not hasattr(quantizer, "codebooks"):
        raise ValueError(
            f"a quantizer of the kind {kind} has a fixed grid and no code vectors that could move; train a tokenizer "
            "on items of both kinds instead"
        )
    if not levels or not all(1 <= level <= count for level in levels):
        raise ValueError(f"levels are {list(levels)}; the tokenizer has the levels 1 to {count}")
    missing = sorted(set(range(min(levels), count + 1)) - set(levels))
    if not hasattr(quantizer, "features") and missing:
        raise ValueError(
            f"levels are {list(levels)}, but a level of a {kind} quantizer codes what those before it leave; add "
            f"{', '.join(map(str, missing))}"
        )


def _points_of_level(quantizer: Any, vectors: Tensor, level: int) -> Tensor:
    """What a level (from 0) has to quantize, (items, width), given the levels before as they are now."""
    if hasattr(quantizer, "features"):
        found: Tensor = quantizer.features(vectors)[:, level]
        return found
    if hasattr(quantizer, "residuals"):
        return quantizer.residuals(vectors, level)
    for book in quantizer.codebooks[:level]:
        vectors = vectors - book[nearest_codes(vectors, book)]
    return vectors


def _refitted(points: Tensor, book: Tensor, inertia: float, iterations: int) -> Tensor:
    """(codes, width) float32 code vectors near (items, width) points, from those that are there."""
    start, moved = book.double(), book.clone()
    for _ in range(iterations):
        codes = nearest_codes(points, moved)
        mass = torch.bincount(codes, minlength=len(book)).double()[:, None]
        sums = torch.zeros_like(start).index_add_(0, codes, points.double())
        weight = mass + inertia
        moved = torch.where(weight > 0, (sums + inertia * start) / weight.clamp_min(1e-30), start).float()
    return moved


def _report(old: Quantizer, new: Quantizer, points: Tensor, levels: Sequence[int]) -> ExtensionReport:
    before, after = (quantizer.encode(points) for quantizer in (old, new))
    cosines = [
        float(reconstruction_cosines(points.cpu().numpy(), quantizer.decode(codes).cpu().numpy()).mean())
        for quantizer, codes in ((old, before), (new, after))
    ]
    kept = [
        nearest_codes(moved, start) == torch.arange(len(start), device=start.device)
        for moved, start in ((new.codebooks[level], old.codebooks[level]) for level in levels)
    ]
    return ExtensionReport(
        items=len(points),
        ids_before=len(torch.unique(before, dim=0)),
        ids_after=len(torch.unique(after, dim=0)),
        cosine_before=cosines[0],
        cosine_after=cosines[1],
        kept=float(torch.cat(kept).float().mean()),
        new_ids=float((before != after).any(dim=1).float().mean()),
    )
