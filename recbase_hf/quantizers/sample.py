"""The item vectors that a quantizer is fitted on, drawn from sources of any size in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from recbase_hf.errors import DataError
from recbase_hf.modeling.centering import center
from recbase_hf.text.encoder import normalize_rows

if TYPE_CHECKING:
    import datasets

__all__ = ["FitSample", "VectorSource", "draw_sample"]

VectorSource: TypeAlias = "np.ndarray | datasets.Dataset"

BATCH = 16_384


@dataclass(frozen=True)
class FitSample:
    """Centered vectors, each with the weight that its domain gives it.

    Attributes:
        vectors: (items, width) float32, less their own domain's mean, unit length.
        weights: (items,) float64, mean 1; how much an item counts.
        offsets: (domains + 1,) int64; items of domain d are `offsets[d]` up to `offsets[d + 1]`.
        corpus_mean: (width,) float32, mean of the domains' means.
    """

    vectors: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    corpus_mean: np.ndarray


def draw_sample(
    sources: Mapping[str, VectorSource], *, max_items: int, domain_balance: float, mean_shrinkage: float, seed: int
) -> FitSample:
    """Read every source twice, batch by batch: for its mean, and for the rows that are drawn.

    Args:
        sources: for each domain its (items, width) vectors: an array, which may be memory-mapped, or a
            `datasets.Dataset` with a column `vector`, which is.
        max_items: rows to draw at most, over all domains; smaller domains are taken whole first.
        domain_balance: 0 lets every item count alike, 1 every domain.
        mean_shrinkage: how many items the corpus mean weighs in a domain's own mean.
        seed: of the draw.

    Raises:
        DataError: there is no vector at all, a source is empty, a vector is not finite, or the widths differ.

    >>> domains = {"a": np.eye(3), "b": np.eye(3)[:1]}
    >>> sample = draw_sample(domains, max_items=10, domain_balance=1.0, mean_shrinkage=0.0, seed=0)
    >>> sample.vectors.shape, sample.weights.round(2).tolist()
    ((4, 3), [0.67, 0.67, 0.67, 2.0])
    """
    if not sources:
        raise DataError("there is nothing to fit a quantizer on: give at least one domain with item vectors")
    sums = {name: _sum(name, source) for name, source in sources.items()}
    widths = {name: len(total) for name, total in sums.items()}
    if len(set(widths.values())) > 1:
        raise DataError(f"the domains' vectors have different widths ({widths}); encode all with one text encoder")
    corpus_mean = np.mean([sums[name] / len(source) for name, source in sources.items()], axis=0)
    quotas = _quotas({name: len(source) for name, source in sources.items()}, max_items)
    parts, weights = [], []
    for place, (name, source) in enumerate(sources.items()):
        mean = (sums[name] + mean_shrinkage * corpus_mean) / (len(source) + mean_shrinkage)
        rows = np.sort(np.random.default_rng((seed, place)).permutation(len(source))[: quotas[name]])
        parts += [center(batch, mean) for batch in _drawn(name, source, rows)]
        weights.append(np.full(len(rows), len(source) ** (1.0 - domain_balance) / len(rows)))
    weight = np.concatenate(weights)
    offsets = np.cumsum([0, *map(len, weights)])
    return FitSample(np.concatenate(parts), weight / weight.mean(), offsets, corpus_mean.astype(np.float32))


def _quotas(sizes: Mapping[str, int], max_items: int) -> dict[str, int]:
    """Rows of each domain: small domains whole, the room that is left shared evenly by the larger ones."""
    quotas, room = {}, max(max_items, len(sizes))
    for place, name in enumerate(sorted(sizes, key=sizes.__getitem__)):
        quotas[name] = min(sizes[name], room // (len(sizes) - place))
        room -= quotas[name]
    return quotas


def _sum(name: str, source: VectorSource) -> np.ndarray:
    """(width,) float64."""
    if len(source) == 0:
        raise DataError(f"{name} has no item; leave it out")
    return np.sum([batch.sum(axis=0, dtype=np.float64) for _, batch in _batches(name, source)], axis=0)


def _drawn(name: str, source: VectorSource, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start, batch in _batches(name, source):
        first, last = np.searchsorted(rows, (start, start + len(batch)))
        yield batch[rows[first:last] - start]


def _batches(name: str, source: VectorSource) -> Iterator[tuple[int, np.ndarray]]:
    """Number of its first row, and (rows, width) float32 unit vectors."""
    if hasattr(source, "column_names"):
        if "vector" not in source.column_names:
            columns = ", ".join(source.column_names)
            raise DataError(f"{name} has no column vector, only {columns}; rename the one that holds vectors")
        source = source.with_format("numpy", columns=["vector"])  # Arrow to NumPy without Python numbers in between
    for start in range(0, len(source), BATCH):
        rows = source[start : start + BATCH]
        try:
            batch = np.asarray(rows["vector"] if isinstance(rows, dict) else rows, dtype=np.float32)
        except ValueError as error:
            raise DataError(f"{name}, vectors from {start} on: of different widths; encode all alike") from error
        if batch.ndim != 2:
            raise DataError(f"{name}: the vectors have shape {batch.shape}; give one row an item")
        finite = np.isfinite(batch).all(axis=1)
        if not finite.all():
            raise DataError(f"{name}, vector {start + int(np.argmin(finite))}: NaN or infinity; encode its text again")
        yield start, normalize_rows(batch)
