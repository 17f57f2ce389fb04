"""Which quantizer makes the best semantic IDs for items of a domain that it was not fitted on.

    python benchmarks/tokenizer.py --data data/*/ --vectors minilm                       # every quantizer and size
    python benchmarks/tokenizer.py --data data/*/ --vectors minilm --part ablation        # the parts of the CL-VAE
    python benchmarks/tokenizer.py --data data/*/ --vectors minilm --part alignment       # what is done to the vectors
    python benchmarks/tokenizer.py --data data/*/ --part lead                             # a sentence naming the set
    python benchmarks/tokenizer.py --part speed
    python benchmarks/tokenizer.py --tables                                               # the tables of all receipts

Each folder is in the two-table form with its sentence vectors beside it. One receipt a left-out folder and part; what
is in it is not run again.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from recbase_hf.modeling.centering import center, shrunk_mean
from tqdm.auto import tqdm

from recbase_hf.auto import RecBaseTokenizer
from recbase_hf.catalog.collisions import assign_codes
from recbase_hf.config import option, parse_arguments
from recbase_hf.data.domain import Domain, ItemVectors, load_domain
from recbase_hf.data.tables import read_items
from recbase_hf.doctor.measures import drift, level_one_information, level_use, reconstruction_cosines, text_collisions
from recbase_hf.doctor.neighbors import query_recalls
from recbase_hf.evaluation.figures import measure_candidates
from recbase_hf.evaluation.intervals import bootstrap_interval
from recbase_hf.evaluation.protocols import leave_last_out
from recbase_hf.evaluation.rankers.training_free import TextSimilarity
from recbase_hf.evaluation.receipts import circumstances
from recbase_hf.evaluation.task import CandidateTask
from recbase_hf.files import read_json, write_json
from recbase_hf.quantizers.fit import fit_sample
from recbase_hf.quantizers.kinds import KINDS, config_of_kind, training_of_kind
from recbase_hf.quantizers.sample import FitSample
from recbase_hf.quantizers.training import QuantizerTraining
from recbase_hf.text.encoder import DEFAULT_TEXT_ENCODER, load_text_encoder
from recbase_hf.text.template import ItemTemplate

SHAPES = {"4x256": (4, 256), "4x1024": (4, 1024), "3x4096": (3, 4096)}
PARTS = ("comparison", "ablation", "alignment", "lead", "speed")
SHRINKAGE = 32.0
QUERIES = 1000
"""Items of each set whose neighbors are looked at."""

USERS = 1000
"""Users of the left-out set on whom similarity of decoded vectors is evaluated."""


@dataclass(frozen=True)
class TokenizerBenchmark:
    """Fit quantizers on all folders but one, measure on that one and inside the others."""

    data: tuple[str, ...] = option((), help="folders in the two-table form")
    vectors: str = option("minilm", help="name of the vectors that lie beside the tables")
    part: str = option(
        "comparison", help="what to run", choices=("comparison", "ablation", "alignment", "lead", "speed")
    )
    shapes: tuple[str, ...] = option(tuple(SHAPES), help="of the comparison: levels x codes")
    left_out: tuple[str, ...] = option((), help="names of the folders to leave out in turn; default all")
    steps: int = option(200, help="of training, a level")
    receipts: str = option("benchmarks/receipts/tokenizer", help="folder of the receipts")
    seed: int = option(0, help="of everything")
    tables: bool = option(False, help="only print the tables of the receipts")


# ---- what is measured --------------------------------------------------------------------------------------------


class Items:
    """One data set: its item vectors and texts, and users by whom similarity of vectors is evaluated."""

    def __init__(self, folder: str, vectors: str, seed: int) -> None:
        self.domain: Domain = load_domain(
            folder, ItemVectors("all-MiniLM-L6-v2", precomputed=vectors), unordered_events="drop", seed=seed
        )
        self.name, self.vectors, self.hash = self.domain.name, self.domain.vectors, self.domain.items_hash
        self.texts = ItemTemplate().render_all(self.domain.items)
        self.seed = seed

    @cached_property
    def task(self) -> CandidateTask:
        return leave_last_out(self.domain.histories, len(self.vectors), max_users=USERS, seed=self.seed)

    def gauc(self, vectors: np.ndarray) -> float:
        """Of text similarity by these vectors, on the held-out last items of users."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
        scores = TextSimilarity(unit, how="log-sum-exp").scores(
            self.task.histories, self.task.candidates_of(0, len(self.task))
        )
        return measure_candidates("", scores, self.task, seed=self.seed).metrics["gauc"].value


