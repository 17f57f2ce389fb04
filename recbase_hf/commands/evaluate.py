"""`recbase evaluate`: zero-shot figures of a model on a data set, beside baselines, as a table and a results file."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from recbase_hf.catalog import ItemCatalog
from recbase_hf.commands.options import log_to_terminal, resolve_folder, vectors_for
from recbase_hf.config import option, parse_arguments
from recbase_hf.data.domain import Domain, load_domain
from recbase_hf.evaluation.protocol import CandidateSet, leave_last_out
from recbase_hf.evaluation.results import render_table, write_results
from recbase_hf.evaluation.zero_shot import evaluate_zero_shot
from recbase_hf.files import read_json
from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["Evaluate", "evaluate", "main"]


@dataclass(frozen=True)
class Evaluate:
    """Rank each user's last item among random ones, by RecBase and by baselines."""

    model: str = option(help="bundle: a folder or a Hub id")
    data: str = option("python-api/stdlib", help="folder with items.* and interactions.*, or an embedded data set")
    output: str = option("runs/evaluate/results.json", help="results file")
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )
    unordered_events: str = option(
        "error",
        help="what to do with events that lack their place in an otherwise ordered history",
        choices=("error", "drop"),
    )
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    num_negatives: int = option(4, help="random items beside each positive")
    max_history: int = option(20, help="items of the history that are used, the newest")
    max_users: int = option(5000, help="users that are evaluated, drawn at random")
    seed: int = option(0, help="of users and negatives")


def evaluate(options: Evaluate) -> tuple[dict[str, Any], RecBaseScorer, ItemCatalog, CandidateSet]:
    """Evaluate and write the results file; returns its content and what it was made with."""
    start = time.perf_counter()
    scorer = RecBaseScorer.from_pretrained(options.model)
    tokenizer = scorer.tokenizer
    source = vectors_for(tokenizer, options.vectors, trust_remote_code=options.trust_remote_code)
    unordered_events = cast(Literal["error", "drop"], options.unordered_events)
    domain = load_domain(resolve_folder(options.data), source, unordered_events=unordered_events, seed=options.seed)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=tokenizer, vectors=domain.vectors)
    candidate_set = leave_last_out(
        domain.histories,
        len(catalog),
        num_negatives=options.num_negatives,
        max_history=options.max_history,
        max_users=options.max_users,
        seed=options.seed,
    )
    training = _training_settings(options.model)
    figures = evaluate_zero_shot(scorer, catalog, domain.histories, candidate_set)
    results = write_results(
        options.output,
        figures=figures,
        dataset=_dataset_facts(domain),
        protocol=candidate_set.settings,
        model={
            "fingerprint": tokenizer.fingerprint,
            "training": training,
            "was_trained_on_this_data": domain.hash in training.get("data", {}).values()
            or domain.items_hash in training.get("tokenizer_data", {}).values(),
        },
        command=shlex.join(sys.argv),
        seconds=time.perf_counter() - start,
    )
    return results, scorer, catalog, candidate_set


def _dataset_facts(domain: Domain) -> dict[str, Any]:
    return {
        "name": domain.name,
        "hash": domain.hash,
        "users": len(domain.histories),
        "items": len(domain.items),
        "events": len(domain.histories.items),
    }


def _training_settings(model: str) -> dict[str, Any]:
    """How the model was trained, with the hashes of its data sets, where the bundle says so."""
    record = Path(model) / "training.json"
    return read_json(record)["settings"] if record.exists() else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate and print the table."""
    options = parse_arguments(Evaluate, arguments, program="recbase evaluate", description=Evaluate.__doc__ or "")
    log_to_terminal()
    results, *_ = evaluate(options)
    print(render_table(results))
    print(f"\nresults: {options.output}")
