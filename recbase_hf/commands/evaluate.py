"""`recbase evaluate`: figures of a model beside baselines on the same split, as a table and a receipt."""

from __future__ import annotations

import hashlib
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from recbase_hf.bundle import bundle_file, hash_of_weights, name_of_bundle
from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import resolve_folder, vectors_for
from recbase_hf.config import option
from recbase_hf.data.domain import Domain, ItemVectors, load_domain
from recbase_hf.data.histories import with_known_order
from recbase_hf.data.table_sources import find_table
from recbase_hf.data.tables import read_interactions
from recbase_hf.errors import LeakageError
from recbase_hf.evaluation.protocols import (
    leave_last_out,
    leave_one_out,
    recbench,
    recbench_rules,
    recgpt,
    rules_by_columns,
)
from recbase_hf.evaluation.rankers.adapted import AdaptedModel, AdaptedText
from recbase_hf.evaluation.rankers.ladder import ladder
from recbase_hf.evaluation.rankers.linear import MAX_EASE_ITEMS, Ease
from recbase_hf.evaluation.rankers.neighbors import TextKnn
from recbase_hf.evaluation.rankers.recbase import MirroredRanker, RecBaseRanker, ScoreName
from recbase_hf.evaluation.rankers.training_free import Popularity
from recbase_hf.evaluation.receipt_table import render_table
from recbase_hf.evaluation.receipts import read_receipt, without_folder, write_receipt
from recbase_hf.evaluation.run import RankerEntry, evaluate_rankers
from recbase_hf.evaluation.task import CandidateTask, CatalogTask
from recbase_hf.files import hash_of_json, read_json, require_writable
from recbase_hf.scoring.adaptation import LEAST_USERS
from recbase_hf.scoring.calibration import Calibration, require_not_fitted_on
from recbase_hf.share import Share
from recbase_hf.text.encoder import DEFAULT_TEXT_ENCODER, load_text_encoder
from recbase_hf.version import __version__

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = [
    "COMMAND",
    "Evaluate",
    "Evaluation",
    "dataset_facts",
    "evaluate",
    "load_evaluation",
    "model_facts",
    "receipt_path",
]

logger = logging.getLogger(__name__)

_FULL_RANKING = {"max_history", "exclude_history", "max_users"}
_OPTIONS_OF = {
    "leave-last-out": {"num_negatives", "max_history", "max_users"},
    "recbench": {"recbench_set"},
    "leave-one-out": _FULL_RANKING,
    "recgpt": _FULL_RANKING,
    "recgpt-cold-start": _FULL_RANKING,
}
PROTOCOLS = tuple(_OPTIONS_OF)
MAX_USERS = 5000


@dataclass(frozen=True)
class Evaluate:
    """Rank what users chose among what they did not, by RecBase and by baselines; the same command goes on."""

    model: str | None = option(None, help="bundle: a folder or a Hub id; without it only the baselines are evaluated")
    data: str = option("python-api/stdlib", help="folder with items.* and interactions.*, or an embedded data set")
    output: str | None = option(None, help="receipt; default runs/evaluate/DATA-PROTOCOL-MODEL.json")
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
    num_negatives: int | None = option(None, help="of leave-last-out: random items beside each positive, 4 by default")
    max_history: int | None = option(
        None, help="items of the history that are used, the newest; default 20, for recgpt 256; not for recbench"
    )
    exclude_history: bool | None = option(
        None, help="of full rankings: whether items of the history do not compete, which they do not by default"
    )
    max_users: int | None = option(
        None, help="users that are evaluated, drawn at random, 5,000 by default; not for recbench"
    )
    seed: int = option(0, help="of users and negatives")

    def __post_init__(self) -> None:
        allowed: set[str] = _OPTIONS_OF.get(self.protocol, set())
        for name in ("recbench_set", "num_negatives", "max_history", "exclude_history", "max_users"):
            if getattr(self, name) is not None and name not in allowed:
                fitting = [protocol for protocol, names in _OPTIONS_OF.items() if name in names]
                raise ValueError(
                    f"{name} says nothing to --protocol {self.protocol}, only to {', '.join(fitting)}; leave it out"
                )


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


def receipt_path(options: Evaluate) -> Path:
    """Where the receipt goes."""
    if options.output is not None:
        return Path(options.output)
    parts = [
        Path(options.data).name,
        options.protocol,
        "baselines" if options.model is None else name_of_bundle(options.model),
    ]
    return Path("runs/evaluate") / f"{'-'.join(parts)}.json"


