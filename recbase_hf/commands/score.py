"""`recbase score`: scores for the users of a log, or for every row of a large table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.csv_options import CsvOptions
from recbase_hf.config import option, require_positive
from recbase_hf.data.prepare.own_csv import own_data, own_events
from recbase_hf.data.prepare.prepared import prepare

if TYPE_CHECKING:
    from recbase_hf.scoring.method import ScoreMethod
    from recbase_hf.scoring.scorer import RecBaseScorer
    from recbase_hf.scoring.users import UserScores

__all__ = ["COMMAND", "Score", "load_scorer", "score_log", "score_table_of"]

METHODS = ("adapted", "calibrated", "catalog", "joint")


@dataclass(frozen=True, kw_only=True)
class Score(CsvOptions):
    """Score for the users of a log: --items items.csv --log log.csv --out scored.parquet is all that is needed.

    Each user gets the best --k items that the log does not have for them or, with --candidates, a score for every row
    of that file. Columns that nobody names are recognized by usual names, such as customer_id, sku, date.

    Or score the candidates of every row of a table of any size, on any number of processes: --catalog folder --table
    pairs.parquet --output folder. The same command goes on where it was interrupted.
    """

    model: str = option(help="bundle: one that comes with the package, a folder or a Hub id")
    log: str | None = option(None, help="delimited file, an event a row: who is scored for")
    candidates: str | None = option(
        None,
        help="delimited file of users and items, in columns named as in the log, to be scored in place of the best",
    )
    k: int = option(10, help="items a user of the log")
    catalog: str | None = option(None, help="of --table: catalog folder, made by recbase build-catalog")
    table: str | None = option(
        None,
        help="Parquet or JSON-lines file, or a folder of them, with the columns history and candidates: lists of "
        "item ids, the history oldest first",
    )
    output: str | None = option(
        None,
        help="of --log: file, .parquet, .csv or .jsonl, default runs/scored.parquet; of --table: folder of Parquet "
        "shards, default runs/scores",
    )
    adapter: str | None = option(None, help="adapter over it, made by recbase finetune: a folder or a Hub id")
    method: str | None = option(
        None,
        help="score; of --log by default adapted, which weighs model, texts and popularity by the log itself, or "
        "calibrated where it has fewer than 50 histories; of --table by default catalog, or joint",
        choices=METHODS,
    )
    alpha: float = option(0.0, help="of --table: share of the score under an empty history that is taken off, 0 to 1")
    memory_budget: int = option(1 << 30, help="bytes for what goes through the model at a time, beside the weights")
    rows_per_part: int = option(4096, help="of --table: rows in memory, and rows that an interruption may cost")
    unknown_items: str = option(
        "drop",
        help="what names items that the file of the items lacks: leave out and count, or refuse",
        choices=("drop", "error"),
    )

    def __post_init__(self) -> None:
        require_positive(self, "k")
        if (self.log is None) == (self.table is None):
            raise ValueError("give --items and --log, two CSV files, or --catalog and --table")
        if self.table is not None:
            if self.catalog is None:
                raise ValueError("--table needs --catalog; recbase build-catalog makes one")
            if self.items is not None or self.candidates is not None:
                raise ValueError("--items and --candidates belong to --log; a table holds its own candidates")
            if self.method in ("adapted", "calibrated"):
                raise ValueError(f"method {self.method} is for --log; a table is scored by catalog or joint")
        elif self.catalog is not None:
            raise ValueError("--catalog belongs to --table; give the --items of the log")


def load_scorer(model: str, adapter: str | None, **options: Any) -> RecBaseScorer:
    """The scorer of a bundle, with an adapter over it if one is named."""
    from recbase_hf.scoring.scorer import RecBaseScorer

    scorer = RecBaseScorer.from_pretrained(model, **options)
    if adapter is not None:
        scorer.load_adapter(adapter, adapter)
        scorer.set_adapter(adapter)
    return scorer


def score_table_of(options: Score, accelerator: Any) -> list[Path]:
    """Score the table and write; returns the shards, in the table's order."""
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.table import score_table

    device, budget = str(accelerator.device), options.memory_budget
    scorer = load_scorer(options.model, options.adapter, device=device, memory_budget=budget)
    shards = score_table(
        scorer,
        cast(str, options.table),
        options.output or "runs/scores",
        catalog=ItemCatalog.from_pretrained(cast(str, options.catalog), tokenizer=scorer.tokenizer),
        method=cast("ScoreMethod", options.method or "catalog"),
        alpha=options.alpha,
        rows_per_part=options.rows_per_part,
    )
    accelerator.end_training()
    return shards


def score_log(options: Score) -> tuple[Path, UserScores]:
    """Score for the users of the log and write the file.

    Raises:
        DataError: the files do not fit each other, or cannot be read; says where.
        FileExistsError: the file is there.
        UnknownItemError: a candidate is not in the file of the items.
        ValueError: the file is of no known kind.
    """
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.data.histories import build_histories
    from recbase_hf.data.tables import read_interactions, read_items
    from recbase_hf.scoring.users import require_writable_table, score_users

    output = Path(options.output or "runs/scored.parquet")
    require_writable_table(output)
    columns = options.columns_of(cast(str, options.log))
    scorer = load_scorer(options.model, options.adapter, memory_budget=options.memory_budget)
    with TemporaryDirectory() as work:
        folder = Path(work) / "tables"
        published = own_data(columns, columns.log.stem)
        prepare(published, columns.log.parent, folder, unknown_items=options.unknown_items)  # type: ignore[arg-type]
        items = read_items(folder)
        histories = build_histories(read_interactions(folder), items["item_id"][:])
        catalog = ItemCatalog.from_items(items, tokenizer=scorer.tokenizer)
        pairs = None
        if options.candidates is not None:
            named = replace(columns, log=Path(options.candidates), timestamp=None, order=None, rating=None, label=None)
            pairs = pa.concat_tables(own_events(named))
        scored = score_users(scorer, catalog, histories, output, k=options.k, pairs=pairs, method=options.method)
    return output, scored


def run(options: Score) -> Answer:
    """Score, and say where the scores are."""
    if options.log is not None:
        output, scored = score_log(options)
        text = f"{output}: {scored.rows:,} rows for {scored.users:,} users, scored by {scored.method}"
        return Answer(text, {"file": str(output), **asdict(scored)})
    from recbase_hf.training.launch import make_accelerator

    shards = score_table_of(options, make_accelerator(mixed_precision="no"))
    rows = sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards)
    text = f"{shards[0].parent}: {rows:,} rows in {len(shards)} Parquet file(s)"
    return Answer(text, {"rows": rows, "files": [str(shard) for shard in shards]})


COMMAND = Command("score", Score, run)
