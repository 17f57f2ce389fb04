"""The item vectors that a quantizer is fitted on, drawn from sources of any size in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from recbase_hf.errors import DataError
from recbase_hf.modeling.centering import center
from recbase_hf.text.encoder import normalize_rows

if TYPE_CHECKING:
    import datasets
    import pyarrow

__all__ = ["FitSample", "VectorSource", "draw_sample", "hold_out"]

VectorSource: TypeAlias = "np.ndarray | datasets.Dataset | pyarrow.Table"

BATCH = 16_384

MAX_HELD_OUT = 10_000
"""They go through the quantizer at once, and judge it as well as any number more."""


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

    @property
    def domain_weights(self) -> np.ndarray:
        """(domains,) float64, what the items of each weigh together."""
        sums = np.concatenate([[0.0], np.cumsum(self.weights)])
        return np.diff(sums[self.offsets])


def draw_sample(
    sources: Mapping[str, VectorSource], *, max_items: int, domain_balance: float, mean_shrinkage: float, seed: int
) -> FitSample:
    """Read every source twice, batch by batch: for its mean, and for the rows that are drawn.

    Args:
        sources: for each domain its (items, width) vectors: an array, which may be memory-mapped, or a
            `datasets.Dataset` or an Arrow table with a column `vector`.
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
    if not isinstance(sources, Mapping):
        raise DataError(
            f"give item vectors by the name of their domain, {{'shop': vectors}}, not {type(sources).__name__}"
        )
    if not sources:
        raise DataError("there is nothing to fit a quantizer on: give at least one domain with item vectors")
    sources = {name: _opened(name, source) for name, source in sources.items()}
    sums = {name: _sum(name, source) for name, source in sources.items()}
    widths = {name: len(total) for name, total in sums.items()}
    if len(set(widths.values())) > 1:
        raise DataError(f"the domains' vectors have different widths ({widths}); encode all with one text encoder")
    corpus_mean = np.mean([sums[name] / len(source) for name, source in sources.items()], axis=0)
    quotas = _quotas({name: len(source) for name, source in sources.items()}, max_items)
    offsets = np.cumsum([0, *(quotas[name] for name in sources)])
    vectors = np.empty((offsets[-1], len(corpus_mean)), dtype=np.float32)  # once, because they may fill the memory
    weights = np.empty(len(vectors))
    for place, (name, source) in enumerate(sources.items()):
        mean = (sums[name] + mean_shrinkage * corpus_mean) / (len(source) + mean_shrinkage)
        rows = np.sort(np.random.default_rng((seed, place)).permutation(len(source))[: quotas[name]])
        filled = int(offsets[place])
        weights[filled : offsets[place + 1]] = len(source) ** (1.0 - domain_balance) / len(rows)
        for batch in _drawn(name, source, rows):
            vectors[filled : filled + len(batch)] = center(batch, mean)
            filled += len(batch)
    return FitSample(vectors, weights / weights.mean(), offsets, corpus_mean.astype(np.float32))


def hold_out(sample: FitSample, share: float, *, seed: int) -> tuple[FitSample, np.ndarray]:
    """Split a sample into items to fit on, and (items, width) vectors by which the fit is judged.

    Of more than ten items a share is held out, at least one and at most `MAX_HELD_OUT`; otherwise, and with share 0,
    nothing is, and the fit is judged by the items that it is fitted on.
    """
    count = len(sample.vectors)
    number = min(max(1, int(count * share)), MAX_HELD_OUT) if count > 10 and share else 0
    if not number:
        return sample, sample.vectors[:MAX_HELD_OUT]
    order = np.random.default_rng(seed).permutation(count)
    kept = np.sort(order[number:])
    weights = sample.weights[kept]
    offsets = np.searchsorted(kept, sample.offsets)
    fitted = FitSample(sample.vectors[kept], weights / weights.mean(), offsets, sample.corpus_mean)
    return fitted, sample.vectors[order[:number]]


def _opened(name: str, source: Any) -> Any:
    """The source so that its slices are vectors."""
    import pyarrow as pa

    if isinstance(source, pa.Table):
        from datasets import Dataset

        source = Dataset(source)
    if not hasattr(source, "__len__"):
        raise DataError(
            f"{name} is {type(source).__name__}; give an array, an Arrow table or a datasets.Dataset, which know their "
            "length and can be read twice"
        )
    if hasattr(source, "column_names"):
        if "vector" not in source.column_names:
            columns = ", ".join(source.column_names)
            raise DataError(f"{name} has no column vector, only {columns}; rename the one that holds vectors")
        source = source.with_format("numpy", columns=["vector"])  # Arrow to NumPy without Python numbers in between
    return source


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
    for start in range(0, len(source), BATCH):
        rows = source[start : start + BATCH]
        try:
            batch = np.asarray(rows["vector"] if isinstance(rows, dict) else rows, dtype=np.float32)
        except ValueError as error:
            raise DataError(
                f"{name}, vectors {start} to {start + len(rows)}: missing, or of different widths; encode all alike"
            ) from error
        if batch.ndim != 2:
            raise DataError(f"{name}: the vectors have shape {batch.shape}; give one row an item")
        finite = np.isfinite(batch).all(axis=1)
        if not finite.all():
            raise DataError(f"{name}, vector {start + int(np.argmin(finite))}: NaN or infinity; encode its text again")
        yield start, normalize_rows(batch)
