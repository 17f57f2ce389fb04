"""RecBench's protocol: a user's last liked items, or clicks, among disliked, unclicked or random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.data.table_sources import TableSource
from recbase_hf.errors import DataError
from recbase_hf.evaluation.protocols.negatives import draw_outside, own_items
from recbase_hf.evaluation.protocols.recbench_events import (
    Events,
    Impressions,
    grouped,
    read_events,
    read_impressions,
)
from recbase_hf.evaluation.protocols.recbench_rules import RECBENCH, RecBenchRules, recbench_rules, rules_by_columns
from recbase_hf.evaluation.protocols.sequences import newest_events
from recbase_hf.evaluation.task import CandidateTask

__all__ = ["RECBENCH", "RecBenchRules", "recbench", "recbench_rules", "rules_by_columns"]


class _Pool(NamedTuple):
    """Who can be evaluated, and on what at most; users are positions in `histories`.

    histories: each user's liked items before the candidates. user, item: (n,) int64, candidates by user. label: (n,)
    int8. drawn: random negatives that each user gets besides. own: all items of each user, where some are drawn.
    left_out: users by reason.
    """

    histories: Histories
    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    left_out: dict[str, int]
    drawn: int = 0
    own: Histories | None = None


def recbench(
    interactions: TableSource,
    item_ids: Sequence[str],
    rules: RecBenchRules,
    *,
    impressions: TableSource | None = None,
    seed: int = 2024,
) -> CandidateTask:
    """RecBench's test set, as far as it is a recipe.

    The draws are this function's own: RecBench's official test sets are files. A table of impressions with a column
    `split` is such a file, and its rows `test` are taken as they are.

    Args:
        interactions: what `read_interactions` reads, with `order` or `timestamp`.
        item_ids: ids of the catalog, in its order; events with other items are left out and counted.
        rules: from `recbench_rules` or `rules_by_columns`.
        impressions: a table, or the folder or file that holds it; needed by rules of the kind `impressions` alone.
        seed: of one random generator for all that is drawn.

    Returns:
        Users in the order of their ids, candidates of each in random order; `settings` says how many users were left
        out for what reason and how many candidates stand in the history of their user. `training` has what all users
        liked; of the evaluated ones what they liked before the candidates.

    Raises:
        DataError: the data lacks what the rules ask for: times, dislikes or impressions.
        ValueError: nobody can be evaluated.

    >>> log = [
    ...     {"user_id": "ann", "item_id": item, "rating": rating, "timestamp": time}
    ...     for time, (item, rating) in enumerate([("a", 5), ("b", 1), ("c", 4), ("d", 3), ("e", 5)])
    ... ]
    >>> task = recbench(log, ["a", "b", "c", "d", "e"], recbench_rules("MovieLens"))
    >>> task.histories[0].tolist(), sorted(zip(task.candidates.tolist(), task.labels.tolist()))
    ([0], [(1, 0), (2, 1), (4, 1)])
    """
    item_ids = list(item_ids)
    generator = np.random.default_rng(seed)
    events = read_events(interactions, item_ids, rules)
    shown = _require_impressions(impressions, item_ids, rules) if rules.kind == "impressions" else None
    if shown is not None:
        pool = _shown_pool(shown, rules)
    elif rules.kind == "rated":
        pool = _rated_pool(events, rules)
    else:
        pool = _implicit_pool(events, len(item_ids), rules)
    if not len(pool.histories):
        reasons = ", ".join(f"{name} {count}" for name, count in pool.left_out.items())
        raise ValueError(
            f"nobody can be evaluated by RecBench's rules for {rules.data_set} ({reasons}); lower positives or "
            "negatives of the rules, or add interactions"
        )
    ready_made = shown is not None and shown.ready_made
    chosen = np.arange(len(pool.histories)) if ready_made else _walk(pool, rules, generator)
    user, item, label = _candidates(pool, chosen, len(item_ids), events, rules, generator)
    rows = np.arange(len(user)) if ready_made else _at_most(rules.per_label_cap, user, label, generator)
    rows = rows[np.lexsort((generator.random(len(rows)), user[rows]))]
    user, item, label = user[rows], item[rows], label[rows]
    before = pool.histories.select(chosen)
    histories = _cut(before, rules)
    return CandidateTask(
        users=before.users,
        histories=histories,
        candidates=item,
        labels=label,
        offsets=np.searchsorted(user, np.arange(len(chosen) + 1)),
        training=_training(events.liked, before),
        num_items=len(item_ids),
        settings={
            "name": "RecBench",
            "seed": seed,
            "ks": [1, 5],
            "num_items": len(item_ids),
            "num_users": len(chosen),
            "num_rows": len(item),
            **asdict(rules),
            "ready_made": ready_made,
            "unknown_items": (shown or events).unknown_items,
            **pool.left_out,
            "users_not_reached": len(pool.histories) - len(chosen),
            "candidates_in_history": _overlap(histories, user, item, len(item_ids)),
        },
    )


def _require_impressions(impressions: TableSource | None, item_ids: Sequence[str], rules: RecBenchRules) -> Impressions:
    if impressions is None:
        raise DataError(
            f"RecBench's rules for {rules.data_set} need a table of impressions: what each user was shown and what was "
            "clicked. Pass impressions, or take rules of another kind (rules_by_columns chooses)"
        )
    return read_impressions(impressions, item_ids)


def _rated_pool(events: Events, rules: RecBenchRules) -> _Pool:
    """Last liked items against disliked ones, of users who have both."""
    liked, disliked = np.flatnonzero(events.label == 1), np.flatnonzero(events.label == 0)
    likes = np.bincount(events.user[liked], minlength=len(events.users))
    both = (likes > 0) & (np.bincount(events.user[disliked], minlength=len(events.users)) > 0)
    long_enough = likes > rules.positives
    held_out = _last(events.user[liked], likes, rules.positives)
    before, positives = liked[~held_out], liked[held_out]

    negatives = disliked[~_among(events, disliked, positives)]
    if not rules.negatives_of_any_time:
        newest = np.full(len(events.users), -1)
        newest[events.user[before]] = before  # events are by time, and the last assignment stays
        negatives = negatives[negatives > newest[events.user[negatives]]]
    has_negatives = np.bincount(events.user[negatives], minlength=len(events.users)) > 0
    eligible = both & long_enough & has_negatives
    return _pool_of(
        events,
        eligible,
        before,
        np.concatenate([positives, negatives]),
        left_out={
            "users_of_one_label": int((~both).sum()),
            "users_too_short": int((both & ~long_enough).sum()),
            "users_without_negatives": int((both & long_enough & ~has_negatives).sum()),
        },
    )


def _implicit_pool(events: Events, num_items: int, rules: RecBenchRules) -> _Pool:
    """Last items against random ones outside all items of the user."""
    liked = np.flatnonzero(events.label == 1)
    likes = np.bincount(events.user[liked], minlength=len(events.users))
    long_enough = likes > rules.positives
    own = own_items(grouped(events.users, events.user, events.item), num_items)
    drawn = min(rules.negatives, rules.per_label_cap)
    available = len(np.unique(events.item)) if rules.compress_catalog else num_items
    negatives_enough = available - own.lengths >= drawn
    held_out = _last(events.user[liked], likes, rules.positives)
    eligible = long_enough & negatives_enough
    pool = _pool_of(
        events,
        eligible,
        liked[~held_out],
        liked[held_out],
        left_out={
            "users_too_short": int((~long_enough).sum()),
            "users_without_negatives": int((long_enough & ~negatives_enough).sum()),
        },
    )
    return pool._replace(drawn=drawn, own=own.select(eligible))


def _shown_pool(shown: Impressions, rules: RecBenchRules) -> _Pool:
    """What was clicked against what was not."""
    with_history = shown.histories.lengths > 0
    eligible = with_history | rules.keep_users_without_history
    with_candidates = np.bincount(shown.user, minlength=len(shown.histories)) > 0
    new_user = np.cumsum(eligible & with_candidates) - 1
    kept = eligible[shown.user]
    return _Pool(
        histories=shown.histories.select(eligible & with_candidates),
        user=new_user[shown.user[kept]],
        item=shown.item[kept],
        label=shown.label[kept],
        left_out={
            "users_without_history": int((~eligible).sum()),
            "users_without_candidates": int((eligible & ~with_candidates).sum()),
        },
    )


def _pool_of(
    events: Events, eligible: np.ndarray, before: np.ndarray, candidates: np.ndarray, left_out: dict[str, int]
) -> _Pool:
    """Split events of eligible users, (users,) bool, into those `before` and `candidates`, both (n,) int64."""
    new_user = np.cumsum(eligible) - 1
    candidates = candidates[eligible[events.user[candidates]]]
    candidates.sort()
    histories = grouped(events.users, events.user[before], events.item[before]).select(eligible)
    user, item, label = events.user[candidates], events.item[candidates], events.label[candidates]
    return _Pool(histories, new_user[user], item, label, left_out)


def _last(user: np.ndarray, counts: np.ndarray, last: int) -> np.ndarray:
    """Which events are among the `last` ones of their user, (n,) bool. `user`: (n,) int64, ascending."""
    return np.cumsum(counts)[user] - np.arange(len(user)) <= last


def _among(events: Events, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of `some` events have the user and the item of one of the `others`, (some,) bool."""
    width = events.item.max(initial=0) + 1
    pairs = events.user * width + events.item
    return np.isin(pairs[some], pairs[others])


