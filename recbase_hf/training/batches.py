"""Which rows a training step sees: a function of (seed, step) alone, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

__all__ = ["SeededBatches"]


class SeededBatches(Sampler[list[int]]):
    """Batches from an endless stream of seeded permutations of `num_rows` rows.

    Batch `b` is rows `b * batch_size ... (b + 1) * batch_size` of that stream, across the borders of epochs, so that
    every batch is full and the order does not depend on how many processes share the batches out.

    >>> list(SeededBatches(num_rows=3, batch_size=2, stop=3, seed=0))
    [[2, 0], [1, 2], [0, 1]]
    """

    def __init__(self, *, num_rows: int, batch_size: int, stop: int, start: int = 0, seed: int = 0) -> None:
        if num_rows < 1 or batch_size < 1:
            raise ValueError(
                f"SeededBatches needs rows and a batch size of at least 1, got {num_rows} and {batch_size}"
            )
        self.num_rows, self.batch_size, self.start, self.stop, self.seed = num_rows, batch_size, start, stop, seed

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for batch in range(self.start, self.stop):
            rows = []
            for position in range(batch * self.batch_size, (batch + 1) * self.batch_size):
                needed_epoch, offset = divmod(position, self.num_rows)
                if needed_epoch != epoch:
                    epoch, order = (
                        needed_epoch,
                        np.random.default_rng((self.seed, needed_epoch)).permutation(self.num_rows),
                    )
                rows.append(int(order[offset]))
            yield rows
