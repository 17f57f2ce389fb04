"""How fast scored rows become figures with intervals, and whether they are those of scikit-learn.

    python benchmarks/figures.py                     # a million rows, one thread
    python benchmarks/figures.py --table             # the table of the receipt

Scores are random, a tenth of them tied, so that every figure has to be taken over the order of ties. One receipt.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from recbase_hf.config import option, parse_arguments
from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.catalog_ranks import CatalogRanks
from recbase_hf.evaluation.figures import measure_candidates
from recbase_hf.evaluation.protocols import leave_one_out
from recbase_hf.evaluation.receipts import circumstances
from recbase_hf.evaluation.task import CandidateTask
from recbase_hf.files import read_json, write_json

CHECKED_USERS = 2_000


@dataclass(frozen=True)
class FiguresBenchmark:
    """Scores to figures."""

    users: int = option(200_000, help="with five candidates each")
    ranked_users: int = option(2_048, help="for whom a whole catalog is ranked")
    items: int = option(20_000, help="of that catalog")
    receipt: str = option("benchmarks/receipts/figures.json", help="where the figures go")
    table: bool = option(False, help="only print the table of the receipt")


def main() -> None:
    """Measure and print."""
    options = parse_arguments(FiguresBenchmark, None, program="benchmarks/figures.py", description=__doc__ or "")
    receipt = Path(options.receipt)
    if not options.table:
        start = time.perf_counter()
        facts = {"candidates": candidates(options), "catalog": catalog(options)}
        write_json(receipt, {**facts, **circumstances(shlex.join(["python", *sys.argv]), time.perf_counter() - start)})
    print(render(read_json(receipt)))


def candidates(options: FiguresBenchmark) -> dict[str, Any]:
    """All figures of five candidates a user, and how far GAUC is from scikit-learn's for some of the users."""
    rng = np.random.default_rng(0)
    rows = options.users * 5
    labels = np.zeros((options.users, 5), np.int8)
    labels[np.arange(options.users), rng.integers(0, 5, options.users)] = 1
    task = CandidateTask(
        users=np.array([f"user-{user}" for user in range(options.users)], object),
        histories=[np.zeros(0, np.int64)] * options.users,
        candidates=rng.integers(0, 1000, rows),
        labels=labels.ravel(),
        offsets=np.arange(0, rows + 1, 5),
        training=Histories(np.zeros(0, object), np.zeros(1, np.int64), np.zeros(0, np.int64)),
        num_items=1000,
        settings={"ks": [1, 3, 5]},
    )
    scores = np.where(rng.random(rows) < 0.1, 0.5, rng.random(rows))
    start, cpu = time.perf_counter(), time.process_time()
    figures = measure_candidates("random", scores, task)
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    some = slice(0, 5 * min(CHECKED_USERS, options.users))
    pairs = zip(labels.reshape(-1, 5), scores.reshape(-1, 5), strict=True)
    expected = [roc_auc_score(own, of) for own, of in list(pairs)[: some.stop // 5]]
    part = CandidateTask(
        users=task.users[: len(expected)],
        histories=task.histories[: len(expected)],
        candidates=task.candidates[some],
        labels=task.labels[some],
        offsets=task.offsets[: len(expected) + 1],
        training=task.training,
        num_items=1000,
    )
    gauc = measure_candidates("random", scores[some], part).metrics["gauc"].value
    return {
        "rows": rows,
        "figures": len(figures.metrics),
        **{name: round(value, 3) for name, value in seconds.items()},
        "gauc_checked_users": len(expected),
        "gauc_difference_to_scikit_learn": abs(gauc - float(np.mean(expected))),
    }


def catalog(options: FiguresBenchmark) -> dict[str, Any]:
    """All figures of full rankings, coverage included."""
    rng = np.random.default_rng(0)
    users, items = options.ranked_users, options.items
    lists = np.stack([rng.choice(items, 4, replace=False) for _ in range(users)])
    histories = Histories(np.arange(users).astype(str).astype(object), np.arange(0, 4 * users + 1, 4), lists.ravel())
    task = leave_one_out(histories, items)
    scores = rng.random((256, items), dtype=np.float32)
    ranks = CatalogRanks(task)
    start, cpu = time.perf_counter(), time.process_time()
    for first in range(0, users, 256):
        rows = np.arange(first, min(first + 256, users))
        ranks.add(scores[: len(rows)], rows)
    figures = ranks.figures("random")
    return {
        "users": users,
        "items": items,
        "figures": len(figures.metrics),
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }


def render(receipt: dict[str, Any]) -> str:
    """Markdown."""
    few, full = receipt["candidates"], receipt["catalog"]
    return "\n".join(
        [
            "| work | figures with intervals | seconds | processor seconds |",
            "|---|---:|---:|---:|",
            f"| {few['rows']:,} scored rows, five a user | {few['figures']} | {few['seconds']:.1f} "
            f"| {few['cpu_seconds']:.1f} |",
            f"| {full['users']:,} users x {full['items']:,} items | {full['figures']} | {full['seconds']:.1f} "
            f"| {full['cpu_seconds']:.1f} |",
            "",
            f"GAUC of {few['gauc_checked_users']:,} users differs from scikit-learn's by "
            f"{few['gauc_difference_to_scikit_learn']:.1e}.",
        ]
    )


if __name__ == "__main__":
    main()
