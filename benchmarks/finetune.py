"""Zero-shot, LoRA, full fine-tuning and SASRec on the same users of a data set, by how many there are to learn from.

    python benchmarks/finetune.py --model BUNDLE --data data/a data/b data/c --vectors minilm
    python benchmarks/finetune.py --table            # the tables of README.md, from the receipts alone

Each folder is in the two-table form. The last item of every user is held out; all rankers predict those of the same
test users, among four random items (GAUC) and in the whole catalog (Recall@10, NDCG@10, items of the history left out).
What is learned from are the earlier items of 100, 1,000 or all users: the same for all rankers, of which each holds out
a tenth of the users for its own early stop. Fine-tuning does not learn the newest of these items, as by default, since
rows *adapted* weigh scores by how well they find it. One receipt a data set and number of users; a finished one is not
run again.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbase_hf.adapters import WEIGHTS
from recbase_hf.bundle import hash_of_weights, load_bundle
from recbase_hf.catalog import ItemCatalog
from recbase_hf.commands.finetune import FineTune, finetune
from recbase_hf.commands.options import log_to_terminal, vectors_for
from recbase_hf.config import option, parse_arguments
from recbase_hf.data.domain import Domain, load_domain
from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.protocols import leave_last_out, leave_one_out
from recbase_hf.evaluation.rankers.adapted import AdaptedModel, AdaptedText
from recbase_hf.evaluation.rankers.ranker import Ranker
from recbase_hf.evaluation.rankers.recbase import RecBaseRanker
from recbase_hf.evaluation.rankers.sequential import SasRec
from recbase_hf.evaluation.rankers.training_free import Popularity
from recbase_hf.evaluation.receipts import circumstances, without_folder
from recbase_hf.evaluation.run import RankerEntry, evaluate_rankers
from recbase_hf.evaluation.task import CandidateTask, CatalogTask
from recbase_hf.files import read_json, write_json
from recbase_hf.scoring.scorer import RecBaseScorer
from recbase_hf.training.launch import make_accelerator

FIGURES = {"gauc": "GAUC", "recall@10": "Recall@10", "ndcg@10": "NDCG@10"}
SCORES = ("joint", "catalog")
_NOT_SETTINGS = ("data", "users", "receipts", "table")
BEST = 30
"""Items that the exact search finds: ten, and those that the protocol takes away because the user knows them."""


@dataclass(frozen=True)
class FineTuneBenchmark:
    """Fine-tuning against zero-shot and against SASRec."""

    model: str | None = option(None, help="the base: a bundle, folder or Hub id")
    data: tuple[str, ...] = option((), help="folders in the two-table form")
    receipts: str = option("benchmarks/receipts/finetune", help="folder of the receipts")
    vectors: str | None = option(None, help="name of vectors that lie beside the tables, instead of encoding")
    users: tuple[int, ...] = option((100, 1000, 0), help="how many users to learn from; 0 is all")
    objective: str = option("both", help="of fine-tuning", choices=("next-item", "ctr", "both"))
    train_rows: tuple[str, ...] = option(("codes",), help="embedding rows that LoRA trains too")
    epochs: float = option(20.0, help="of fine-tuning, at most")
    learning_rate: float = option(3e-3, help="of LoRA")
    full_learning_rate: float = option(5e-4, help="of full fine-tuning")
    patience: int = option(4, help="evaluations without a better validation GAUC after which fine-tuning stops")
    evaluate_every: int = option(50, help="steps between these")
    max_items: int | None = option(None, help="items a training window; default what the base reads, 100 at most")
    test_users: int = option(2000, help="users whose last items are ranked among four others")
    catalog_test_users: int = option(300, help="of these, users whose last items are ranked in the whole catalog")
    sasrec: bool = option(True, help="also SASRec")
    seed: int = option(0, help="of everything")
    table: bool = option(False, help="only print the tables of the receipts")


class BestItems(RecBaseRanker):
    """`RecBaseRanker` that scores, of the whole catalog, only the best by exact search; the others are at the end."""

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """As `Ranker.scores`."""
        if candidates is not None:
            return super().scores(histories, candidates)
        catalog, ids = self._catalog, self._catalog.item_ids
        found = np.full((len(histories), len(catalog)), np.float32(-1e9))
        most = min(BEST, len(catalog) - max(map(len, histories)))
        best = self._scorer.recommend(
            [[ids[row] for row in history] for history in histories],
            most,
            catalog=catalog,
            method=self._score,  # type: ignore[arg-type]
        )
        for user, items in enumerate(best):
            found[user, catalog.rows([item.item_id for item in items])] = [item.score for item in items]
        return found


class Tasks(NamedTuple):
    """What all rankers are asked."""

    candidates: CandidateTask
    catalog: CatalogTask


def main() -> None:
    """Run what is missing and print the tables."""
    program, text = "benchmarks/finetune.py", FineTuneBenchmark.__doc__ or ""
    options = parse_arguments(FineTuneBenchmark, None, program=program, description=text)
    log_to_terminal()
    if not options.table:
        if options.model is None or not options.data:
            sys.exit("--model and --data are needed, or --table")
        for folder in options.data:
            for users in options.users:
                run(options, Path(folder), users)
    print(render(Path(options.receipts)))


def run(options: FineTuneBenchmark, folder: Path, users: int) -> None:
    """Fit, rank and write the receipt of one data set and number of users."""
    receipt = Path(options.receipts) / f"{folder.resolve().name}-{users or 'all'}.json"
    settings = {name: without_folder(value) for name, value in asdict(options).items() if name not in _NOT_SETTINGS}
    if receipt.exists():
        _require_same(receipt, settings)
        return
    start = time.perf_counter()
    _, tokenizer = load_bundle(str(options.model))
    source = vectors_for(tokenizer, options.vectors, trust_remote_code=False)
    domain = load_domain(folder, source, unordered_events="drop", seed=options.seed)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=tokenizer, vectors=domain.vectors)
    tasks = tasks_of(options, domain)
    learned = learned_from(domain.histories, users, options.seed)
    with TemporaryDirectory() as work:
        shop = write_shop(Path(work) / folder.resolve().name, folder, domain, learned, options.vectors)
        rows = []
        for name, fit in rankers(options, shop, Path(work), catalog, domain.vectors, learned).items():
            began = time.perf_counter()
            made, megabytes = fit()
            minutes = (time.perf_counter() - began) / 60
            figures = figures_of(made, tasks, Path(work) / "parts")
            rows.append({"name": name, "figures": figures, "minutes": minutes, "megabytes": megabytes})
    content = {
        "format_version": 1,
        "dataset": {"name": domain.name, "hash": domain.hash, "items": len(catalog)},
        "learning_users": len(learned),
        "learning_events": int(learned.lengths.sum()),
        "tasks": {"candidates": tasks.candidates.settings, "catalog": tasks.catalog.settings},
        "model": {"fingerprint": tokenizer.fingerprint, "weights": hash_of_weights(str(options.model))},
        "rows": rows,
        "options": settings,
        **circumstances(shlex.join(sys.argv), time.perf_counter() - start),
    }
    write_json(receipt, content)


def _require_same(receipt: Path, settings: dict[str, Any]) -> None:
    """End the program where a receipt was made with other settings, whose figures would be taken for those of these."""
    before = read_json(receipt)["options"]
    now = json.loads(json.dumps(settings))
    differing = sorted(name for name in now if before.get(name) != now[name])
    if differing:
        sys.exit(f"{receipt} was made with other settings ({', '.join(differing)}); move it, or name other --receipts")


def tasks_of(options: FineTuneBenchmark, domain: Domain) -> Tasks:
    """Of users with three events or more, of whom the catalog task takes some."""
    histories = domain.histories.select(np.flatnonzero(domain.histories.lengths >= 3))
    shared = {"max_users": options.test_users, "seed": options.seed}
    return Tasks(
        leave_last_out(histories, len(domain.items), **shared),
        leave_one_out(
            histories, len(domain.items), exclude_history=True, **{**shared, "max_users": options.catalog_test_users}
        ),
    )


def learned_from(histories: Histories, users: int, seed: int) -> Histories:
    """All but the last items of some users, drawn so that fewer are among more."""
    earlier = histories.first(np.maximum(0, histories.lengths - 1))
    usable = np.flatnonzero(earlier.lengths >= 2)
    return earlier.select(np.sort(np.random.default_rng(seed).permutation(usable)[: users or None]))


def write_shop(shop: Path, folder: Path, domain: Domain, learned: Histories, vectors: str | None) -> Path:
    """A data set of these events alone; items and vectors are those of the folder."""
    shop.mkdir()
    for path in [*folder.glob("items.*"), *([] if vectors is None else folder.glob(f"{vectors}_*"))]:
        shutil.copyfile(path, shop / path.name)
    ids = np.array(domain.items["item_id"][:], dtype=object)
    places = np.arange(len(learned.items)) - np.repeat(learned.offsets[:-1], learned.lengths)
    columns = {
        "user_id": np.repeat(learned.users, learned.lengths).tolist(),
        "item_id": ids[learned.items].tolist(),
        "order": places,
    }
    pq.write_table(pa.table(columns), shop / "interactions.parquet")
    return shop


def rankers(
    options: FineTuneBenchmark, shop: Path, work: Path, catalog: ItemCatalog, vectors: np.ndarray, learned: Histories
) -> dict[str, Callable[[], tuple[list[Ranker], float | None]]]:
    """By name what fits each; gives the rankers, and the megabytes of what was made."""

    def base() -> RecBaseScorer:
        return RecBaseScorer.from_pretrained(str(options.model))

    histories = [learned[user] for user in range(len(learned))]

    def of(scorer: RecBaseScorer) -> list[Ranker]:
        found: list[Ranker] = [BestItems(scorer, catalog, score) for score in SCORES]  # type: ignore[arg-type]
        return [*found, AdaptedModel(scorer, catalog, histories, seed=options.seed)]

    def lora() -> tuple[list[Ranker], float]:
        folder = tune(options, shop, work / "lora", "lora")
        scorer = base()
        scorer.load_adapter(folder, "shop")
        scorer.set_adapter("shop")
        return of(scorer), (folder / WEIGHTS).stat().st_size / 1e6

    def full() -> tuple[list[Ranker], float]:
        folder = tune(options, shop, work / "full", "full")
        size = (folder / "model.safetensors").stat().st_size / 1e6
        return of(RecBaseScorer.from_pretrained(folder)), size

    found: dict[str, Callable[[], tuple[list[Ranker], float | None]]] = {
        "no model": lambda: (
            [Popularity(learned, len(catalog)), AdaptedText(vectors, histories, seed=options.seed)],
            None,
        ),
        "zero-shot": lambda: (of(base()), None),
        "LoRA": lora,
        "full fine-tuning": full,
    }
    if options.sasrec:
        found["SASRec"] = lambda: ([SasRec(learned, len(catalog), seed=options.seed)], None)
    return found


def tune(options: FineTuneBenchmark, shop: Path, output: Path, method: str) -> Path:
    """Fine-tune on what is to be learned from, a tenth of the users held out for early stopping."""
    settings = FineTune(
        model=str(options.model),
        data=(str(shop),),
        output=str(output),
        vectors=options.vectors,
        method=method,
        train_rows=options.train_rows if method == "lora" else (),
        objective=options.objective,
        epochs=options.epochs,
        learning_rate=options.learning_rate if method == "lora" else options.full_learning_rate,
        patience=options.patience,
        evaluate_every=options.evaluate_every,
        max_items=options.max_items,
        validation_share=0.1,
        hold_out_last=1,
        seed=options.seed,
    )
    return finetune(settings, make_accelerator())


def figures_of(made: list[Ranker], tasks: Tasks, work: Path) -> dict[str, dict[str, dict[str, float]]]:
    """By score and figure its value and interval."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for number, task in enumerate(tasks):
        entries = {ranker.name: RankerEntry(lambda ranker=ranker: ranker) for ranker in made}  # type: ignore[misc]
        shutil.rmtree(work, ignore_errors=True)
        results = evaluate_rankers(task, entries, work, identity={"task": number})
        for ranker, result in zip(made, results, strict=True):
            metrics: dict[str, Any] = result.figures.to_json()["metrics"]
            wanted = ["gauc"] if number == 0 else ["recall@10", "ndcg@10"]
            found.setdefault(ranker.name, {}).update({name: metrics[name] for name in wanted})
    shutil.rmtree(work, ignore_errors=True)
    return found


