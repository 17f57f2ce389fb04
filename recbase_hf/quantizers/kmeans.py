"""Weighted k-means on tensors: on one device, or shared by the processes of an Accelerate launch."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from recbase_hf.modeling.modeling_quantizer import nearest_codes

__all__ = ["assign", "kmeans"]

CHUNK = 4096


def kmeans(
    points: Tensor, weights: Tensor, num_clusters: int, *, accelerator: Accelerator, iterations: int = 10, seed: int = 0
) -> Tensor:
    """Cluster centers by Lloyd's iterations from points drawn by weight; empty clusters move to far points.

    Args:
        points: (items, width) float32, the same on every process; each assigns its share of them.
        weights: (items,) float64, how much an item counts.
        num_clusters: centers.
        accelerator: adds up what the processes find.
        iterations: of Lloyd's algorithm.
        seed: of the start.

    Returns:
        (num_clusters, width) float32. Where there are fewer distinct points than clusters: those points, and copies of
        them with a little noise, which never are nearest to a point of the sample.
    """
    generator = torch.Generator().manual_seed(seed)
    distinct = _distinct_if_few(points, num_clusters)
    if distinct is not None:
        return _with_noisy_copies(distinct, points, num_clusters, generator)
    # A weighted draw without replacement, as the largest of exponential races.
    race = torch.rand(len(points), generator=generator, dtype=torch.float64).log() / weights.cpu()
    centers = points[race.topk(num_clusters).indices.to(points.device)].clone()
    # In float64, so that sums do not depend on how many processes share them out; Apple's GPUs do not have it.
    weights = weights.to(points.device, torch.float32 if points.device.type == "mps" else torch.float64)
    fewest = len(points) // accelerator.num_processes  # that a process has
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    points, weights = points[mine], weights[mine]
    for _ in range(iterations):
        codes, distances = assign(points, centers)
        totals = torch.zeros(num_clusters, points.shape[1] + 1, dtype=weights.dtype, device=points.device)
        for chunk in torch.arange(len(points), device=points.device).split(CHUNK):
            totals.index_add_(0, codes[chunk], _weighted(points[chunk], weights[chunk]))
        totals = accelerator.reduce(totals, "sum")
        mass = totals[:, -1:]
        centers = torch.where(mass > 0, totals[:, :-1] / mass.clamp_min(1e-30), centers.to(mass.dtype)).float()
        empty = torch.nonzero(mass[:, 0] == 0)[:, 0]
        if len(empty):
            rows = distances.topk(min(len(empty), fewest)).indices
            far, lengths = accelerator.gather(points[rows]), accelerator.gather(distances[rows])
            far = far[lengths.topk(min(len(empty), len(far))).indices]  # the farthest, whichever process has them
            picked = torch.randperm(len(far), generator=generator).to(points.device)
            centers[empty[: len(picked)]] = far[picked]
    return centers


def assign(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest center of each point, (items,) int64, and its squared distance, (items,) float32."""
    codes = torch.cat([nearest_codes(chunk, centers) for chunk in points.split(CHUNK)])
    distances = [
        (chunk - centers[code]).square().sum(dim=1)
        for chunk, code in zip(points.split(CHUNK), codes.split(CHUNK), strict=True)
    ]
    return codes, torch.cat(distances)


def _weighted(points: Tensor, weights: Tensor) -> Tensor:
    """(items, width + 1): the points times their weights, and the weights."""
    return torch.cat([points * weights[:, None], weights[:, None]], dim=1)


def _distinct_if_few(points: Tensor, num_clusters: int) -> Tensor | None:
    """The distinct points, where there are no more of them than clusters."""
    direction = torch.linspace(1.0, 2.0, points.shape[1], device=points.device)
    if len(points) > num_clusters and len(torch.unique(points @ direction)) > num_clusters:
        return None  # a projection never tells more points apart than there are, and costs little
    distinct = torch.unique(points, dim=0)
    return distinct if len(distinct) <= num_clusters else None


def _with_noisy_copies(distinct: Tensor, points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    missing = num_clusters - len(distinct)
    copies = distinct[torch.randint(len(distinct), (missing,), generator=generator).to(distinct.device)]
    noise = torch.randn(copies.shape, generator=generator).to(copies)
    return torch.cat([distinct, copies + noise * (1e-3 + 0.1 * points.std(dim=0, correction=0))])