Alignment = Callable[[Mapping[str, np.ndarray], str], dict[str, np.ndarray]]
"""From the vectors of all sets and the name of the one that is left out to what the quantizer gets of each."""


def own_mean(vectors: Mapping[str, np.ndarray], left_out: str) -> dict[str, np.ndarray]:
    """Less the set's own mean: what a catalog does."""
    corpus_mean = np.mean([part.mean(axis=0) for name, part in vectors.items() if name != left_out], axis=0)
    return {name: center(part, shrunk_mean(part, corpus_mean, SHRINKAGE)) for name, part in vectors.items()}


def corpus_mean(vectors: Mapping[str, np.ndarray], left_out: str) -> dict[str, np.ndarray]:
    """Less one mean for all."""
    mean = np.mean([part.mean(axis=0) for name, part in vectors.items() if name != left_out], axis=0)
    return {name: center(part, mean) for name, part in vectors.items()}


def nothing(vectors: Mapping[str, np.ndarray], left_out: str) -> dict[str, np.ndarray]:
    """As the text encoder gave them."""
    return dict(vectors)


def whitened(vectors: Mapping[str, np.ndarray], left_out: str, *, power: float) -> dict[str, np.ndarray]:
    """Less the set's own mean, then the fitted sets' covariance taken out to a power (1: whole, 0.5: half)."""
    centered = own_mean(vectors, left_out)
    covariance = np.mean([part.T @ part / len(part) for name, part in centered.items() if name != left_out], axis=0)
    variances, directions = np.linalg.eigh(covariance)
    matrix = (directions * np.maximum(variances, 1e-4 * variances.max()) ** (-power / 2)) @ directions.T
    return {name: center(part @ matrix, np.zeros(1)) for name, part in centered.items()}


def evaluate(
    sets: Mapping[str, Items],
    left_out: str,
    kind: str,
    shape: tuple[int, int],
    *,
    training: QuantizerTraining,
    align: Alignment = own_mean,
    **settings: Any,
) -> dict[str, Any]:
    """Fit on all sets but one; figures of that one and of the others."""
    levels, codes_a_level = shape
    aligned = align({name: items.vectors for name, items in sets.items()}, left_out)
    fitted = {name: part for name, part in aligned.items() if name != left_out}
    sample = _sample(fitted, training.domain_balance)
    config = config_of_kind(
        kind, input_dim=sample.vectors.shape[1], codebook_size=codes_a_level, num_levels=levels, **settings
    )
    start = time.perf_counter()
    quantizer, _ = fit_sample(sample, config, training, accelerator=Accelerator())
    seconds = time.perf_counter() - start

    codes = {name: quantizer.encode(torch.from_numpy(part)).numpy() for name, part in aligned.items()}
    decoded = {name: quantizer.decode(torch.from_numpy(part)).numpy() for name, part in codes.items()}
    # Whatever the quantizer was given: neighbors are those that a catalog sees.
    truth = own_mean({name: items.vectors for name, items in sets.items()}, left_out)
    recalls = {name: query_recalls(truth[name], decoded[name], codes=codes[name], max_queries=QUERIES) for name in sets}
    collisions = {name: text_collisions(codes[name], sets[name].texts).share for name in sets}
    use = level_use(np.concatenate([codes[name] for name in fitted]), codes_a_level)
    dataset = np.repeat(list(codes), [len(part) for part in codes.values()])
    level_one = level_one_information(np.concatenate([part[:, 0] for part in codes.values()]), dataset)
    cosines = reconstruction_cosines(aligned[left_out], decoded[left_out])
    figures: dict[str, Any] = {}
    if kind == "product" and shape == SHAPES["4x1024"] and align is own_mean:
        tokenizer = RecBaseTokenizer(quantizer=quantizer, collisions="reassign")
        texts = sets[left_out].texts
        reassigned = assign_codes(
            tokenizer, aligned[left_out], texts, mean=np.zeros(sample.vectors.shape[1], np.float32)
        )
        figures["collisions_left_out_reassigned"] = text_collisions(reassigned, texts).share
    return {
        **figures,
        "recall_left_out": float(recalls[left_out].mean()),
        "recall_left_out_interval": bootstrap_interval(recalls[left_out]),
        "recall_inside": float(np.mean([recalls[name].mean() for name in fitted])),
        "collisions_left_out": collisions[left_out],
        "collisions_inside": float(np.mean([collisions[name] for name in fitted])),
        "collisions": collisions,
        "perplexity_share": [level.perplexity / codes_a_level for level in use],
        "used_share": [level.used / codes_a_level for level in use],
        "level_one_share": level_one.share,
        "level_one_chance": level_one.chance_share,
        "gauc_left_out": sets[left_out].gauc(decoded[left_out]),
        "cosine_left_out": float(cosines.mean()),
        "drift_left_out": drift(cosines, quantizer.fitted_cosines.numpy()),
        "fit_seconds": seconds,
        "training": asdict(training),
        "config": config.settings(),
    }