def render(receipts: Path) -> str:
    """Markdown: a table a data set, a row a ranker and score, for each figure a column a number of users."""
    found = [read_json(path) for path in sorted(receipts.glob("*.json"))]
    if not found:
        sys.exit(f"no receipts in {receipts}; run the benchmark first")
    sets: dict[str, list[dict[str, Any]]] = {}
    for receipt in sorted(found, key=lambda receipt: (receipt["dataset"]["name"], receipt["learning_users"])):
        sets.setdefault(receipt["dataset"]["name"], []).append(receipt)
    return "\n\n".join(_of_set(name, of_set) for name, of_set in sets.items())


def _of_set(name: str, receipts: list[dict[str, Any]]) -> str:
    counts = [f"{receipt['learning_users']:,}" for receipt in receipts]
    heads = [f"{figure}, {count} users" for figure in FIGURES.values() for count in counts]
    lines = [
        f"**{name}**, {receipts[0]['dataset']['items']:,} items",
        "",
        f"| ranker | score | {' | '.join(heads)} | minutes | MB |",
        "|---|---|" + "---:|" * (len(heads) + 2),
    ]
    parts = [part for receipt in receipts for row in receipt["rows"] for part in row["figures"].values()]
    for row in receipts[-1]["rows"]:
        for score in row["figures"]:
            values = [_figures(receipt, row["name"], score) for receipt in receipts]
            cells = ["" if value is None else f"{value[figure]['value']:.3f}" for figure in FIGURES for value in values]
            size = "" if row["megabytes"] is None else f"{row['megabytes']:.2f}"
            said = [row["name"], score.removeprefix("RecBase "), *cells, f"{row['minutes']:.1f}", size]
            lines.append(f"| {' | '.join(said)} |")
    widest = [max(part[figure]["high"] - part[figure]["low"] for part in parts) / 2 for figure in FIGURES]
    told = ", ".join(f"{name} ± {width:.3f}" for name, width in zip(FIGURES.values(), widest, strict=True))
    return "\n".join([*lines, "", f"Widest 95 % interval: {told}. Minutes and MB are those of the most users."])


def _figures(receipt: dict[str, Any], ranker: str, score: str) -> dict[str, dict[str, float]] | None:
    """None where the receipt was made without the ranker."""
    return next((row["figures"][score] for row in receipt["rows"] if row["name"] == ranker), None)


if __name__ == "__main__":
    main()
