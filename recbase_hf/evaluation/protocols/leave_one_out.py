"""Leave-one-out as in most papers on sequential recommendation: the last item among the whole catalog."""

from __future__ import annotations

from typing import Literal

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.protocols.sequences import (
    newest_events,
    other_items,
    require_at_least_one,
    require_items_of_catalog,
    sample_of_users,
)
from recbase_hf.evaluation.task import CatalogTask

__all__ = ["leave_one_out"]

HELD_OUT = {"test": 1, "validation": 2}
"""Which event from the end is the target."""


def leave_one_out(
    histories: Histories,
    num_items: int,
    *,
    split: Literal["test", "validation"] = "test",
    exclude_history: bool = False,
    max_history: int | None = 20,
    max_users: int | None = None,
    seed: int = 0,
) -> CatalogTask:
    """Rank the whole catalog for each user's last item (test), or the one before it (validation).

    Args:
        histories: rows of the catalog, oldest first.
        num_items: items in the catalog.
        split: the test history holds the validation item.
        exclude_history: whether the items that a user had before do not compete, also those older than `max_history`.
        max_history: the newest items before the target that the user is described by; None for all.
        max_users: if more users can be evaluated, a random sample of this size is.
        seed: of that sample.

    Returns:
        Users in the order of `histories`. Users with fewer than 3 events are left out, and `settings` counts them.
        `training` is the same for both splits: all users, without the last two events of those with 3 or more.

    Raises:
        ValueError: a setting is out of range, an item is not a row of the catalog, or nobody can be evaluated.

    >>> histories = Histories(np.array(["ann", "bob"], object), np.array([0, 4, 5]), np.array([5, 7, 2, 8, 5]))
    >>> task = leave_one_out(histories, num_items=10)
    >>> task.users.tolist(), task.histories[0].tolist(), task.positives.tolist(), task.training[0].tolist()
    (['ann'], [5, 7, 2], [8], [5, 7])
    """
    if split not in HELD_OUT:
        raise ValueError(f"split is {split!r}; give one of {', '.join(HELD_OUT)}")
    require_at_least_one(max_history=max_history, max_users=max_users)
    require_items_of_catalog(histories, num_items)
    long_enough = histories.lengths >= 3
    if not long_enough.any():
        raise ValueError(
            f"none of {len(histories)} users has 3 events: one for the history, one for validation, one for the test; "
            "add interactions, or use leave-last-out"
        )
    chosen = sample_of_users(np.flatnonzero(long_enough), max_users, np.random.default_rng(seed))
    target = histories.offsets[1:][chosen] - HELD_OUT[split]
    positives = histories.items[target]
    return CatalogTask(
        users=histories.users[chosen],
        histories=newest_events(histories, chosen, target, max_history),
        positives=positives,
        excluded=other_items(newest_events(histories, chosen, target), positives) if exclude_history else None,
        training=histories.first(histories.lengths - 2 * long_enough),
        num_items=num_items,
        settings={
            "name": "leave-one-out",
            "seed": seed,
            "ks": [5, 10],
            "num_items": num_items,
            "num_users": len(chosen),
            "split": split,
            "exclude_history": exclude_history,
            "max_history": max_history,
            "max_users": max_users,
            "users_too_short": int((~long_enough).sum()),
        },
    )