def _sample(fitted: Mapping[str, np.ndarray], domain_balance: float) -> FitSample:
    """The vectors as they are: alignment was done before."""
    sizes = [len(part) for part in fitted.values()]
    weights = np.repeat([float(size) ** -domain_balance for size in sizes], sizes)
    vectors = np.concatenate(list(fitted.values())).astype(np.float32)
    return FitSample(vectors, weights / weights.mean(), np.cumsum([0, *sizes]), np.zeros(vectors.shape[1], np.float32))


# ---- the parts ---------------------------------------------------------------------------------------------------


Runs = dict[str, "partial[dict[str, Any]]"]
"""What the rows of a table are called, and how each is run."""


def comparison(options: TokenizerBenchmark, shape: str) -> Runs:
    """Every kind, as its own defaults fit it."""
    return {
        kind: partial(evaluate, kind=kind, shape=SHAPES[shape], training=training_of_kind(kind, _training(options)))
        for kind in KINDS
    }


def ablation(options: TokenizerBenchmark) -> Runs:
    """The CL-VAE, and what each of its parts does to it."""
    all_off = {"kl_weight": 0.0, "entropy_weight": 0.0}
    parts_off = {"curriculum": "none", "replace_unused": False}
    paper = {"linear_path": False, "neighbor_weight": 0.0}
    return {
        name: partial(
            evaluate, kind="cl-vae", shape=SHAPES["4x1024"], training=_training(options, **changes), **weights
        )
        for name, changes, weights in (
            ("all parts", {}, {}),
            ("no curriculum", {"curriculum": "none"}, {}),
            ("no KL", {}, {"kl_weight": 0.0}),
            ("no entropy", {}, {"entropy_weight": 0.0}),
            ("ten times the entropy", {}, {"entropy_weight": 0.1}),
            ("no replacement", {"replace_unused": False}, {}),
            ("earlier levels frozen", {}, {"freeze_earlier_levels": True}),
            ("no k-means start", {"kmeans_start": False}, {}),
            ("no linear path", {}, {"linear_path": False}),
            ("no neighbor loss", {}, {"neighbor_weight": 0.0}),
            ("no curriculum, KL, entropy, replacement", parts_off, all_off),
            ("the paper's: no linear path, neighbor loss", {}, paper),
            ("the paper's, no curriculum, KL, entropy, replacement", parts_off, {**paper, **all_off}),
            ("the paper's, no k-means start", {"kmeans_start": False}, paper),
            (
                "the paper's, no k-means start, curriculum, KL, entropy, replacement",
                {**parts_off, "kmeans_start": False},
                {**paper, **all_off},
            ),
        )
    }


