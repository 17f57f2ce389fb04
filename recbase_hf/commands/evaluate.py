"""`recbase evaluate`: figures of a model beside baselines on the same split, as a table and a receipt."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from recbase_hf.bundle import hash_of_weights
from recbase_hf.commands.options import log_to_terminal, resolve_folder, vectors_for
from recbase_hf.config import option, parse_arguments
from recbase_hf.data.domain import Domain, ItemVectors, load_domain
from recbase_hf.data.tables import read_interactions
from recbase_hf.evaluation.protocols import (
    leave_last_out,
    leave_one_out,
    recbench,
    recbench_rules,
    recgpt,
    rules_by_columns,
)
from recbase_hf.evaluation.rankers.ladder import ladder
from recbase_hf.evaluation.rankers.linear import MAX_EASE_ITEMS, Ease
from recbase_hf.evaluation.rankers.recbase import RecBaseRanker
from recbase_hf.evaluation.rankers.training_free import Popularity
from recbase_hf.evaluation.receipt_table import render_table
from recbase_hf.evaluation.receipts import write_receipt
from recbase_hf.evaluation.run import RankerEntry, evaluate_rankers
from recbase_hf.evaluation.task import CandidateTask, CatalogTask
from recbase_hf.files import read_json
from recbase_hf.progress import is_main_process
from recbase_hf.share import Share
from recbase_hf.text.encoder import DEFAULT_TEXT_ENCODER, load_text_encoder

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["Evaluate", "Evaluation", "evaluate", "load_evaluation", "main"]

logger = logging.getLogger(__name__)

PROTOCOLS = ("leave-last-out", "recbench", "leave-one-out", "recgpt", "recgpt-cold-start")


@dataclass(frozen=True)
class Evaluate:
    """Rank what users chose among what they did not, by RecBase and by baselines; the same command goes on."""

    model: str | None = option(None, help="bundle: a folder or a Hub id; without it only the baselines are evaluated")
    data: str = option("python-api/stdlib", help="folder with items.* and interactions.*, or an embedded data set")
    output: str = option("runs/evaluate/results.json", help="receipt")
    protocol: str = option(
        "leave-last-out",
        help="leave-last-out: the last item among random ones; recbench: as RecBench does; the others rank the whole "
        "catalog",
        choices=PROTOCOLS,
    )
    recbench_set: str | None = option(
        None, help="RecBench's name of the data set, whose rules are taken; default by the columns of the tables"
    )
    ladder: bool = option(False, help="also baselines that are fitted on the data set, which takes minutes")
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )
    unordered_events: str = option(
        "error",
        help="what to do with events that lack their place in an otherwise ordered history",
        choices=("error", "drop"),
    )
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    num_negatives: int = option(4, help="of leave-last-out: random items beside each positive")
    max_history: int = option(20, help="items of the history that are used, the newest; recbench has rules of its own")
    exclude_history: bool = option(False, help="of full rankings: whether items of the history do not compete")
    max_users: int = option(5000, help="users that are evaluated, drawn at random; recbench has rules of its own")
    seed: int = option(0, help="of users and negatives")


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated on what.

    Attributes:
        domain: the data set.
        task: who is ranked for.
        scorer: of the model, if there is one.
        catalog: of the data set, under the model's tokenizer.
    """

    domain: Domain
    task: CandidateTask | CatalogTask
    scorer: RecBaseScorer | None
    catalog: ItemCatalog | None


def load_evaluation(options: Evaluate) -> Evaluation:
    """Read model and data set, and draw who is ranked for.

    Raises:
        DataError: the data set cannot be used, or lacks what the protocol needs; says what.
        ValueError: nobody can be evaluated, or an option does not fit the protocol.
    """
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

    if options.recbench_set is not None and options.protocol != "recbench":
        raise ValueError(f"recbench_set {options.recbench_set} needs --protocol recbench, not {options.protocol}")
    scorer = None if options.model is None else RecBaseScorer.from_pretrained(options.model)
    if scorer is not None:
        source = vectors_for(scorer.tokenizer, options.vectors, trust_remote_code=options.trust_remote_code)
    else:
        revision = None if options.vectors else load_text_encoder(DEFAULT_TEXT_ENCODER).revision
        source = ItemVectors(DEFAULT_TEXT_ENCODER, revision, precomputed=options.vectors)
    folder = resolve_folder(options.data)
    unordered_events = cast(Literal["error", "drop"], options.unordered_events)
    domain = load_domain(folder, source, unordered_events=unordered_events, seed=options.seed)
    catalog = None
    if scorer is not None:
        catalog = ItemCatalog.from_items(domain.items, tokenizer=scorer.tokenizer, vectors=domain.vectors)
    return Evaluation(domain, _task(options, folder, domain), scorer, catalog)


