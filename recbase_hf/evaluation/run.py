"""Ranks for all users of a task with several rankers, on one process or several, and goes on where it was interrupted.

Every part of the work, some users by one ranker, is a file. Which parts there are does not depend on the number of
processes, and so neither do the figures.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from recbase_hf.evaluation.catalog_ranks import CatalogRanks
from recbase_hf.evaluation.figures import TaskFigures, measure_candidates
from recbase_hf.evaluation.rankers.ranker import Ranker
from recbase_hf.evaluation.task import CandidateTask, CatalogTask
from recbase_hf.files import atomic_file, read_json, write_json
from recbase_hf.progress import progress
from recbase_hf.share import Share

__all__ = ["RankerEntry", "RankerFigures", "evaluate_rankers"]

logger = logging.getLogger(__name__)

USERS_A_PART = 1024
_SCORES_A_PART = 1 << 25
"""Of full rankings: 128 MiB of float32."""


@dataclass(frozen=True)
class RankerEntry:
    """A ranker that is to be evaluated.

    Attributes:
        make: gives the ranker; it may take minutes to fit.
        fitted: whether it does; then one process ranks for all users with it.
        log_probabilities: whether its scores are natural-log probabilities, so that a log-loss is defined.
        id_of_item: (items,) int64, the same number for items that share a semantic ID, where it ranks by them.
    """

    make: Callable[[], Ranker]
    fitted: bool = False
    log_probabilities: bool = False
    id_of_item: np.ndarray | None = None


@dataclass(frozen=True)
class RankerFigures:
    """What a ranker reached, and the seconds that it took, those of fitting included."""

    figures: TaskFigures
    seconds: float


def evaluate_rankers(
    task: CandidateTask | CatalogTask,
    rankers: Mapping[str, RankerEntry],
    work: str | Path,
    *,
    identity: Mapping[str, Any],
    share: Share | None = None,
    seed: int = 0,
) -> list[RankerFigures]:
    """Figures of every ranker, in their order.

    Args:
        task: who is ranked for.
        rankers: by the name that stands in the table.
        work: folder for the parts, which a later call with the same `identity` takes up; the caller deletes it.
        identity: JSON values that say what is evaluated on what.
        share: which part of the work is this process's.
        seed: of the bootstrap.

    Raises:
        ValueError: a score is NaN; names user and item.
    """
    work, share = Path(work), share or Share()
    if share.is_first:
        _prepare(work, json.loads(json.dumps(dict(identity))))
    share.wait()
    for number, (name, entry) in enumerate(rankers.items()):
        parts = _parts(task)
        mine = parts if entry.fitted and number % share.count == share.index else []
        mine = mine if entry.fitted else list(share.mine(parts))
        _rank(task, name, entry, [(part, _path(work, number, part)) for part in mine])
    share.wait()
    found = [
        _figures(task, name, entry, [_path(work, number, part) for part in _parts(task)], seed)
        for number, (name, entry) in enumerate(rankers.items())
    ]
    share.wait()
    return found


def _prepare(work: Path, identity: dict[str, Any]) -> None:
    record = work / "identity.json"
    if work.exists() and (not record.exists() or read_json(record) != identity):
        logger.info("%s holds parts of another evaluation, which are dropped", work)
        shutil.rmtree(work)
    write_json(record, identity)


def _parts(task: CandidateTask | CatalogTask) -> list[range]:
    """Users that are ranked for together."""
    size = USERS_A_PART
    if isinstance(task, CatalogTask):
        size = max(1, min(size, _SCORES_A_PART // task.num_items))
    return [range(start, min(start + size, len(task))) for start in range(0, len(task), size)]


def _path(work: Path, number: int, part: range) -> Path:
    return work / f"{number:03d}-{part.start:09d}.safetensors"


def _rank(task: CandidateTask | CatalogTask, name: str, entry: RankerEntry, parts: list[tuple[range, Path]]) -> None:
    """Rank for the users of the parts that are missing."""
    missing = [(part, path) for part, path in parts if not path.exists()]
    if not missing:
        return
    start = time.perf_counter()
    ranker = entry.make()
    with progress(description=name, total=sum(len(part) for part, _ in missing), unit=" users") as bar:
        for part, path in missing:
            arrays = _ranked(task, ranker, entry, part)
            now = time.perf_counter()
            arrays["seconds"], start = np.array([now - start]), now
            with atomic_file(path) as temporary:
                save_file(arrays, temporary)
            bar.update(len(part))


def _ranked(
    task: CandidateTask | CatalogTask, ranker: Ranker, entry: RankerEntry, part: range
) -> dict[str, np.ndarray]:
    """Scores of candidates, or where the positives rank."""
    histories = task.histories[part.start : part.stop]
    if isinstance(task, CandidateTask):
        return {"scores": np.asarray(ranker.scores(histories, task.candidates_of(part.start, part.stop)))}
    ranks = CatalogRanks(task, id_of_item=entry.id_of_item)
    ranks.add(ranker.scores(histories, None), np.arange(part.start, part.stop))
    return ranks.state()


def _figures(
    task: CandidateTask | CatalogTask, name: str, entry: RankerEntry, paths: list[Path], seed: int
) -> RankerFigures:
    parts = [load_file(path) for path in paths]
    seconds = sum(float(part.pop("seconds")[0]) for part in parts)
    if isinstance(task, CandidateTask):
        scores = np.concatenate([part["scores"] for part in parts])
        figures = measure_candidates(
            name,
            scores,
            task,
            id_of_item=entry.id_of_item,
            log_probabilities=entry.log_probabilities,
            seed=seed,
        )
    else:
        ranks = CatalogRanks(task, id_of_item=entry.id_of_item)
        for part in parts:
            ranks.absorb(part)
        figures = ranks.figures(name, seed=seed)
    return RankerFigures(figures, seconds)
