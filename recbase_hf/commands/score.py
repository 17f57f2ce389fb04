"""`recbase score`: scores for the users of a log, or for every row of a large table."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow.parquet as pq

from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.csv_options import CsvOptions, told_columns, told_losses
from recbase_hf.config import option, require_positive
from recbase_hf.data.prepare.own_csv import CsvColumns, own_data
from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.data.prepare.recognize import recognized_pairs
from recbase_hf.errors import DataError, LaunchError

if TYPE_CHECKING:
    from recbase_hf.data.histories import Histories
    from recbase_hf.scoring.method import ScoreMethod
    from recbase_hf.scoring.scorer import RecBaseScorer
    from recbase_hf.scoring.users import UserScores

__all__ = ["COMMAND", "Score", "load_scorer", "score_log", "score_table_of"]

METHODS = ("adapted", "calibrated", "catalog", "joint")
ROWS_PER_PART = 4096
_WEIGHED = {"joint": "model", "prior": "model without history", "text": "texts", "popularity": "popularity"}


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
        None, help="of --log: delimited file of users and items, which get a score each, in place of the best"
    )
    k: int | None = option(None, help="of --log: items a user, 10 by default")
    unknown_items: str | None = option(
        None,
        help="of --log: what names items that the file of the items lacks is left out and counted, or refused; by "
        "default events are left out, candidates refused",
        choices=("drop", "error"),
    )
    unordered_events: str | None = option(
        None,
        help="of --log: what to do with events that lack their time when others have one; by default they are refused",
        choices=("error", "drop"),
    )
    catalog: str | None = option(None, help="of --table: catalog folder, made by recbase build-catalog")
    table: str | None = option(
        None,
        help="Parquet or JSON-lines file, or a folder of them, with the columns history and candidates: lists of "
        "item ids, the history oldest first",
    )
    output: str | None = option(
        None,
        help="of --log: file, .parquet or .csv, default runs/scored.parquet; of --table: folder of Parquet shards, "
        "default runs/scores",
    )
    adapter: str | None = option(None, help="adapter over it, made by recbase finetune: a folder or a Hub id")
    method: str | None = option(
        None,
        help="score; of --log by default adapted, which weighs model, texts and popularity by the log itself, or "
        "calibrated where it has fewer than 50 histories; of --table by default catalog, or joint",
        choices=METHODS,
    )
    alpha: float | None = option(
        None, help="of --table: share of the score under an empty history that is taken off, 0 to 1; default 0"
    )
    memory_budget: int = option(1 << 30, help="bytes for what goes through the model at a time, beside the weights")
    rows_per_part: int | None = option(
        None, help="of --table: rows in memory, and rows that an interruption may cost; default 4096"
    )

    def __post_init__(self) -> None:
        if (self.log is None) == (self.table is None):
            raise ValueError("give --items and --log, two CSV files, or --catalog and --table")
        of_log = {field.name for field in fields(CsvOptions)} | _OF_LOG
        for name in sorted(_OF_TABLE if self.log is not None else of_log):
            if getattr(self, name) not in (None, (), _DEFAULTS.get(name)):
                form, other = ("--log", "--table") if self.log is not None else ("--table", "--log")
                raise ValueError(f"--{name.replace('_', '-')} belongs to {other}; with {form} leave it out")
        if self.k is not None:
            require_positive(self, "k")
            if self.candidates is not None:
                raise ValueError("--k is how many of the best; with --candidates leave it out")
        if self.table is not None and self.catalog is None:
            raise ValueError("--table needs --catalog; recbase build-catalog makes one")
        if self.table is not None and self.method in ("adapted", "calibrated"):
            raise ValueError(f"method {self.method} is for --log; a table is scored by catalog or joint")


_OF_LOG = {"candidates", "k", "unknown_items", "unordered_events"}
_OF_TABLE = {"catalog", "alpha", "rows_per_part"}
_DEFAULTS = {"encoding": CsvOptions.encoding}


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
        alpha=options.alpha or 0.0,
        rows_per_part=ROWS_PER_PART if options.rows_per_part is None else options.rows_per_part,
    )
    accelerator.end_training()
    return shards


def score_log(options: Score) -> Answer:
    """Score for the users of the log, write the file, and say what was read and scored.

    Raises:
        DataError: the files do not fit each other, or cannot be read; says where.
        FileExistsError: the file is there.
        LaunchError: several processes were started.
        ValueError: the file is of no known kind.
    """
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.data.tables import read_interactions, read_items
    from recbase_hf.scoring.users import Pairs, require_writable_table, score_users

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LaunchError("one process scores a log; start recbase score without accelerate launch, or give --table")
    output = Path(options.output or "runs/scored.parquet")
    require_writable_table(output)
    columns, is_drop = options.columns_of(cast(str, options.log)), options.unknown_items != "error"
    pairs = None
    if options.candidates is not None:
        pairs = Pairs(*recognized_pairs(options.candidates, columns, delimiter=options.cut), name=options.candidates)
    scorer = load_scorer(options.model, options.adapter, memory_budget=options.memory_budget)
    with TemporaryDirectory() as work:
        folder = Path(work) / "tables"
        published = own_data(columns, columns.log.stem)
        facts = prepare(published, columns.log.parent, folder, unknown_items="drop" if is_drop else "error")
        items = read_items(folder)
        histories, seen = _users_of(read_interactions(folder), items["item_id"][:], options)
        catalog = ItemCatalog.from_items(items, tokenizer=scorer.tokenizer)
    scored = score_users(
        scorer,
        catalog,
        histories,
        output,
        seen=seen,
        k=options.k or 10,
        pairs=pairs,
        drop_unknown=options.unknown_items == "drop",
        method=options.method,
    )
    return _answer(output, scored, facts, columns, repeats=options.items is not None)


def _users_of(interactions: Any, item_ids: Any, options: Score) -> tuple[Histories, Histories]:
    """What users of the log liked, and all that they had to do with.

    Raises:
        DataError: an event lacks its time when others have one; names the log.
    """
    from recbase_hf.data.histories import build_histories

    unordered = cast(Literal["error", "drop"], options.unordered_events or "error")
    try:
        liked = build_histories(interactions, item_ids, unordered_events=unordered)
        if "label" not in interactions.column_names:
            return liked, liked
        every = interactions.remove_columns(["label"])
        return liked, build_histories(every, item_ids, unordered_events=unordered)
    except DataError as error:
        raise DataError(f"{options.log}: {error}") from error


def _answer(output: Path, scored: UserScores, facts: dict[str, Any], columns: CsvColumns, *, repeats: bool) -> Answer:
    lines = [*told_columns(columns), *told_losses(facts, repeats=repeats)]
    if scored.unknown_pairs:
        lines.append(f"left out: {scored.unknown_pairs:,} candidates without a row in the file of the items")
    if scored.users_without_history:
        lines.append(f"{scored.users_without_history:,} users like nothing in the log: scored without a history")
    if scored.weights is not None:
        told = (f"{_WEIGHED[name]} {value:.2f}" for name, value in scored.weights.items())
        lines.append(f"what the log itself trusts in: {', '.join(told)}")
    lines.append(f"{output}: {scored.rows:,} rows for {scored.users:,} users, scored by {scored.method}")
    read = {"columns": columns.event_columns(), "texts": list(columns.texts), "rows_read": facts["rows"]}
    left_out = {name: facts[name] for name in ("interactions_of_unknown_items", "left_out_of_raw_files")}
    return Answer("\n".join(lines), {"file": str(output), **asdict(scored), **read, **left_out})


def run(options: Score) -> Answer:
    """Score, and say where the scores are."""
    if options.log is not None:
        return score_log(options)
    from recbase_hf.training.launch import make_accelerator

    shards = score_table_of(options, make_accelerator(mixed_precision="no"))
    rows = sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards)
    text = f"{shards[0].parent}: {rows:,} rows in {len(shards)} Parquet file(s)"
    return Answer(text, {"rows": rows, "files": [str(shard) for shard in shards]})


COMMAND = Command("score", Score, run)