def alignment(options: TokenizerBenchmark) -> Runs:
    """What is done to the vectors against the leak of the data set into level 1."""
    run = partial(evaluate, kind="product", shape=SHAPES["4x1024"])
    residual = partial(evaluate, kind="residual-kmeans", shape=SHAPES["4x1024"])
    training, items_alike = _training(options), _training(options, domain_balance=0.0)
    return {
        "nothing": partial(run, training=training, align=nothing),
        "corpus mean": partial(run, training=training, align=corpus_mean),
        "own mean": partial(run, training=training),
        "own mean, half whitening": partial(run, training=training, align=partial(whitened, power=0.5)),
        "own mean, full whitening": partial(run, training=training, align=partial(whitened, power=1.0)),
        "own mean, items alike": partial(run, training=items_alike),
        "own mean, no neighbor loss": partial(run, training=training, neighbor_weight=0.0),
        "own mean, principal components and k-means alone": partial(
            run, training=_training(options, max_steps_per_level=0)
        ),
        "own mean, four features a level": partial(run, training=training, level_dim=4),
        "own mean, residual k-means": partial(residual, training=items_alike),
        "nothing, residual k-means": partial(residual, training=items_alike, align=nothing),
    }


LEAD_ITEMS = 300
"""Of each set, because their texts are encoded twice."""


def lead(options: TokenizerBenchmark) -> None:
    """Items whose texts start with a sentence that names their set, as in the authors' data, against items without."""
    start = time.perf_counter()
    encoder = load_text_encoder(DEFAULT_TEXT_ENCODER)
    vectors: dict[bool, dict[str, np.ndarray]] = {False: {}, True: {}}
    for folder in tqdm(options.data, desc="encode"):
        items = read_items(folder)
        rows = np.random.default_rng(options.seed).permutation(len(items))[:LEAD_ITEMS]
        for with_lead, parts in vectors.items():
            template = ItemTemplate(lead=f"Describe an item of {Path(folder).name}:" if with_lead else None)
            parts[Path(folder).name] = encoder.encode(template.render_all(items.select(np.sort(rows))))
    figures = {
        f"{'with' if with_lead else 'no'} lead sentence, {name}": _level_one_and_recall(parts, align, options)
        for with_lead, parts in vectors.items()
        for name, align in (("own mean", own_mean), ("nothing subtracted", nothing))
    }
    results: dict[str, Any] = {"items_a_set": LEAD_ITEMS, "figures": figures}
    results.update(circumstances(shlex.join(sys.argv), time.perf_counter() - start))
    write_json(Path(options.receipts) / "lead.json", results)


def _level_one_and_recall(
    vectors: Mapping[str, np.ndarray], align: Alignment, options: TokenizerBenchmark
) -> dict[str, float]:
    """Means over the sets left out in turn."""
    shares, recalls = [], []
    for left_out in vectors:
        aligned = align(vectors, left_out)
        sample = _sample({name: part for name, part in aligned.items() if name != left_out}, 1.0)
        config = config_of_kind("product", input_dim=sample.vectors.shape[1], codebook_size=256)
        quantizer, _ = fit_sample(sample, config, _training(options, max_steps_per_level=50), accelerator=Accelerator())
        codes = {name: quantizer.encode(torch.from_numpy(part)).numpy() for name, part in aligned.items()}
        dataset = np.repeat(list(codes), [len(part) for part in codes.values()])
        shares.append(level_one_information(np.concatenate([part[:, 0] for part in codes.values()]), dataset).share)
        decoded = quantizer.decode(torch.from_numpy(codes[left_out])).numpy()
        recalls.append(query_recalls(own_mean(vectors, left_out)[left_out], decoded, codes=codes[left_out]).mean())
    return {"level_one_share": float(np.mean(shares)), "recall_left_out": float(np.mean(recalls))}


def _training(options: TokenizerBenchmark, **changes: Any) -> QuantizerTraining:
    return QuantizerTraining(**{"max_steps_per_level": options.steps, "seed": options.seed, **changes})


