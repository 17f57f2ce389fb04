"""What is measured between steps: the loss on held-out users, and probes on data sets that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbase_hf.training.checkpoints import whole_weights
from recbase_hf.training.loss import group_counts, group_sums
from recbase_hf.training.rows import RowBatch, RowReader
from recbase_hf.training.shadow import is_sharded

if TYPE_CHECKING:
    from recbase_hf.training.probe import Probe

__all__ = ["probe_figures", "spread_rows", "validation_sums"]


def spread_rows(sizes: Sequence[int], most: int) -> np.ndarray:
    """About `most` rows at even distances, of each domain its share and at least one, (n,) int64; 0 takes all.

    Long windows come first where rows are packed, so that even distances give as many of every length.

    >>> spread_rows([3, 8], most=4)
    array([1, 4, 7, 9])
    """
    share = most / max(1, sum(sizes)) if most else 1.0
    chosen, first = [np.empty(0, dtype=np.int64)], 0
    for size in sizes:
        count = min(size, max(1, round(share * size)))
        chosen.append(first + (np.arange(count) * size + size // 2) // max(1, count))
        first += size
    return np.concatenate(chosen)


@torch.no_grad()
def validation_sums(
    model: Any, rows: RowReader, chosen: np.ndarray, accelerator: Any, *, rows_at_once: int
) -> np.ndarray:
    """Sums and counts of the losses of each group, (2, groups) float64, over some rows. Call on every process.

    Args:
        model: after `give_losses`, unwrapped.
        rows: where they are.
        chosen: (n,) int64, their numbers, shared out over the processes.
        accelerator: of the training.
        rows_at_once: on each process.
    """
    was_training = model.training
    model.eval()
    found = torch.zeros(2, rows.num_groups, device=accelerator.device)
    for start in range(0, len(chosen), rows_at_once * accelerator.num_processes):
        # The same number of forwards on every process: sharded models wait for each other in each.
        first = start + accelerator.process_index * rows_at_once
        mine = chosen[first : first + rows_at_once]
        batch = RowBatch(*(part.to(accelerator.device) for part in rows.read(mine, fill_to=rows_at_once)))
        losses = model(batch.input_ids, batch.position_ids, batch.places, batch.targets)
        found[0] += group_sums(losses, batch.groups, rows.num_groups)
        found[1] += group_counts(batch.groups, rows.num_groups)
    model.train(was_training)
    return np.array(accelerator.reduce(found, reduction="sum").tolist())


def probe_figures(model: Any, probes: Sequence[Probe], accelerator: Any) -> dict[str, float]:
    """Figures of probes, measured on the main process while the others wait; the same on all. Call on every process."""
    from accelerate.utils import broadcast_object_list

    from recbase_hf.language_model import new_language_model
    from recbase_hf.training.probe import measure_probes

    found: list[dict[str, float]] = [{}]
    weights = whole_weights(model) if is_sharded(model) else None
    if accelerator.is_main_process:
        if weights is not None:
            model = new_language_model(model.config, seed=0)
            model.load_state_dict(weights)
            model.to(accelerator.device)
        found = [measure_probes(probes, model)]
    return broadcast_object_list(found)[0]