def _walk(pool: _Pool, rules: RecBenchRules, generator: np.random.Generator) -> np.ndarray:
    """Users in random order until they have rows enough; (chosen,) int64, ascending."""
    order = generator.permutation(len(pool.histories))
    counts = np.bincount(pool.user * 2 + pool.label, minlength=2 * len(pool.histories)).reshape(-1, 2)
    rows = np.minimum(counts, rules.per_label_cap).sum(axis=1) + pool.drawn
    enough = int(np.searchsorted(np.cumsum(rows[order]), rules.rows)) + 1
    return np.sort(order[:enough])


def _candidates(
    pool: _Pool,
    chosen: np.ndarray,
    num_items: int,
    events: Events,
    rules: RecBenchRules,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All candidates of the chosen users: user (position in `chosen`), item and label, by user."""
    new_user = np.full(len(pool.histories), -1)
    new_user[chosen] = np.arange(len(chosen))
    kept = new_user[pool.user] >= 0
    user, item, label = new_user[pool.user[kept]], pool.item[kept], pool.label[kept]
    if pool.own is None:
        return user, item, label
    own, rows = pool.own.select(chosen), np.arange(num_items)
    if rules.compress_catalog:
        rows = np.unique(events.item)
        own = Histories(own.users, own.offsets, np.searchsorted(rows, own.items))
    negatives = rows[draw_outside(own, len(rows), pool.drawn, generator)]
    user = np.concatenate([user, np.repeat(np.arange(len(chosen)), pool.drawn)])
    item = np.concatenate([item, negatives.ravel()])
    label = np.concatenate([label, np.zeros(negatives.size, np.int8)])
    by_user = np.argsort(user, kind="stable")
    return user[by_user], item[by_user], label[by_user]


def _at_most(cap: int, user: np.ndarray, label: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows at random, at most `cap` of each label of each user; (kept,) int64."""
    group = user * 2 + label
    order = np.lexsort((generator.random(len(group)), group))
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    return order[place < cap]


def _cut(histories: Histories, rules: RecBenchRules) -> list[np.ndarray]:
    everybody = np.arange(len(histories))
    return newest_events(histories, everybody, histories.offsets[1:], min(rules.max_history, rules.history_kept))


def _training(liked: Histories, before: Histories) -> Histories:
    """What all liked, but of the evaluated users only what came before the candidates."""
    evaluated = set(before.users.tolist())
    is_other = np.array([user not in evaluated for user in liked.users.tolist()], bool)
    others = liked.select(is_other & (liked.lengths > 0))
    return Histories(
        np.concatenate([others.users, before.users]),
        np.concatenate([others.offsets, others.offsets[-1] + before.offsets[1:]]),
        np.concatenate([others.items, before.items]),
    )


def _overlap(histories: list[np.ndarray], user: np.ndarray, item: np.ndarray, num_items: int) -> int:
    """How many candidates stand in the history of their user."""
    owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    return int(np.isin(user * num_items + item, owners * num_items + np.concatenate(histories)).sum())
