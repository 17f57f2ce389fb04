"""`recbase demo`: the trained model that comes with the package, on domains that it has never seen."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbase_hf.commands.options import log_to_terminal
from recbase_hf.config import option, parse_arguments
from recbase_hf.errors import DataError

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.evaluation.task import CandidateTask, CatalogTask
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["Demo", "demo", "main"]

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


def demo(options: Demo) -> None:
    """Evaluate on each domain, then recommend to a user of the first."""
    output = Path(options.output)
    os.environ["RECBASE_CACHE"] = str(output.resolve())
    from recbase_hf.commands.evaluate import Evaluate, evaluate, load_evaluation
    from recbase_hf.commands.options import resolve_folder
    from recbase_hf.evaluation.receipt_table import render_table

    shown = None
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
        print("\n" + render_table(evaluate(evaluated, evaluation=evaluation)) + "\n")
        shown = shown or evaluation
    assert shown is not None
    assert shown.scorer is not None
    assert shown.catalog is not None
    _recommend(shown.scorer, shown.catalog, shown.task, options.k)
    shown.catalog.save_pretrained(output / "catalog" / shown.domain.name)
    print(f"\neverything is in {output}")


def _recommend(scorer: RecBaseScorer, catalog: ItemCatalog, task: CandidateTask | CatalogTask, k: int) -> None:
    """Show the recommendations of one user, by a scorer that has seen everybody's histories and nothing else."""
    histories = task.histories
    lengths = [len(history) for history in histories]
    user = next((user for user, length in enumerate(lengths) if length >= 5), int(np.argmax(lengths)))
    print(f"history of {task.users[user]} (oldest first):")
    for row in histories[user]:
        print(f"  {catalog.titles[row]}")
    k = min(k, len(catalog) - len(set(histories[user].tolist())))
    print(f"top {k} of {len(catalog):,} items:")
    ids = [[catalog.item_ids[row] for row in history] for history in histories]
    try:
        found = scorer.adapt(ids, catalog=catalog).recommend(ids[user], k)
    except DataError as error:  # too few histories
        logger.warning("%s; these are by the catalog score", error)
        found = scorer.recommend(ids[user], k, catalog=catalog)
    for item in found:
        print(f"  {item.score:8.3f}  {item.title}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the demo."""
    options = parse_arguments(Demo, arguments, program="recbase demo", description=Demo.__doc__ or "")
    log_to_terminal()
    demo(options)