def _require_place_for_receipt(options: Evaluate) -> None:
    """Check that nothing else would be overwritten.

    Raises:
        OSError: nothing can be written there.
        ValueError: there is a folder, or the receipt of another evaluation.
    """
    path = receipt_path(options)
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder; name a file for the receipt")
    if path.exists():
        before = read_receipt(path)["options"]
        now = {name: without_folder(value) for name, value in asdict(options).items()}
        differing = sorted(name for name in now if name != "output" and before.get(name) != now[name])
        if differing:
            raise ValueError(
                f"{path} is the receipt of another evaluation ({', '.join(differing)}); choose another --output"
            )
    require_writable(path.parent)


def load_evaluation(options: Evaluate) -> Evaluation:
    """Read model and data set, and draw who is ranked for.

    Raises:
        DataError: the data set cannot be used, or lacks what the protocol needs; says what.
        ValueError: nobody can be evaluated, or an option does not fit the protocol.
    """
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

    _require_place_for_receipt(options)
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
        ValueError: as `load_evaluation` has it.
    """
    start = time.perf_counter()
    share = share or Share()
    if evaluation is None:
        with share.first_process_first():  # it fills the caches
            evaluation = load_evaluation(options)
    domain, task = evaluation.domain, evaluation.task
    dataset, model = dataset_facts(domain, task), model_facts(options, evaluation)
    rankers = _rankers(options, evaluation)
    identity = {"dataset": dataset, "model": model, "rankers": list(rankers), "version": __version__}
    output = receipt_path(options)
    work = output.with_name(f".{output.name}.{hash_of_json(identity)[:8]}.parts")
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
        shutil.rmtree(work)
    share.wait()
    return read_json(output)


def dataset_facts(domain: Domain, task: CandidateTask | CatalogTask) -> dict[str, Any]:
    """What the receipt says of the data: names, counts, and hashes of all that the figures depend on."""
    return {
        "name": domain.name,
        "hash": domain.hash,
        "items_hash": domain.items_hash,
        "vectors_hash": hashlib.sha256(np.ascontiguousarray(domain.vectors).data).hexdigest()[:16],
        "task_hash": task.content_hash(),
        "users": len(domain.histories),
        "items": len(domain.items),
        "events": len(domain.histories.items),
    }


def _task(options: Evaluate, folder: Path, domain: Domain) -> CandidateTask | CatalogTask:
    histories, num_items = domain.histories, len(domain.items)
    common: dict[str, Any] = {"max_users": options.max_users or MAX_USERS, "seed": options.seed}
    if options.max_history is not None:
        common["max_history"] = options.max_history
    # The histories hold each item once, so that an item of the history is never the answer.
    full = {**common, "exclude_history": options.exclude_history is not False}
    negatives = {} if options.num_negatives is None else {"num_negatives": options.num_negatives}
    protocols: dict[str, Callable[[], CandidateTask | CatalogTask]] = {
        "leave-last-out": lambda: leave_last_out(histories, num_items, **negatives, **common),
        "leave-one-out": lambda: leave_one_out(histories, num_items, **full),
        "recgpt": lambda: recgpt(histories, num_items, **full),
        "recgpt-cold-start": lambda: recgpt(histories, num_items, cold_start=True, **full),
        "recbench": lambda: _recbench(options, folder, domain),
    }
    return protocols[options.protocol]()


def _recbench(options: Evaluate, folder: Path, domain: Domain) -> CandidateTask:
    try:
        impressions = find_table(folder, "impressions")
    except FileNotFoundError:
        impressions = None
    interactions = read_interactions(folder)
    if options.unordered_events == "drop":
        interactions = with_known_order(interactions)
    if options.recbench_set is None:
        rules = rules_by_columns(interactions, has_impressions=impressions is not None)
    else:
        rules = recbench_rules(options.recbench_set)
    return recbench(interactions, domain.items["item_id"][:], rules, impressions=impressions, seed=options.seed)


def _rankers(options: Evaluate, evaluation: Evaluation) -> dict[str, RankerEntry]:
    task, scorer, catalog = evaluation.task, evaluation.scorer, evaluation.catalog
    vectors = evaluation.domain.vectors
    entries = {
        name: RankerEntry(make, fitted=_takes_long(name))
        for name, make in ladder(task.training, vectors, seed=options.seed).items()
        if _can_be_made(name, task) and (options.ladder or not _takes_long(name))
    }
    adapts = sum(len(history) >= 2 for history in task.histories) >= LEAST_USERS
    if adapts:
        entries[AdaptedText.name] = RankerEntry(lambda: AdaptedText(vectors, task.histories, seed=options.seed))
    else:
        logger.warning("what adapts to the histories is left out: fewer than %d hold two items", LEAST_USERS)
    if scorer is None or catalog is None:
        return entries
    scores: list[ScoreName] = ["joint", "catalog"]
    if scorer.calibration is not None and _fitted_on(scorer.calibration, evaluation.domain) is None:
        scores.append("calibrated")
    for score in scores:
        ranker = RecBaseRanker(scorer, catalog, score)
        entries[ranker.name] = RankerEntry(
            lambda ranker=ranker: ranker,  # type: ignore[misc]
            log_probabilities=score != "calibrated",
            # The catalog score of an item is its share of what its semantic ID has, so it does not rank IDs.
            id_of_item=catalog.trie.leaves if score == "joint" else None,
        )
    if _training_settings(options).get("mirrors"):
        entries[MirroredRanker.name] = RankerEntry(lambda: MirroredRanker(scorer, catalog))
    if adapts:
        entries[AdaptedModel.name] = RankerEntry(
            lambda: AdaptedModel(scorer, catalog, task.histories, seed=options.seed)
        )
    return entries


def _training_settings(options: Evaluate) -> dict[str, Any]:
    """How the model was trained, as its bundle says; empty where it does not."""
    record = bundle_file(cast(str, options.model), "training.json")
    return {} if record is None else read_json(record)["settings"]


def _can_be_made(name: str, task: CandidateTask | CatalogTask) -> bool:
    """Whether the data set has what a ranker learns from, and not too much of it; the log says where it has not."""
    if not name.endswith("(target set)"):
        return True
    items = len(np.unique(task.training.items))
    if items == 0:
        logger.warning("%s is left out: the protocol leaves no event to learn from", name)
    elif name == Ease.name and items > MAX_EASE_ITEMS:
        logger.warning("%s is left out: more than %s items have training events", name, f"{MAX_EASE_ITEMS:,}")
        return False
    return items > 0


def _takes_long(name: str) -> bool:
    """Whether a ranker learns from the data set or compares all its items, which takes its time; counting does not."""
    return name == TextKnn.name or (name.endswith("(target set)") and name != Popularity.name)


def _fitted_on(calibration: Calibration, domain: Domain) -> str | None:
    """What the log and the receipt say where the calibration was fitted on the very data set."""
    try:
        require_not_fitted_on(calibration, domain.hash, domain.items_hash, domain.name)
    except LeakageError as error:
        return str(error)
    return None


def model_facts(options: Evaluate, evaluation: Evaluation) -> dict[str, Any] | None:
    """What the receipt says of the model: its parts, what it learned from, and whether it knows this data set."""
    scorer, domain = evaluation.scorer, evaluation.domain
    if scorer is None:
        return None
    bundle, training = cast(str, options.model), _training_settings(options)
    learned = {name: training.get(name, {}) for name in ("data", "items", "tokenizer_data", "tokenizer_items")}
    known = {digest for part in learned.values() for digest in part.values()}
    if (known_to_model := bool({domain.hash, domain.items_hash} & known)) and training.get("hold_out_last"):
        _warn_of_other_order(options, training)
    facts = {
        "name": name_of_bundle(bundle),
        "fingerprint": scorer.tokenizer.fingerprint,
        "weights": hash_of_weights(bundle),
        "training_data": learned["data"],
        "tokenizer_data": learned["tokenizer_data"],
        "was_trained_on_this_data": known_to_model if training else None,
        "calibration": None if scorer.calibration is None else scorer.calibration.facts(),
    }
    reason = None if scorer.calibration is None else _fitted_on(scorer.calibration, domain)
    if reason is not None:
        logger.warning("the calibrated score is left out: %s", reason)
        facts["calibrated_left_out"] = reason
    return facts


def _warn_of_other_order(options: Evaluate, training: dict[str, Any]) -> None:
    """What a training held out is only what is asked for now where the histories are the same."""
    names = ("seed", "unordered_events", "vectors")
    differing = [name for name in names if training.get(name) != getattr(options, name)]
    if differing:
        logger.warning(
            "the model was trained on this data set with other %s: the events that it held out may not be those that "
            "are asked for now", ", ".join(differing),
        )  # fmt: skip


def run(options: Evaluate) -> Answer:
    """Evaluate and show the table; for programs the receipt."""
    from recbase_hf.training.launch import make_accelerator

    receipt = evaluate(options, Share.of(make_accelerator(mixed_precision="no")))
    return Answer(f"{render_table(receipt)}\n\n* best  receipt: {receipt_path(options)}", receipt)


COMMAND = Command("evaluate", Evaluate, run)
