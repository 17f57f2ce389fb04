"""Which rows a training step sees: a function of (seed, step) alone, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

from recbase_hf.shards.token_shards import rows_a_pass

__all__ = ["SeededBatches", "rows_an_epoch"]


class SeededBatches(Sampler[list[int]]):
    """Batches from an endless stream of rows of several domains, mixed by temperature.

    The stream is a chain of epochs, each as many rows as there are in all domains, in seeded random order. A domain of
    `n` rows gives a share of `n ** (1 / temperature)` of them: at temperature 1 every row comes once an epoch, at
    higher ones small domains come more often (their rows in one seeded permutation after the other), large ones less.
    Where rows are of several passes over the same histories, `n` is the rows of one, and the passes take turns.
    Batch `b` is rows `b * batch_size ... (b + 1) * batch_size` of the stream, across the borders of epochs, so that
    every batch is full and the order does not depend on how many processes share the batches out.

    Args:
        sizes: rows of each domain; row numbers go through all domains.
        batch_size: rows a batch.
        stop: the batch to end before.
        start: the batch to begin with.
        temperature: at least 1.
        seed: of the order.
        passes: of each domain, how many of its rows every pass has; default one pass.

    >>> list(SeededBatches(sizes=[3], batch_size=2, stop=3, seed=0))
    [[1, 2], [0, 2], [0, 1]]
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int],
        batch_size: int,
        stop: int,
        start: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
        passes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if sum(sizes) < 1 or batch_size < 1:
            raise ValueError(f"SeededBatches needs rows and a batch size of at least 1, got {sizes} and {batch_size}")
        self.sizes, self.batch_size, self.start, self.stop, self.seed = sizes, batch_size, start, stop, seed
        self.passes = [tuple(of_domain) for of_domain in passes or [[size] for size in sizes]]
        self.quotas = rows_an_epoch([rows_a_pass(of_domain) for of_domain in self.passes], temperature)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        num_rows = sum(self.quotas)
        epoch, rows = -1, np.empty(0, dtype=np.int64)
        for batch in range(self.start, self.stop):
            chosen = []
            for position in range(batch * self.batch_size, (batch + 1) * self.batch_size):
                needed_epoch, place = divmod(position, num_rows)
                if needed_epoch != epoch:
                    epoch, rows = needed_epoch, self._epoch(needed_epoch)
                chosen.append(int(rows[place]))
            yield chosen

    def _epoch(self, epoch: int) -> np.ndarray:
        """The rows of an epoch in order, (rows of an epoch,) int64."""
        parts, first = [np.empty(0, dtype=np.int64)], 0
        for domain, (size, quota) in enumerate(zip(self.sizes, self.quotas, strict=True)):
            at, end = epoch * quota, (epoch + 1) * quota
            while at < end:
                number, place = divmod(at, size)
                taken = min(size - place, end - at)
                parts.append(first + self._permutation(domain, number)[place : place + taken])
                at += taken
            first += size
        rows = np.concatenate(parts)
        return rows[np.random.default_rng((self.seed, epoch)).permutation(len(rows))]

    def _permutation(self, domain: int, number: int) -> np.ndarray:
        return _permutation(self.seed, domain, number, self.passes[domain])


def rows_an_epoch(sizes: Sequence[int], temperature: float) -> list[int]:
    """How many rows each domain gives to an epoch of as many rows as there are in all.

    Raises:
        ValueError: the temperature is below 1.

    >>> rows_an_epoch([900, 100], temperature=1), rows_an_epoch([900, 100], temperature=2)
    ([900, 100], [750, 250])
    """
    if not temperature >= 1:
        raise ValueError(f"temperature is {temperature}; 1 takes domains as large as they are, higher evens them out")
    weights = np.array([size ** (1 / temperature) if size else 0.0 for size in sizes])
    exact = sum(sizes) * weights / weights.sum()
    quotas = np.floor(exact + 1e-9).astype(int)
    rest = np.argsort(quotas - exact, kind="stable")[: sum(sizes) - int(quotas.sum())]
    quotas[rest] += 1
    return quotas.tolist()


@lru_cache(maxsize=4)
def _permutation(seed: int, domain: int, number: int, passes: tuple[int, ...]) -> np.ndarray:
    """The rows of a domain, shuffled within each pass."""
    rng, ends = np.random.default_rng((seed, 1 + domain, number)), np.cumsum(passes)
    return np.concatenate([end - rows + rng.permutation(rows) for rows, end in zip(passes, ends, strict=True)])
