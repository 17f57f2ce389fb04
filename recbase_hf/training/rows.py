"""From packed rows on disk to the tensors of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from recbase_hf.shards.packing import IGNORED, PackedRows
from recbase_hf.shards.token_shards import ShardedRows
from recbase_hf.training.batches import SeededBatches
from recbase_hf.training.history_dropout import drop_items
from recbase_hf.training.settings import Pretraining

__all__ = ["RowBatch", "RowReader", "micro_batches"]


class RowBatch(NamedTuple):
    """Some rows and what is to be predicted in them.

    Attributes:
        input_ids: (rows, row_length) int64.
        position_ids: (rows, row_length) int64, from 0 at each window.
        places: (targets,) int64, positions in the flattened rows that predict something.
        targets: (targets,) int64, the token ids that they have to predict.
        groups: (targets,) int64, `domain * levels + level` of each.
        sizes: (2,) float32, how many tokens and windows these are.
    """

    input_ids: Tensor
    position_ids: Tensor
    places: Tensor
    targets: Tensor
    groups: Tensor
    sizes: Tensor


class RowReader(Dataset[tuple[int, int]]):
    """Reads the rows of all domains by their numbers.

    Args:
        rows: of all domains.
        history_dropout: probability that an item is left out.
        seed: of that.

    Attributes:
        domains: their names, in the order of the groups.
        num_groups: domains times levels.
    """

    def __init__(self, rows: ShardedRows, *, history_dropout: float = 0.0, seed: int = 0) -> None:
        self.rows, self.history_dropout, self.seed = rows, history_dropout, seed
        self.domains = list(rows.sizes)
        self.num_groups = len(self.domains) * rows.layout.num_levels
        self._ends = np.cumsum(list(rows.sizes.values()))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        """The (step, row) itself: `read_at` takes those of a batch together."""
        return key

    def read_at(self, keys: Sequence[tuple[int, int]]) -> RowBatch:
        """Rows as they are in a step, by (step, row); which items are missing follows from seed, step and row alone."""
        rows = [row for _, row in keys]
        packed = self.rows.read(rows)
        if self.history_dropout:
            most = packed.input_ids.shape[1] // packed.layout.num_levels
            chances = np.stack([np.random.default_rng((self.seed, *key)).random(most) for key in keys])
            packed = drop_items(packed, chances, self.history_dropout)
        return self._batch(packed, rows)

    def read(self, rows: Sequence[int] | np.ndarray, *, fill_to: int = 0) -> RowBatch:
        """Rows as they are, and others without targets, so that every process computes with as many."""
        filling = [0] * (fill_to - len(rows))
        return self._batch(self.rows.read([*rows, *filling]), [*rows, *filling], without_targets=len(filling))

    def _batch(self, packed: PackedRows, rows: Sequence[int], *, without_targets: int = 0) -> RowBatch:
        layout, labels = packed.layout, packed.labels
        labels[len(rows) - without_targets :] = IGNORED
        labels = labels.ravel()
        places = np.flatnonzero(labels != IGNORED)
        targets = labels[places].astype(np.int64)
        domains = np.searchsorted(self._ends, rows, side="right")[places // packed.input_ids.shape[1]]
        groups = domains * layout.num_levels + (targets - 1) // layout.codebook_size
        windows = int((packed.input_ids == layout.bos).sum())
        return RowBatch(
            input_ids=torch.from_numpy(packed.input_ids.astype(np.int64)),
            position_ids=torch.from_numpy(packed.position_ids.astype(np.int64)),
            places=torch.from_numpy(places),
            targets=torch.from_numpy(targets),
            groups=torch.from_numpy(groups),
            sizes=torch.tensor([len(targets) + windows, windows], dtype=torch.float32),
        )


def micro_batches(
    reader: RowReader, training: Pretraining, accelerator: Any, *, start: int, stop: int
) -> Iterator[RowBatch]:
    """This process's micro-batches of the steps `start` to `stop`, on its device.

    Raises:
        ValueError: the rows of a step cannot be shared out evenly.
    """
    batches_a_step = training.gradient_accumulation * accelerator.num_processes
    sampler = _StepBatches(
        batches_a_step,
        sizes=list(reader.rows.sizes.values()),
        passes=list(reader.rows.passes.values()),
        batch_size=training.batch_rows // batches_a_step,
        start=start * batches_a_step,
        stop=stop * batches_a_step,
        temperature=training.temperature,
        seed=training.seed,
    )
    loader = DataLoader(reader, batch_sampler=sampler, collate_fn=reader.read_at)
    return iter(accelerator.prepare_data_loader(loader))


class _StepBatches(SeededBatches):
    """Batches of (step, row) in place of row numbers; rows are the same however many batches make up a step."""

    def __init__(self, batches_a_step: int, **options: Any) -> None:
        super().__init__(**options)
        self.batches_a_step = batches_a_step

    def __iter__(self) -> Iterator[Any]:
        for number, rows in enumerate(super().__iter__(), start=self.start):
            yield [(number // self.batches_a_step, row) for row in rows]
