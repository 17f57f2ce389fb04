"""`recbase demo`: the trained model that comes with the package, on domains that it has never seen."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option
from recbase_hf.errors import DataError

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.evaluation.task import CandidateTask, CatalogTask
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["COMMAND", "Demo", "demo"]

logger = logging.getLogger(__name__)

USERS = 2000
"""Of each domain, at most: enough for narrow intervals within three minutes on two cores."""


@dataclass(frozen=True)
class Demo:
    """Zero-shot: rank what users chose among what they did not, on domains new to the model, and recommend."""

    model: str = option("recbase-mini", help="bundle: one that comes with the package, a folder or a Hub id")
    data: tuple[str, ...] = option(
        ("python-api/stdlib", "python-api/packages"), help="folders with items.* and interactions.*"
    )
    output: str = option("runs/demo", help="folder for everything that is made")
    k: int = option(10, help="recommendations to show")


def demo(options: Demo) -> Answer:
    """Evaluate on each domain, then recommend to a user of the first."""
    output = Path(options.output)
    os.environ["RECBASE_CACHE"] = str(output.resolve())
    from recbase_hf.commands.evaluate import Evaluate, evaluate, load_evaluation
    from recbase_hf.commands.options import resolve_folder
    from recbase_hf.evaluation.receipt_table import render_table

    shown, tables, receipts = None, [], {}
    for data in options.data:
        logger.info("%s: items, histories and text vectors", data)
        folder = resolve_folder(data)
        evaluated = Evaluate(
            model=options.model,
            data=str(folder),
            output=str(output / "results" / f"{folder.resolve().name}.json"),
            vectors="minilm" if (folder / "minilm_f16.npy").exists() else None,
            unordered_events="drop",
            max_users=USERS,
        )
        evaluation = load_evaluation(evaluated)
        receipts[folder.resolve().name] = receipt = evaluate(evaluated, evaluation=evaluation)
        tables.append(f"\n{render_table(receipt)}\n")
        shown = shown or evaluation
    assert shown is not None
    assert shown.scorer is not None
    assert shown.catalog is not None
    shown.catalog.save_pretrained(output / "catalog" / shown.domain.name)
    lines = [*tables, *_recommended(shown.scorer, shown.catalog, shown.task, options.k), f"\neverything is in {output}"]
    return Answer("\n".join(lines), {"output": str(output), "receipts": receipts})


def _recommended(scorer: RecBaseScorer, catalog: ItemCatalog, task: CandidateTask | CatalogTask, k: int) -> list[str]:
    """The recommendations of one user, by a scorer that has seen everybody's histories and nothing else."""
    histories = task.histories
    lengths = [len(history) for history in histories]
    user = next((user for user, length in enumerate(lengths) if length >= 5), int(np.argmax(lengths)))
    k = min(k, len(catalog) - len(set(histories[user].tolist())))
    ids = [[catalog.item_ids[row] for row in history] for history in histories]
    try:
        found = scorer.adapt(ids, catalog=catalog).recommend(ids[user], k)
    except DataError as error:  # too few histories
        logger.warning("%s; these are by the catalog score", error)
        found = scorer.recommend(ids[user], k, catalog=catalog)
    return [
        f"history of {task.users[user]} (oldest first):",
        *(f"  {catalog.titles[row]}" for row in histories[user]),
        f"top {k} of {len(catalog):,} items:",
        *(f"  {item.score:8.3f}  {item.title}" for item in found),
    ]


COMMAND = Command("demo", Demo, demo)
