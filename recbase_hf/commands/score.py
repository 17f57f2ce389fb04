"""`recbase score`: a table of histories and candidates to Parquet shards of scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recbase_hf.catalog import ItemCatalog
from recbase_hf.commands.options import log_to_terminal
from recbase_hf.config import option, parse_arguments
from recbase_hf.scoring.scorer import RecBaseScorer
from recbase_hf.scoring.table import score_table

__all__ = ["Score", "main", "score"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """Score the candidates of every row of a table. The same command goes on where it was interrupted."""

    model: str = option(help="bundle: a folder or a Hub id")
    catalog: str = option(help="catalog folder, made by recbase build-catalog")
    table: str = option(
        help="Parquet or JSON-lines file, or a folder of them, with the columns history and candidates: lists of "
        "item ids, the history oldest first"
    )
    output: str = option("runs/scores", help="folder of the Parquet shards")
    adapter: str | None = option(None, help="adapter over it, made by recbase finetune: a folder or a Hub id")
    method: str = option("catalog", help="score", choices=("catalog", "joint"))
    alpha: float = option(0.0, help="share of the score under an empty history that is taken off, 0 to 1")
    memory_budget: int = option(1 << 30, help="bytes for what goes through the model at a time, beside the weights")
    rows_per_part: int = option(4096, help="rows in memory, and rows that an interruption may cost")


def score(options: Score, accelerator: Any) -> list[Path]:
    """Score and write; returns the shards, in the table's order."""
    device, budget = str(accelerator.device), options.memory_budget
    scorer = RecBaseScorer.from_pretrained(options.model, device=device, memory_budget=budget)
    if options.adapter is not None:
        scorer.load_adapter(options.adapter, options.adapter)
        scorer.set_adapter(options.adapter)
    shards = score_table(
        scorer,
        options.table,
        options.output,
        catalog=ItemCatalog.from_pretrained(options.catalog, tokenizer=scorer.tokenizer),
        method=options.method,  # type: ignore[arg-type]
        alpha=options.alpha,
        rows_per_part=options.rows_per_part,
    )
    rows = sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards)
    logger.info("%s: %s rows in %d Parquet file(s)", options.output, f"{rows:,}", len(shards))
    accelerator.end_training()
    return shards


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and score."""
    options = parse_arguments(Score, arguments, program="recbase score", description=Score.__doc__ or "")
    log_to_terminal()
    from recbase_hf.training.launch import make_accelerator

    score(options, make_accelerator(mixed_precision="no"))