def speed(options: TokenizerBenchmark) -> None:
    """Seconds of a fit and vectors encoded a second, on random vectors; threads as torch is told to use."""
    start = time.perf_counter()
    vectors = torch.randn(100_000, 384, generator=torch.Generator().manual_seed(0))
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    sample = _sample({"random": vectors.numpy()}, 0.0)
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "items": len(vectors), "kinds": {}}
    for kind, run in tqdm(comparison(options, "4x1024").items(), desc="speed"):
        config = config_of_kind(kind, input_dim=384, codebook_size=1024, num_levels=4)
        began = time.perf_counter()
        quantizer, _ = fit_sample(sample, config, run.keywords["training"], accelerator=Accelerator(cpu=True))
        fitted = time.perf_counter() - began
        quantizer.encode(vectors[:8192])  # warm-up
        rates = []
        for _ in range(5):
            began = time.perf_counter()
            quantizer.encode(vectors)
            rates.append(len(vectors) / (time.perf_counter() - began))
        figures["kinds"][kind] = {"fit_seconds": fitted, "vectors_per_second": rates}
    figures.update(circumstances(shlex.join(sys.argv), time.perf_counter() - start))
    write_json(Path(options.receipts) / "speed.json", figures)


def load_sets(options: TokenizerBenchmark) -> dict[str, Items]:
    """All folders; what is left out must not be among the others under another name."""
    sets = [Items(folder, options.vectors, options.seed) for folder in tqdm(options.data, desc="read")]
    for what, values in (("name", [items.name for items in sets]), ("items", [items.hash for items in sets])):
        repeated = {value for value in values if values.count(value) > 1}
        if repeated:
            sys.exit(f"two of the folders have the same {what} ({', '.join(sorted(repeated))}); leave one out")
    return {items.name: items for items in sets}


def run_part(options: TokenizerBenchmark, part: str, runs: Runs, sets: Mapping[str, Items]) -> None:
    """Run what the receipts of this part lack."""
    data = {name: items.hash for name, items in sets.items()}
    settings = {"steps": options.steps, "seed": options.seed, "vectors": options.vectors, "data": data}
    for left_out in options.left_out or sets:
        receipt = Path(options.receipts) / part / f"{left_out}.json"
        results = (
            read_json(receipt) if receipt.exists() else {"left_out": left_out, "settings": settings, "figures": {}}
        )
        if results["settings"] != settings:
            differing = [name for name, value in settings.items() if results["settings"].get(name) != value]
            sys.exit(f"{receipt} was made with other {', '.join(differing)}; name another folder for --receipts")
        for name, run in tqdm(runs.items(), desc=f"{part}, without {left_out}"):
            if name in results["figures"]:
                continue
            start = time.perf_counter()
            results["figures"][name] = run(sets, left_out)
            results.update(circumstances(shlex.join(sys.argv), time.perf_counter() - start))
            write_json(receipt, results)


# ---- the tables --------------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "recall@10 left out": lambda row: row["recall_left_out"],
    "inside": lambda row: row["recall_inside"],
    "GAUC left out": lambda row: row["gauc_left_out"],
    "collisions left out": lambda row: row["collisions_left_out"],
    "collisions inside": lambda row: row["collisions_inside"],
    "least perplexity/K": lambda row: min(row["perplexity_share"]),
    "least codes used": lambda row: min(row["used_share"]),
    "level 1 tells": lambda row: row["level_one_share"],
}


