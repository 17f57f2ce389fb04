"""How fast candidates are scored and items recommended, against the obvious ways, all in one run on the same model.

    python benchmarks/engine.py                                    # the model of `--size mini`, 2 threads
    python benchmarks/engine.py --size base --device cuda --dtype bfloat16
    python benchmarks/engine.py --table                            # the tables of all receipts

Weights and semantic IDs are random: uniform codes share the fewest prefixes, and a model that cannot tell items apart
lets the exact search skip nothing, so that both are the hard case. One receipt a size and device.
"""

from __future__ import annotations

import shlex
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from recbase_hf.modeling.quantizers import new_quantizer

from recbase_hf import ItemCatalog, RecBaseScorer, RecBaseTokenizer
from recbase_hf.catalog.index_files import hash_of_codes
from recbase_hf.catalog.trie import build_trie
from recbase_hf.catalog.trie_file import load_trie, save_trie
from recbase_hf.config import option, parse_arguments
from recbase_hf.evaluation.receipts import circumstances
from recbase_hf.files import read_json, write_json
from recbase_hf.language_model import new_language_model, qwen2_config
from recbase_hf.quantizers.kinds import config_of_kind
from recbase_hf.scoring.engine import Engine
from recbase_hf.scoring.generation import CatalogLogitsProcessor
from recbase_hf.scoring.item_filter import ItemFilter
from recbase_hf.scoring.search import Search
from recbase_hf.scoring.trie_tensors import TrieTensors

LEVELS, CODES, HISTORY = 4, 1024, 50
"""Four levels of 1,024 codes; a history of 50 items is 201 tokens."""

USERS, BEAMS, TOP = 8, 20, 20
METHODS = ("joint", "catalog")


@dataclass(frozen=True)
class EngineBenchmark:
    """Speed of scoring and recommending."""

    size: str = option("mini", help="of the model")
    device: str = option("cpu", help="where it runs")
    dtype: str = option("float32", help="of the weights")
    threads: int = option(2, help="of torch, on a CPU")
    repeats: int = option(5, help="of each measurement; the median counts")
    items: tuple[int, ...] = option((10_000, 100_000, 1_000_000), help="sizes of the catalogs")
    candidates: tuple[int, ...] = option((100, 1_000), help="numbers of candidates")
    receipts: str = option("benchmarks/receipts/engine", help="folder of the receipts")
    seed: int = option(0, help="of everything")
    table: bool = option(False, help="only print the tables of the receipts")


# ---- the world ---------------------------------------------------------------------------------------------------


def make_scorer(options: EngineBenchmark) -> RecBaseScorer:
    """A model with random weights."""
    quantizer = new_quantizer(
        config_of_kind("product", input_dim=8, codebook_size=CODES, num_levels=LEVELS, level_dim=2)
    )
    tokenizer = RecBaseTokenizer(quantizer=quantizer)
    model = new_language_model(qwen2_config(options.size, tokenizer.layout), seed=options.seed)
    return RecBaseScorer(model.to(options.device, getattr(torch, options.dtype)), tokenizer)


