"""Leave-last-out: each user's last item among a few drawn from the rest of the catalog."""

from __future__ import annotations

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.protocols.negatives import draw_outside, own_items
from recbase_hf.evaluation.protocols.sequences import (
    newest_events,
    require_at_least_one,
    sample_of_users,
)
from recbase_hf.evaluation.task import CandidateTask

__all__ = ["leave_last_out"]


def leave_last_out(
    histories: Histories,
    num_items: int,
    *,
    num_negatives: int = 4,
    max_history: int = 20,
    max_users: int | None = None,
    seed: int = 0,
) -> CandidateTask:
    """Hold out each user's last item and hide it among items that the user never had.

    Args:
        histories: rows of the catalog, oldest first.
        num_items: items in the catalog.
        num_negatives: candidates beside the held-out item, drawn uniformly without replacement from the catalog less
            all items of the user, also those older than `max_history`.
        max_history: the newest items before the held-out one that the user is described by.
        max_users: if more users can be evaluated, a random sample of this size is.
        seed: of one random generator for all users: the draw of a user depends on who else is evaluated.

    Returns:
        Users in the order of `histories`; the candidates of each in random order, so that no order of ties favors
        the held-out item. Users with fewer than 2 events, and users with fewer than `num_negatives` items of the
        catalog outside their own, are left out; `settings` counts them. `training` is `histories` without the
        held-out events.

    Raises:
        ValueError: a setting is out of range, an item is not a row of the catalog, or nobody can be evaluated.

    >>> histories = Histories(np.array(["ann", "bob"], object), np.array([0, 3, 4]), np.array([5, 7, 2, 5]))
    >>> ann_only = leave_last_out(histories, num_items=10)
    >>> ann_only.users.tolist(), ann_only.histories[0].tolist(), ann_only.candidates[ann_only.labels == 1].tolist()
    (['ann'], [5, 7], [2])
    """
    require_at_least_one(num_negatives=num_negatives, max_history=max_history, max_users=max_users)
    own = own_items(histories, num_items)
    long_enough = histories.lengths >= 2
    negatives_enough = num_items - own.lengths >= num_negatives
    chosen = np.flatnonzero(long_enough & negatives_enough)
    left_out = {
        "users_too_short": int((~long_enough).sum()),
        "users_without_negatives": int((long_enough & ~negatives_enough).sum()),
    }
    if not len(chosen):
        raise ValueError(_nobody_left(len(histories), num_items, num_negatives, **left_out))

    generator = np.random.default_rng(seed)
    chosen = sample_of_users(chosen, max_users, generator)
    last = histories.offsets[1:][chosen] - 1
    negatives = draw_outside(own.select(chosen), num_items, num_negatives, generator)
    candidates = np.concatenate([histories.items[last][:, None], negatives], axis=1)
    order = np.argsort(generator.random(candidates.shape), axis=1)
    held_out = np.zeros(len(histories), dtype=np.int64)
    held_out[chosen] = 1
    return CandidateTask(
        users=histories.users[chosen],
        histories=newest_events(histories, chosen, last, max_history),
        candidates=np.take_along_axis(candidates, order, axis=1).ravel(),
        labels=(order == 0).astype(np.int8).ravel(),
        offsets=np.arange(len(chosen) + 1) * (num_negatives + 1),
        training=histories.first(histories.lengths - held_out),
        num_items=num_items,
        settings={
            "name": "leave-last-out",
            "seed": seed,
            "ks": [1, 3],
            "num_items": num_items,
            "num_users": len(chosen),
            "num_candidates": num_negatives + 1,
            "max_history": max_history,
            "max_users": max_users,
            **left_out,
        },
    )


def _nobody_left(
    num_users: int, num_items: int, num_negatives: int, *, users_too_short: int, users_without_negatives: int
) -> str:
    return (
        f"none of {num_users} users can be evaluated: {users_too_short} have fewer than 2 events (one for the history, "
        f"one to hold out; add interactions), {users_without_negatives} have fewer than {num_negatives} of the "
        f"catalog's {num_items} items outside their own (add items, or lower num_negatives)"
    )
