"""Which items a training step of a quantizer sees: a function of (seed, step, group) alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["GROUP_SIZE", "draw_group"]

GROUP_SIZE = 256
"""Items that go through the quantizer together: a step has `batch_size // GROUP_SIZE` groups, on any launch."""

NEIGHBORS = 8
SEARCHED = 16_384
"""Items among which an anchor's nearest are looked for: a look at all would make the step's time grow with the data."""


def draw_group(
    vectors: Tensor,
    weights: np.ndarray,
    offsets: np.ndarray,
    domain_weights: np.ndarray,
    *,
    with_neighbors: bool,
    generator: np.random.Generator,
    size: int = GROUP_SIZE,
) -> Tensor:
    """(size, width) of the (items, width) vectors.

    Args:
        weights: (items,) float64, how often an item is to be drawn.
        offsets: (domains + 1,) where the domains' items start.
        domain_weights: (domains,) float64, how often a domain is to be drawn; one without items never is.
        with_neighbors: draw one domain, and in it items together with their nearest; otherwise items of all domains.
        generator: of the draw.
    """
    if not with_neighbors:
        rows = np.searchsorted(np.cumsum(weights), generator.random(size) * float(weights.sum()))
        return vectors[torch.from_numpy(np.minimum(rows, len(vectors) - 1)).to(vectors.device)]
    sizes = np.diff(offsets)
    chances = np.where(sizes > 0, domain_weights, 0.0)
    domain = generator.choice(len(sizes), p=chances / chances.sum())
    first, count = int(offsets[domain]), int(sizes[domain])
    start = int(generator.integers(max(1, count - SEARCHED + 1)))
    searched = vectors[first + start : first + start + min(count, SEARCHED)]
    nearest = min(NEIGHBORS, len(searched))
    anchors = torch.from_numpy(generator.integers(len(searched), size=-(-size // nearest))).to(vectors.device)
    return searched[(searched[anchors] @ searched.T).topk(nearest).indices.flatten()[:size]]