def table(folder: Path) -> str:
    """Markdown: a row a run, means over the sets that were left out in turn."""
    receipts = [read_json(path) for path in sorted(folder.glob("*.json"))]
    names = _complete(receipts)
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name in names:
        rows = [receipt["figures"][name] for receipt in receipts]
        cells = [_cell(column, [figure(row) for row in rows]) for column, figure in COLUMNS.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return f"{len(receipts)} sets left out in turn:\n\n" + "\n".join(lines)


def left_out_table(folder: Path, figure: str = "recall_left_out") -> str:
    """Markdown: a row a left-out set, recall with its 95 % interval over items."""
    receipts = [read_json(path) for path in sorted(folder.glob("*.json"))]
    names = _complete(receipts)
    lines = ["| left out | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for receipt in receipts:
        rows = [receipt["figures"][name] for name in names]
        best = max(row[figure] for row in rows)
        cells = [
            f"{'**' if row[figure] == best else ''}{row[figure]:.3f}{'**' if row[figure] == best else ''} "
            f"[{row[figure + '_interval'][0]:.3f}, {row[figure + '_interval'][1]:.3f}]"
            for row in rows
        ]
        lines.append(f"| {receipt['left_out']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio_line(folder: Path, kind: str = "product", against: str = "residual-kmeans") -> str:
    """Recall on left-out sets, kind / against, with the 95 % interval when the sets themselves are drawn anew."""
    rows = [read_json(path)["figures"] for path in sorted(folder.glob("*.json"))]
    recalls = np.array([[row[name]["recall_left_out"] for name in (kind, against)] for row in rows])
    draws = np.random.default_rng(0).integers(0, len(recalls), size=(10_000, len(recalls)))
    low, high = np.quantile(np.divide(*recalls[draws].mean(axis=1).T), [0.025, 0.975])
    ratio = np.divide(*recalls.mean(axis=0))
    return f"recall@10 left out, {kind} / {against}: {ratio:.2f}, 95 % interval over sets [{low:.2f}, {high:.2f}]"


def _complete(receipts: list[dict[str, Any]]) -> list[str]:
    """The runs that all receipts have."""
    return [name for name in receipts[0]["figures"] if all(name in receipt["figures"] for receipt in receipts)]


def _cell(column: str, values: Iterable[float]) -> str:
    mean = float(np.mean(list(values)))
    return f"{100 * mean:.1f} %" if column.startswith("collisions") else f"{mean:.3f}"


def print_tables(receipts: Path) -> None:
    """All tables whose receipts are there."""
    for part in (*SHAPES, "ablation", "alignment"):
        if any((receipts / part).glob("*.json")):
            print(f"## {part}\n\n{table(receipts / part)}\n")
    if any((receipts / "4x1024").glob("*.json")):
        print(f"## 4x1024, recall@10 by left-out set\n\n{left_out_table(receipts / '4x1024')}\n")
        print(f"{ratio_line(receipts / '4x1024')}\n")
    if (receipts / "lead.json").exists():
        print("## lead sentence\n\n| | recall@10 left out | level 1 tells |\n|---|---:|---:|")
        for name, row in read_json(receipts / "lead.json")["figures"].items():
            print(f"| {name} | {row['recall_left_out']:.3f} | {row['level_one_share']:.3f} |")
        print()
    if (receipts / "speed.json").exists():
        figures = read_json(receipts / "speed.json")
        print(f"## speed, {figures['threads']} threads, {figures['items']:,} vectors\n")
        print("| | fit, s | encode, vectors/s |\n|---|---:|---:|")
        for kind, row in figures["kinds"].items():
            rate = float(np.median(row["vectors_per_second"]))
            print(f"| {kind} | {row['fit_seconds']:.0f} | {rate:,.0f} |")


def run_parts(options: TokenizerBenchmark) -> None:
    """The comparison at each size, or another part."""
    sets = load_sets(options)
    if options.part == "comparison":
        for shape in options.shapes:
            run_part(options, shape, comparison(options, shape), sets)
    else:
        run_part(options, options.part, {"ablation": ablation, "alignment": alignment}[options.part](options), sets)


def main() -> None:
    """Run what is missing and print the tables."""
    options = parse_arguments(
        TokenizerBenchmark, None, program="benchmarks/tokenizer.py", description=TokenizerBenchmark.__doc__ or ""
    )
    if not options.tables and options.part == "speed":
        speed(options)
    elif not options.tables:
        if len(options.data) < 2:
            sys.exit("--data needs at least two folders: one is left out, the others are fitted on")
        if options.part == "lead":
            lead(options)
        else:
            run_parts(options)
    print_tables(Path(options.receipts))


if __name__ == "__main__":
    main()
