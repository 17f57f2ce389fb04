"""Learning rates as functions of the step alone."""

from __future__ import annotations

import math

__all__ = ["SCHEDULES", "learning_rate_share"]

SCHEDULES = ("cosine", "wsd")


def learning_rate_share(
    schedule: str, step: int, total: int, *, warm_up_share: float = 0.05, decay_share: float = 0.2
) -> float:
    """The share of the peak learning rate that step `step` of `total` takes.

    Args:
        schedule: `cosine` goes down to a tenth. `wsd` (warm-up, stable, decay) stays at the peak until the last
            `decay_share` of the steps, in which it falls to zero as one minus a square root, which Hägele et al. (arXiv
            2405.18392) found better than a line; a run can be made longer from a checkpoint before that.
        step: from 0.
        total: steps of the training.
        warm_up_share: of the steps, the first, in which the rate rises in a line.
        decay_share: of the steps, for `wsd`.

    >>> [round(learning_rate_share("cosine", step, 10, warm_up_share=0.2), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.55, 0.134]
    >>> [round(learning_rate_share("wsd", step, 10, warm_up_share=0.2, decay_share=0.4), 3) for step in (0, 5, 6, 7, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.134]
    """
    warm_up = max(1, round(warm_up_share * total))
    if step < warm_up:
        return (step + 1) / warm_up
    if schedule == "cosine":
        done = (step - warm_up) / max(1, total - warm_up)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))
    decay = max(1, round(decay_share * total))
    return 1 - math.sqrt(max(0, step - (total - decay)) / decay)
