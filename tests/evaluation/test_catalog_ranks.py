"""Figures of full rankings equal those of the same ranking written out as candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation.small_sequences import make_histories
from recbase_hf.evaluation.catalog_ranks import CatalogRanks
from recbase_hf.evaluation.figures import measure_candidates
from recbase_hf.evaluation.task import CandidateTask, CatalogTask

NUM_ITEMS, NUM_USERS = 17, 25


def make_case(seed: int, *, exclude: bool) -> tuple[CatalogTask, np.ndarray]:
    random = np.random.default_rng(seed)
    positives = random.integers(0, NUM_ITEMS, NUM_USERS)
    had = [random.integers(0, NUM_ITEMS, 6) for _ in range(NUM_USERS)]
    task = CatalogTask(
        users=np.array([f"u{user}" for user in range(NUM_USERS)], object),
        histories=had,
        positives=positives,
        excluded=[items[items != positive] for items, positive in zip(had, positives, strict=True)]
        if exclude
        else None,
        training=make_histories([]),
        num_items=NUM_ITEMS,
    )
    scores = np.round(random.normal(size=(NUM_USERS, NUM_ITEMS)), 1).astype(np.float32)
    scores[random.random(scores.shape) < 0.1] = -np.inf
    return task, scores


def as_candidates(task: CatalogTask, scores: np.ndarray) -> tuple[CandidateTask, np.ndarray]:
    excluded = task.excluded or [np.empty(0, np.int64)] * len(task)
    items = [np.setdiff1d(np.arange(task.num_items), rows) for rows in excluded]
    labels = [(rows == positive).astype(np.int8) for rows, positive in zip(items, task.positives, strict=True)]
    candidate_task = CandidateTask(
        users=task.users,
        histories=task.histories,
        candidates=np.concatenate(items),
        labels=np.concatenate(labels),
        offsets=np.cumsum([0, *map(len, items)]),
        training=task.training,
        num_items=task.num_items,
    )
    return candidate_task, np.concatenate([scores[user, rows] for user, rows in enumerate(items)])


def ranks_of(task: CatalogTask, scores: np.ndarray, batch: int = 7, **options: Any) -> CatalogRanks:
    ranks = CatalogRanks(task, **options)
    for start in range(0, len(task), batch):
        rows = np.arange(start, min(start + batch, len(task)))
        ranks.add(scores[rows], rows)
    return ranks


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_equal_those_of_written_out_candidates(seed: int, exclude: bool) -> None:
    task, scores = make_case(seed, exclude=exclude)
    ids = np.arange(NUM_ITEMS) // 2
    figures = ranks_of(task, scores, ks=(1, 3), id_of_item=ids).figures("x", samples=30)
    candidate_task, flat = as_candidates(task, scores)
    expected = measure_candidates("x", flat, candidate_task, ks=(1, 3), id_of_item=ids, samples=30)
    assert (figures.users, figures.skipped_users) == (expected.users, expected.skipped_users)
    for name in expected.metrics.keys() - {"auc"}:
        assert figures.metrics[name] == pytest.approx(expected.metrics[name], abs=1e-9), name
    assert figures.metrics["mrr@1"] == figures.metrics["hit@1"]


@pytest.mark.parametrize("exclude", [False, True])
def test_coverage_breaks_ties_by_item_row(exclude: bool) -> None:
    task, scores = make_case(2, exclude=exclude)
    figures = ranks_of(task, scores, ks=(1, 3)).figures("x", samples=2).metrics
    for k in (1, 3):
        first: set[int] = set()
        for user in range(len(task)):
            out = set(task.excluded[user].tolist()) if task.excluded else set()
            order = sorted(set(range(NUM_ITEMS)) - out, key=lambda item: (-scores[user, item], item))
            first |= set(order[:k])
        assert figures[f"coverage@{k}"].value == len(first) / NUM_ITEMS
        assert figures[f"coverage@{k}"].low is None


def test_a_constant_ranker_covers_the_first_items_only() -> None:
    task, scores = make_case(0, exclude=False)
    figures = ranks_of(task, np.zeros_like(scores), ks=[3]).figures("x", samples=2).metrics
    assert figures["coverage@3"].value == 3 / NUM_ITEMS
    assert figures["gauc"].value == 0.5
    assert figures["hit@3"].value == pytest.approx(3 / NUM_ITEMS)


def test_cut_offs_beyond_the_catalog_find_all() -> None:
    task, scores = make_case(0, exclude=False)
    figures = ranks_of(task, scores, ks=[50]).figures("x", samples=2).metrics
    assert figures["hit@50"].value == figures["coverage@50"].value == 1.0
    assert figures["mrr@50"] == pytest.approx(figures["mrr"])


def test_users_with_nothing_to_beat_are_skipped() -> None:
    task = CatalogTask(
        users=np.array(["ann", "bob"], object),
        histories=[np.array([0]), np.array([0])],
        positives=np.array([1, 1]),
        excluded=[np.array([0, 2]), np.array([0])],
        training=make_histories([]),
        num_items=3,
    )
    figures = ranks_of(task, np.array([[3, 2, 1], [3, 2, 1]]), ks=[1]).figures("x", samples=5)
    assert (figures.users, figures.skipped_users) == (1, 1)
    assert figures.metrics["hit@1"].value == 1.0


def test_nan_scores_repeated_and_missing_users_are_refused() -> None:
    task, scores = make_case(0, exclude=False)
    ranks = CatalogRanks(task)
    wrong = scores.copy()
    wrong[2, 5] = np.nan
    with pytest.raises(ValueError, match=r"the score of user 'u6' for item 5 .* is NaN"):
        ranks.add(wrong[:4], range(4, 8))
    with pytest.raises(ValueError, match=r"have shape \(4, 3\); those of 4 users must have \(4, 17\)"):
        ranks.add(scores[:4, :3], range(4))
    ranks.add(scores[:2], [3, 4])
    with pytest.raises(ValueError, match="a user comes twice, such as 'u4'"):
        ranks.add(scores[:2], [5, 4])
    with pytest.raises(ValueError, match="user 'u0' have not been added, nor those of 22 others of 25"):
        ranks.figures("x")
