"""The protocol of RecGPT (a foundation model for sequential recommendation): the last item among the whole catalog."""

from __future__ import annotations

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

__all__ = ["recgpt"]

COLD_EVENTS = 3
"""A cold-start history has 1 to 3 events."""


def recgpt(
    histories: Histories,
    num_items: int,
    *,
    cold_start: bool = False,
    test_share: float = 0.1,
    training_share: float = 1.0,
    exclude_history: bool = False,
    max_history: int | None = 256,
    max_users: int | None = None,
    seed: int = 0,
) -> CatalogTask:
    """Rank the whole catalog for the last item of users whom no fitted ranker has seen.

    Args:
        histories: rows of the catalog, oldest first.
        num_items: items in the catalog.
        cold_start: cut each sequence after 1 to 3 events, as many at random, and hold out the one that follows.
        test_share: of the users, drawn at random, who are evaluated; the others make up `training`.
        training_share: of the other users that fitted rankers may learn from; the paper's few-shot baselines get 0.1.
        exclude_history: whether the items of the history do not compete; in the paper all items do.
        max_history: the newest items that the user is described by; RecGPT's window holds 256. None for all.
        max_users: if more users can be evaluated, a random sample of this size is.
        seed: of all that is drawn.

    Returns:
        Users in the order of `histories`. Test users with fewer than 2 events are left out, and `settings` counts them.

    Raises:
        ValueError: a setting is out of range, an item is not a row of the catalog, or nobody can be evaluated.

    >>> histories = Histories(np.array(["ann", "bob"], object), np.array([0, 3, 6]), np.array([5, 7, 2, 1, 4, 3]))
    >>> task = recgpt(histories, num_items=10, test_share=0.5)
    >>> len(task), len(task.training), task.positives.tolist() in ([2], [3])
    (1, 1, True)
    """
    require_at_least_one(max_history=max_history, max_users=max_users)
    for name, share in {"test_share": test_share, "training_share": training_share}.items():
        if not 0 < share <= 1:
            raise ValueError(f"{name} is {share}; give a share of the users above 0, at most 1")
    require_items_of_catalog(histories, num_items)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(histories))
    num_tested = min(round(test_share * len(order)) or 1, len(order))
    tested, others = np.sort(order[:num_tested]), order[num_tested:]
    long_enough = histories.lengths[tested] >= 2
    if not long_enough.any():
        raise ValueError(
            f"none of {len(tested)} test users (of {len(histories)}) has 2 events: one for the history, one to hold "
            "out; add interactions, or raise test_share"
        )
    chosen = sample_of_users(tested[long_enough], max_users, generator)
    target = histories.offsets[1:][chosen] - 1
    if cold_start:
        most = np.minimum(histories.lengths[chosen] - 1, COLD_EVENTS)
        target = histories.offsets[:-1][chosen] + generator.integers(1, most, endpoint=True)
    positives = histories.items[target]
    return CatalogTask(
        users=histories.users[chosen],
        histories=newest_events(histories, chosen, target, max_history),
        positives=positives,
        excluded=other_items(newest_events(histories, chosen, target), positives) if exclude_history else None,
        training=histories.select(np.sort(others[: round(training_share * len(others))])),
        num_items=num_items,
        settings={
            "name": "RecGPT, cold start" if cold_start else "RecGPT",
            "seed": seed,
            "ks": [1, 3, 5],
            "num_items": num_items,
            "num_users": len(chosen),
            "cold_start": cold_start,
            "test_share": test_share,
            "training_share": training_share,
            "exclude_history": exclude_history,
            "max_history": max_history,
            "max_users": max_users,
            "users_too_short": int((~long_enough).sum()),
        },
    )