def make_catalog(scorer: RecBaseScorer, num_items: int, seed: int) -> ItemCatalog:
    """Items with uniform random codes, whose ids are their rows."""
    ids = [str(row) for row in range(num_items)]
    codes = np.random.default_rng(seed).integers(0, CODES, (num_items, LEVELS))
    return ItemCatalog(
        item_ids=ids,
        titles=ids,
        texts=ids,
        codes=codes,
        vectors=None,
        mean=None,
        codebook_size=CODES,
        fingerprint=scorer.tokenizer.fingerprint,
    )


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any], repeats: int) -> list[float]:
    """Wall time of each repeat, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - start)
    return times


# ---- the obvious ways --------------------------------------------------------------------------------------------


@torch.inference_mode()
def score_by_forwards(
    scorer: RecBaseScorer, catalog: ItemCatalog, history: np.ndarray, rows: np.ndarray, batch: int
) -> np.ndarray:
    """Joint scores, one sequence a candidate, `batch` of them a forward; the head on the four positions that count."""
    layout, model = scorer.tokenizer.layout, scorer.model
    past = layout.history_ids(catalog.codes[history])
    codes = catalog.codes[rows]
    ids = torch.from_numpy(np.concatenate([np.tile(past, (len(rows), 1)), layout.codes_to_ids(codes)], axis=1))
    scores = []
    for part, part_codes in zip(ids.split(batch), torch.from_numpy(codes).split(batch), strict=True):
        # The last code predicts nothing that is read.
        logits = model(part[:, :-1].to(model.device), use_cache=False, logits_to_keep=LEVELS).logits
        levels = torch.stack([logits[:, level, layout.level_ids(level)] for level in range(LEVELS)], dim=1)
        chosen = levels.float().log_softmax(dim=-1).gather(2, part_codes[..., None].to(model.device))
        scores.append(chosen.sum(dim=(1, 2)).cpu())
    return torch.cat(scores).numpy()


def best_batch(scorer: RecBaseScorer, catalog: ItemCatalog, history: np.ndarray, options: EngineBenchmark) -> int:
    """The number of sequences a forward that scores 64 candidates fastest."""
    rows = np.arange(64)
    work = {batch: partial(score_by_forwards, scorer, catalog, history, rows, batch) for batch in (1, 4, 16, 64)}
    return min(work, key=lambda batch: float(np.median(seconds_of(work[batch], 2))))


def score_by_repeated_cache(scorer: RecBaseScorer, catalog: ItemCatalog, history: np.ndarray, rows: np.ndarray) -> Any:
    """The pipeline that travels with a checkpoint: one encoded history, repeated for each candidate."""
    from recbase_hf.auto import RecBaseScoringPipeline

    pipeline = RecBaseScoringPipeline(model=scorer.model, tokenizer=scorer.tokenizer, device=scorer.model.device)
    return pipeline({"history": catalog.codes[history], "candidates": catalog.codes[rows]}, candidates_per_forward=100)


class PrefixTrie:
    """Legal next tokens in Python dictionaries, as `prefix_allowed_tokens_fn` is usually made."""

    def __init__(self, catalog: ItemCatalog, layout: Any, prompt: int) -> None:
        self.prompt, self.root = prompt, {}
        for ids in layout.codes_to_ids(catalog.codes).tolist():
            node = self.root
            for token in ids:
                node = node.setdefault(token, {})

    def __call__(self, batch: int, ids: torch.Tensor) -> list[int]:
        node = self.root
        for token in ids[self.prompt :].tolist():
            node = node[token]
        return list(node)


@torch.inference_mode()
def generate(scorer: RecBaseScorer, prompts: torch.Tensor, **constraint: Any) -> Any:
    """Stock beam search."""
    return scorer.model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        num_beams=BEAMS,
        num_return_sequences=TOP,
        max_new_tokens=LEVELS,
        min_new_tokens=LEVELS,
        do_sample=False,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
        **constraint,
    )


# ---- what is measured --------------------------------------------------------------------------------------------


def measure_scoring(scorer: RecBaseScorer, catalog: ItemCatalog, options: EngineBenchmark) -> dict[str, Any]:
    """One user with many candidates, and 32 users."""
    rng = np.random.default_rng(options.seed)
    histories = [rng.integers(0, len(catalog), HISTORY) for _ in range(32)]
    history = histories[0]
    batch = best_batch(scorer, catalog, history, options)
    figures: dict[str, Any] = {"items": len(catalog), "sequences_a_forward": batch, "one_user": {}}
    for count in options.candidates:
        rows = rng.choice(len(catalog), count, replace=False)
        joint = scorer.score_rows([history], [rows], catalog=catalog, method="joint")[0]
        naive = score_by_forwards(scorer, catalog, history, rows, batch)
        figures["one_user"][str(count)] = {
            "largest_relative_difference": float(np.abs(joint / naive - 1).max()),
            "prefixes": int(sum(len(np.unique(part)) for part in catalog.trie.paths(rows).T[:-1])),
            "one forward a candidate": seconds_of(
                partial(score_by_forwards, scorer, catalog, history, rows, batch), 1 if count > 100 else 3
            ),
            "repeated cache": seconds_of(partial(score_by_repeated_cache, scorer, catalog, history, rows), 2),
            **{
                f"engine, {method}": seconds_of(
                    partial(scorer.score_rows, [history], [rows], catalog=catalog, method=method), options.repeats
                )
                for method in METHODS
            },
        }
    figures["32_users"] = {}
    for count in options.candidates:
        rows_of_users = [rng.choice(len(catalog), count, replace=False) for _ in histories]
        figures["32_users"][str(count)] = {
            f"{how}, {method}": seconds_of(partial(work, scorer, catalog, histories, rows_of_users, method), 2)
            for method in METHODS
            for how, work in (("together", _score_together), ("one by one", _score_one_by_one))
        }
    return figures


def _score_together(scorer: Any, catalog: Any, histories: Any, rows: Any, method: Any) -> None:
    scorer.score_rows(histories, rows, catalog=catalog, method=method)


def _score_one_by_one(scorer: Any, catalog: Any, histories: Any, rows: Any, method: Any) -> None:
    for history, part in zip(histories, rows, strict=True):
        scorer.score_rows([history], [part], catalog=catalog, method=method)


def measure_recommending(scorer: RecBaseScorer, catalog: ItemCatalog, options: EngineBenchmark) -> dict[str, Any]:
    """Beams, against `generate()`, and how much of them is constraint work."""
    rng = np.random.default_rng(options.seed)
    rows = [rng.integers(0, len(catalog), HISTORY) for _ in range(USERS)]
    histories = [[catalog.item_ids[row] for row in part] for part in rows]
    layout = scorer.tokenizer.layout
    prompts = torch.from_numpy(np.stack([layout.history_ids(catalog.codes[part]) for part in rows]))
    prompts = prompts.to(scorer.model.device)
    beams = partial(
        scorer.recommend, histories, TOP, catalog=catalog, search="beam", num_beams=BEAMS, exclude_history=False
    )
    start = time.perf_counter()
    prefixes = PrefixTrie(catalog, layout, prompts.shape[1])
    figures: dict[str, Any] = {"items": len(catalog), "dictionary_trie_seconds": time.perf_counter() - start}
    start = time.perf_counter()
    build_trie(catalog.codes, CODES)
    figures["tensor_trie_seconds"] = time.perf_counter() - start
    for method in METHODS:
        figures[f"engine, {method}"] = seconds_of(partial(beams, method=method), options.repeats)
        figures[f"constraint_share, {method}"] = constraint_share(partial(beams, method=method))
        processor = CatalogLogitsProcessor(catalog, prompts.shape[1], method=method)
        figures[f"generate, tensor trie, {method}"] = seconds_of(
            partial(generate, scorer, prompts, logits_processor=[processor]), 2
        )
    figures["generate, dictionary trie"] = seconds_of(
        partial(generate, scorer, prompts, prefix_allowed_tokens_fn=prefixes), 2
    )
    return figures


@contextmanager
def timed(methods: dict[type, tuple[str, ...]]) -> Iterator[list[float]]:
    """The seconds spent in methods of classes; calls within each other count once."""
    spent: list[float] = []
    depth = 0

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal depth
            synchronize()
            start, depth = time.perf_counter(), depth + 1
            try:
                return method(*arguments, **options)
            finally:
                depth -= 1
                synchronize()
                if depth == 0:
                    spent.append(time.perf_counter() - start)

        return call

    originals = {(owner, name): owner.__dict__[name] for owner, names in methods.items() for name in names}
    for (owner, name), method in originals.items():
        setattr(owner, name, wrapped(method))
    try:
        yield spent
    finally:
        for (owner, name), method in originals.items():
            setattr(owner, name, method)


def constraint_share(work: Callable[[], Any]) -> float:
    """Time in questions to trie and filter, over that of all decoding steps (without the encoding of the histories)."""
    work()
    questions = {
        TrieTensors: ("children", "legal_codes", "child_of", "leads_to_one_leaf"),
        ItemFilter: ("allowed_codes",),
        Search: ("_on_codes",),
    }
    with timed(questions) as constraints, timed({Engine: ("encode",)}) as encoding:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    return sum(constraints) / (seconds - sum(encoding))


def measure_exact(scorer: RecBaseScorer, catalog: ItemCatalog, options: EngineBenchmark) -> dict[str, Any]:
    """The exact search, against scoring all items one by one (measured on 64 of them), and beams against it."""
    rng = np.random.default_rng(options.seed)
    rows = rng.integers(0, len(catalog), HISTORY)
    history = [catalog.item_ids[row] for row in rows]
    batch = best_batch(scorer, catalog, rows, options)
    sample = rng.choice(len(catalog), 64, replace=False)
    forwards = seconds_of(partial(score_by_forwards, scorer, catalog, rows, sample, batch), 3)
    figures: dict[str, Any] = {
        "items": len(catalog),
        "one forward an item": [value * len(catalog) / len(sample) for value in forwards],
        "beam_recall": {},
    }
    for method in METHODS:
        exact = partial(scorer.recommend, history, TOP, catalog=catalog, method=method)
        figures[f"exact, {method}"] = seconds_of(exact, 1)
        best = {item.item_id for item in exact()}
        for beams in (20, 50, 200):
            found = scorer.recommend(history, TOP, catalog=catalog, method=method, search="beam", num_beams=beams)
            share = len(best & {item.item_id for item in found}) / TOP
            figures["beam_recall"][f"{beams} beams, {method}"] = share
    return figures


def measure_tries(seed: int) -> dict[str, Any]:
    """Building, saving and loading of the trie alone; the codes are not in the bytes."""
    figures: dict[str, Any] = {}
    for count in (1_000_000, 10_000_000):
        codes = np.random.default_rng(seed).integers(0, CODES, (count, LEVELS), dtype=np.int16)
        seconds = seconds_of(partial(build_trie, codes, CODES), 3)
        tracemalloc.start()
        trie = build_trie(codes, CODES)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        codes_hash = hash_of_codes(codes, CODES)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "trie.safetensors"
            save_trie(trie, path, codes_hash)
            load = partial(load_trie, path, codes_hash=codes_hash, num_items=count, num_levels=LEVELS)
            figures[str(count)] = {
                "build": seconds,
                "peak_bytes": peak,
                "bytes": path.stat().st_size,
                "load": seconds_of(load, 3),
            }
    return figures


def run(options: EngineBenchmark) -> Path:
    """Measure everything, write the receipt."""
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    scorer = make_scorer(options)
    catalogs = {count: make_catalog(scorer, count, options.seed) for count in options.items}
    middle = catalogs[sorted(catalogs)[len(catalogs) // 2]]
    figures = {
        "scoring": measure_scoring(scorer, middle, options),
        "recommending": {
            str(count): measure_recommending(scorer, catalog, options) for count, catalog in catalogs.items()
        },
        "exact": measure_exact(scorer, middle, options),
        "tries": measure_tries(options.seed),
    }
    settings = {"size": options.size, "device": options.device, "dtype": options.dtype, "threads": options.threads}
    shape = {"levels": LEVELS, "codes": CODES, "history_items": HISTORY, "users": USERS, "beams": BEAMS, "top": TOP}
    receipt = Path(options.receipts) / f"{options.size}-{options.device}.json"
    results = {"settings": settings, "shape": shape, "figures": figures}
    write_json(receipt, results | circumstances(shlex.join(sys.argv), time.perf_counter() - start))
    return receipt


# ---- the tables --------------------------------------------------------------------------------------------------


Comparison = tuple[str, str, list[float], list[float]]
"""The work, what it is compared with, and the seconds of both, ours last."""


def comparisons(figures: dict[str, Any]) -> Iterator[Comparison]:
    """The rows of the table."""
    scoring, exact = figures["scoring"], figures["exact"]
    for count, row in scoring["one_user"].items():
        for rival in ("one forward a candidate", "repeated cache"):
            for method in METHODS:
                yield f"{int(count):,} candidates, one user, {method}", rival, row[rival], row[f"engine, {method}"]
    for count, row in scoring["32_users"].items():
        for method in METHODS:
            work = f"{int(count):,} candidates, 32 users, {method}"
            yield work, "the engine, one user at a time", row[f"one by one, {method}"], row[f"together, {method}"]
    for count, row in figures["recommending"].items():
        for method in METHODS:
            work = f"top {TOP}, {USERS} users, {BEAMS} beams, {int(count):,} items, {method}"
            for trie in ("dictionary trie", f"tensor trie, {method}"):
                yield work, f"generate, {trie}", row[f"generate, {trie}"], row[f"engine, {method}"]
    for method in METHODS:
        work = f"exact search, {exact['items']:,} items, one user, {method}"
        yield work, "one forward an item", exact["one forward an item"], exact[f"exact, {method}"]


def print_tables(path: Path) -> None:
    """The ratios of one receipt."""
    receipt = read_json(path)
    figures, settings = receipt["figures"], receipt["settings"]
    print(f"## {settings['size']}, {settings['device']}, {settings['dtype']}\n")
    print("| work | against | ms | engine, ms | ratio |\n|---|---|---:|---:|---:|")
    for work, rival, slow, fast in comparisons(figures):
        slow_ms, fast_ms = 1000 * float(np.median(slow)), 1000 * float(np.median(fast))
        print(f"| {work} | {rival} | {slow_ms:,.0f} | {fast_ms:,.1f} | {slow_ms / fast_ms:,.1f}× |")
    print("\n| items | constraint work, joint | catalog | beams, ms, joint | catalog | trie, s | dictionaries, s |")
    print("|---:|" + "---:|" * 6)
    for count, row in figures["recommending"].items():
        shares = [f"{100 * row[f'constraint_share, {method}']:.1f} %" for method in METHODS]
        times = [f"{1000 * np.median(row[f'engine, {method}']):.0f}" for method in METHODS]
        builds = [f"{row[name]:.2f}" for name in ("tensor_trie_seconds", "dictionary_trie_seconds")]
        print(f"| {int(count):,} | " + " | ".join(shares + times + builds) + " |")
    print("\n| beam recall of the exact top 20 | |\n|---|---:|")
    for name, share in figures["exact"]["beam_recall"].items():
        print(f"| {name} | {share:.2f} |")
    print()

    print("| trie, items | build, s | peak, MiB | file, MiB | load, ms |\n|---:|---:|---:|---:|---:|")
    for count, row in figures["tries"].items():
        sizes = " | ".join(f"{row[name] / 2**20:,.0f}" for name in ("peak_bytes", "bytes"))
        print(f"| {int(count):,} | {np.median(row['build']):.2f} | {sizes} | {1000 * np.median(row['load']):.1f} |")
    print()


def main() -> None:
    """Run and print the tables."""
    options = parse_arguments(
        EngineBenchmark, None, program="benchmarks/engine.py", description=EngineBenchmark.__doc__ or ""
    )
    if not options.table:
        print_tables(run(options))
        return
    for path in sorted(Path(options.receipts).glob("*.json")):
        print_tables(path)


if __name__ == "__main__":
    main()