def evaluate(options: Evaluate, share: Share | None = None, *, evaluation: Evaluation | None = None) -> dict[str, Any]:
    """Evaluate and write the receipt; returns its content.

    Args:
        share: which part of the work is this process's; all processes return the same.
        evaluation: what `load_evaluation` gave, where it is at hand.

    Raises:
        ValueError: the model's calibration was fitted on this data set; or as `load_evaluation` has it.
    """
    start = time.perf_counter()
    share = share or Share()
    if evaluation is None:
        with share.first_process_first():  # it fills the caches
            evaluation = load_evaluation(options)
    domain, task = evaluation.domain, evaluation.task
    dataset = {
        "name": domain.name,
        "hash": domain.hash,
        "items_hash": domain.items_hash,
        "users": len(domain.histories),
        "items": len(domain.items),
        "events": len(domain.histories.items),
    }
    model = _model_facts(options, evaluation)
    rankers = _rankers(options, evaluation)
    identity = {"dataset": dataset, "protocol": task.settings, "model": model, "rankers": list(rankers)}
    output = Path(options.output)
    work = output.with_name(f".{output.name}.parts")
    found = evaluate_rankers(task, rankers, work, identity=identity, share=share, seed=options.seed)
    if share.is_first:
        write_receipt(
            output,
            rankers=found,
            dataset=dataset,
            protocol=task.settings,
            model=model,
            options=asdict(options),
            command=shlex.join(sys.argv),
            seconds=time.perf_counter() - start,
        )
    share.wait()
    return read_json(output)


def _task(options: Evaluate, folder: Path, domain: Domain) -> CandidateTask | CatalogTask:
    histories, num_items = domain.histories, len(domain.items)
    common: dict[str, Any] = {"max_history": options.max_history, "max_users": options.max_users, "seed": options.seed}
    full = {**common, "exclude_history": options.exclude_history}
    protocols: dict[str, Callable[[], CandidateTask | CatalogTask]] = {
        "leave-last-out": lambda: leave_last_out(histories, num_items, num_negatives=options.num_negatives, **common),
        "leave-one-out": lambda: leave_one_out(histories, num_items, **full),
        "recgpt": lambda: recgpt(histories, num_items, **full),
        "recgpt-cold-start": lambda: recgpt(histories, num_items, cold_start=True, **full),
        "recbench": lambda: _recbench(options, folder, domain),
    }
    return protocols[options.protocol]()


def _recbench(options: Evaluate, folder: Path, domain: Domain) -> CandidateTask:
    impressions = folder / "impressions.parquet"
    there = impressions.exists()
    interactions = read_interactions(folder)
    if options.recbench_set is None:
        rules = rules_by_columns(interactions, has_impressions=there)
    else:
        rules = recbench_rules(options.recbench_set)
    item_ids = domain.items["item_id"][:]
    return recbench(interactions, item_ids, rules, impressions=impressions if there else None, seed=options.seed)


def _rankers(options: Evaluate, evaluation: Evaluation) -> dict[str, RankerEntry]:
    task, scorer, catalog = evaluation.task, evaluation.scorer, evaluation.catalog
    vectors = evaluation.domain.vectors
    entries = {
        name: RankerEntry(make, fitted=_is_fitted(name))
        for name, make in ladder(task.training, vectors, seed=options.seed).items()
        if not _is_fitted(name) or (options.ladder and not _is_too_large(name, task))
    }
    if scorer is None or catalog is None:
        return entries
    scores: list[Literal["joint", "catalog", "calibrated"]] = ["joint", "catalog"]
    if scorer.calibration is not None:
        scores.append("calibrated")
    for score in scores:
        ranker = RecBaseRanker(scorer, catalog, score)
        entries[ranker.name] = RankerEntry(
            lambda ranker=ranker: ranker,  # type: ignore[misc]
            log_probabilities=score != "calibrated",
            id_of_item=catalog.trie.leaves if score != "calibrated" else None,
        )
    return entries


def _is_too_large(name: str, task: CandidateTask | CatalogTask) -> bool:
    """Whether the data set has more items than the ranker can be fitted to, which the log says."""
    too_large = name == Ease.name and len(np.unique(task.training.items)) > MAX_EASE_ITEMS
    if too_large:
        logger.warning("%s is left out: more than %s items have training events", name, f"{MAX_EASE_ITEMS:,}")
    return too_large


def _is_fitted(name: str) -> bool:
    """Whether a ranker learns from the data set, which takes its time; counting does not."""
    return name.endswith("(target set)") and name != Popularity.name


def _model_facts(options: Evaluate, evaluation: Evaluation) -> dict[str, Any] | None:
    """What the receipt says of the model."""
    from recbase_hf.scoring.calibration import require_not_fitted_on

    scorer, domain = evaluation.scorer, evaluation.domain
    if scorer is None:
        return None
    record = Path(cast(str, options.model)) / "training.json"
    training = read_json(record)["settings"] if record.exists() else {}
    data, tokenizer_data = training.get("data", {}), training.get("tokenizer_data", {})
    calibration = scorer.calibration
    if calibration is not None:
        require_not_fitted_on(calibration, domain.hash, domain.items_hash, domain.name)
    return {
        "name": Path(cast(str, options.model)).name,
        "fingerprint": scorer.tokenizer.fingerprint,
        "weights": hash_of_weights(cast(str, options.model)),
        "training_data": data,
        "tokenizer_data": tokenizer_data,
        "was_trained_on_this_data": domain.hash in data.values() or domain.items_hash in tokenizer_data.values(),
        "calibration": None if calibration is None else calibration.facts(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate and print the table."""
    options = parse_arguments(Evaluate, arguments, program="recbase evaluate", description=Evaluate.__doc__ or "")
    log_to_terminal()
    from recbase_hf.training.launch import make_accelerator

    receipt = evaluate(options, Share.of(make_accelerator(mixed_precision="no")))
    if is_main_process():
        print(render_table(receipt))
        print(f"\nreceipt: {options.output}")
