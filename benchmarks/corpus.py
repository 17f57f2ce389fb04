"""Raw files to packed token shards at the size of a real corpus: seconds, peak memory and bytes of every stage.

    python benchmarks/corpus.py                                  # 35 million interactions, 15 million items; a tenth
    python benchmarks/corpus.py --kills 10 --interactions 3500000 --items 1500000        # kill -9 at random moments
    python benchmarks/corpus.py --table                          # the tables of the receipts

The corpus is generated in the published form of Amazon reviews (2023): gzipped JSON lines, user ids of 28 letters,
titles and descriptions of random words, popularity and activity with long tails. Vectors are generated too (half
precision, 384 numbers), since encoding 15 million texts is the text encoder's time and not that of the data path.
Every stage is a process of its own, whose peak resident memory the operating system tells.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbase_hf.config import option, parse_arguments
from recbase_hf.evaluation.receipts import circumstances
from recbase_hf.files import read_json, sha256_of_file, write_json

NAME = "amazon-2023-books"
CATEGORY = "Books"
WIDTH = 384
CHUNK = 1_000_000
WORDS = 4096
STAGES = ("prepare", "check", "tokenize and pack")


@dataclass(frozen=True)
class CorpusBenchmark:
    """The data path at size."""

    interactions: int = option(35_000_000, help="of the corpus")
    items: int = option(15_000_000, help="of the corpus")
    processes: int = option(2, help="that tokenize and pack")
    work: str = option("runs/corpus", help="folder for the corpus and what is made of it; about 1 GB a million items")
    receipts: str = option("benchmarks/receipts/corpus", help="folder of the receipts")
    kills: int = option(
        0, help="interrupt so many times with kill -9, then compare with a straight run, instead of timing"
    )
    seed: int = option(0, help="of the corpus")
    table: bool = option(False, help="only print the tables of the receipts")


def main() -> None:
    """Run and print."""
    options = parse_arguments(CorpusBenchmark, None, program="benchmarks/corpus.py", description=__doc__ or "")
    receipts, work = Path(options.receipts), Path(options.work)
    if not options.table:
        tokenizer = train_tokenizer(work, options.seed)
        sizes = [(options.interactions, options.items)]
        if not options.kills:
            sizes.insert(0, (options.interactions // 10, options.items // 10))
        for interactions, items in sizes:
            raw = generate(work / f"raw-{interactions}", interactions, items, options.seed)
            start = time.perf_counter()
            if options.kills:
                name, facts = f"kills-{interactions}", killed(raw, tokenizer, options)
            else:
                name, facts = f"time-{interactions}", timed(raw, tokenizer, options)
            facts = {"interactions": interactions, "items": items, "processes": options.processes, **facts}
            facts.update(circumstances(shlex.join(["python", *sys.argv]), time.perf_counter() - start))
            write_json(receipts / f"{name}.json", facts)
    print(render(receipts))


# ---- the corpus ------------------------------------------------------------------------------------------------------


def generate(raw: Path, interactions: int, items: int, seed: int) -> Path:
    """Raw files, and vectors for the tables that will be made of them."""
    if (raw / "ready").exists():
        return raw
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    rng = np.random.default_rng((seed, items))
    write_products(raw / f"meta_{CATEGORY}.jsonl.gz", items, rng)
    write_reviews(raw / f"{CATEGORY}.jsonl.gz", interactions, items, rng)
    write_vectors(raw, items, rng)
    (raw / "ready").touch()
    return raw


def write_products(path: Path, items: int, rng: np.random.Generator) -> None:
    """One product a line: title of six words, a store, two categories, a description of twelve words."""
    words = pa.array([f"word{number:04d}"[: rng.integers(4, 9)] + "aeiou"[number % 5] for number in range(WORDS)])
    with gzip.open(path, "wb", compresslevel=1) as file:
        for first in range(0, items, CHUNK):
            count = min(CHUNK, items - first)

            def text(length: int, count: int = count) -> pa.Array:
                columns = [words.take(pa.array(rng.integers(0, WORDS, count))) for _ in range(length)]
                return pc.binary_join_element_wise(*columns, " ")

            lines = pc.binary_join_element_wise(
                '{"main_category": "Books", "title": "', text(6), '", "store": "', text(1),
                '", "categories": ["Books", "', text(1), '"], "description": ["', text(12), '"], "parent_asin": "',
                item_ids(np.arange(first, first + count)), '"}\n', "",
            )  # fmt: skip
            write_lines(file, lines)


def write_reviews(path: Path, interactions: int, items: int, rng: np.random.Generator) -> None:
    """One review a line, in no order of users or times."""
    users = max(2, interactions // 6)
    with gzip.open(path, "wb", compresslevel=1) as file:
        for first in range(0, interactions, CHUNK):
            count = min(CHUNK, interactions - first)
            user = (users * rng.random(count) ** 2).astype(np.int64)  # some write much, most little
            item = (items * rng.random(count) ** 3).astype(np.int64)
            numbers = pa.array(user * 2_654_435_761 % 2**32)
            lines = pc.binary_join_element_wise(
                '{"rating": ', pc.cast(pa.array(rng.integers(2, 6, count).astype(float)), pa.string()),
                ', "title": "t", "text": "x", "parent_asin": "', item_ids(item), '", "user_id": "AE',
                pc.utf8_lpad(pc.cast(numbers, pa.string()), 26, "Q"), '", "timestamp": ',
                pc.cast(pa.array(rng.integers(1_300_000_000_000, 1_690_000_000_000, count)), pa.string()), "}\n", "",
            )  # fmt: skip
            write_lines(file, lines)


def write_vectors(raw: Path, items: int, rng: np.random.Generator) -> None:
    """Half-precision vectors around a thousand centers, as `minilm` vectors would lie beside the tables."""
    centers = rng.normal(size=(1000, WIDTH)).astype(np.float32)
    noise = rng.normal(size=(1 << 16, WIDTH)).astype(np.float32)
    vectors = np.lib.format.open_memmap(raw / "minilm_f16.npy", "w+", np.float16, (items, WIDTH))
    for first in range(0, items, 1 << 16):
        rows = slice(first, min(first + (1 << 16), items))
        count = rows.stop - rows.start
        moved = np.roll(noise, int(rng.integers(WIDTH)), axis=1)[:count]
        vectors[rows] = (centers[rng.integers(0, 1000, count)] + moved) / 20
    vectors.flush()
    schema = pa.schema({"item_id": pa.string()})
    with pq.ParquetWriter(raw / "minilm_ids.parquet", schema) as writer:
        for first in range(0, items, CHUNK):
            writer.write_table(pa.table([item_ids(np.arange(first, min(first + CHUNK, items)))], schema=schema))


def item_ids(numbers: np.ndarray) -> pa.Array:
    """Ten letters each, as ASINs have."""
    return pc.binary_join_element_wise("B0", pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), 8, "0"), "")


def write_lines(file: Any, lines: pa.Array) -> None:
    """Texts one after the other."""
    _, offsets, data = pc.cast(lines, pa.large_string()).buffers()
    file.write(memoryview(data)[: int(np.frombuffer(offsets, np.int64)[len(lines)])])


def train_tokenizer(work: Path, seed: int) -> Path:
    """A tokenizer of four levels of 1,024 codes, fitted on vectors of a small corpus of the same kind."""
    output = work / "tokenizer"
    if not (output / "tokenizer").exists():
        small = generate(work / "raw-small", 1_000, 50_000, seed)
        tables = work / "small"
        run(["prepare", NAME, "--raw", str(small), "--out", str(tables)], "data")
        link_vectors(small, tables)
        run(
            ["--data", str(tables), "--vectors", "minilm", "--output", str(output), "--max-steps-per-level", "20"],
            "train-tokenizer",
        )
    return output / "tokenizer"


# ---- the stages ------------------------------------------------------------------------------------------------------


def timed(raw: Path, tokenizer: Path, options: CorpusBenchmark) -> dict[str, Any]:
    """Each stage once, from nothing."""
    tables, shards = paths(raw, options)
    for folder in (tables, shards):
        shutil.rmtree(folder, ignore_errors=True)
    stages = {"prepare": measured(prepare_command(raw, tables))}
    link_vectors(raw, tables)
    stages["check"] = measured(command(["check", str(tables)], "data"))
    stages["tokenize and pack"] = measured(pack_command(tables, tokenizer, shards, options.processes))
    packed = read_json(shards / "shards.json")["domains"][tables.name]
    sizes = {
        "raw": size(raw) - size(raw, "minilm*"),
        "tables": size(tables) - size(tables, "minilm*"),
        "shards": size(shards),
    }
    sizes["vectors"] = size(raw, "minilm*")
    facts = {name: value for name, value in packed.items() if name != "files"}
    return {"stages": stages, "bytes": sizes, "packed": facts, "hash": hash_of(shards)}


def killed(raw: Path, tokenizer: Path, options: CorpusBenchmark) -> dict[str, Any]:
    """The same stages, killed at random moments of a straight run's time, until all of them have come through."""
    tables, shards = paths(raw, options)
    straight = timed(raw, tokenizer, options)
    seconds = {name: stage["seconds"] for name, stage in straight["stages"].items() if name != "check"}
    before = hashes_of(tables)
    for folder in (tables, shards):
        shutil.rmtree(folder)
    moments = random.Random(options.seed)
    events = []
    stages = {
        "prepare": prepare_command(raw, tables),
        "tokenize and pack": pack_command(tables, tokenizer, shards, options.processes),
    }
    for number in range(options.kills):
        stage = "prepare" if number < options.kills * 2 // 5 else "tokenize and pack"
        finished = (tables / "dataset.json").exists()
        if stage == "prepare" and finished:
            shutil.rmtree(tables)  # likewise
        if stage == "tokenize and pack" and not finished:
            subprocess.run(stages["prepare"], check=True, env=environment())
        if stage == "tokenize and pack" and not (tables / "minilm_f16.npy").exists():
            link_vectors(raw, tables)
        after = moments.uniform(0.02, 0.9) * seconds[stage]
        hit = kill_after(stages[stage], after)
        events.append({"stage": stage, "after_seconds": round(after, 2), "killed": hit})
        if (tables / "dataset.json").exists() and hashes_of(tables) != before:
            sys.exit(f"killed in {stage}, and the tables look finished")
        if (shards / "shards.json").exists():
            if hash_of(shards) != straight["hash"]:
                sys.exit(f"killed in {stage}, and the shards look finished")
            shutil.rmtree(shards)  # it came through; the next kill is to meet it at work
    subprocess.run(stages["tokenize and pack"], check=True, env=environment())
    return {
        "kills": events,
        "tables_are_the_same": hashes_of(tables) == before,
        "shards_are_the_same": hash_of(shards) == straight["hash"],
        "hash": straight["hash"],
    }


def kill_after(arguments: list[str], seconds: float) -> bool:
    """Start a command and kill it with all its processes; whether it was still running."""
    process = psutil.Popen(arguments, env=environment())
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        # The launcher gives its workers sessions of their own, so that no signal to a group reaches them.
        family = [*process.children(recursive=True), process]
        for member in family:
            member.kill()
        psutil.wait_procs(family)
        return True
    return False


def measured(arguments: list[str]) -> dict[str, float]:
    """Seconds of a command, and the largest resident memory of any of its processes, in GiB."""
    start = time.perf_counter()
    watched = ["-c", _WATCHER, *arguments]
    done = subprocess.run([sys.executable, *watched], check=True, capture_output=True, text=True, env=environment())
    peak_kib = int(done.stdout.rsplit("\n", 2)[-2].split()[-1])
    return {"seconds": round(time.perf_counter() - start, 1), "peak_gib_of_a_process": round(peak_kib / 2**20, 2)}


_WATCHER = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def paths(raw: Path, options: CorpusBenchmark) -> tuple[Path, Path]:
    """Folders of the tables and of the shards."""
    return Path(options.work) / f"books-{raw.name}", Path(options.work) / f"shards-{raw.name}"


def prepare_command(raw: Path, tables: Path) -> list[str]:
    """Raw files to tables."""
    return command(["prepare", NAME, "--raw", str(raw), "--out", str(tables)], "data")


def pack_command(tables: Path, tokenizer: Path, shards: Path, processes: int) -> list[str]:
    """Tables to shards, on several processes."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--num_processes", str(processes), "--multi_gpu" if processes > 1 else "--cpu"]
    flags = ["--data", str(tables), "--tokenizer", str(tokenizer), "--vectors", "minilm", "--output", str(shards)]
    return [*launch, "-m", "recbase_hf", "data", "pack", *flags]


def command(arguments: Sequence[str], name: str) -> list[str]:
    """A command of the library."""
    return [sys.executable, "-m", "recbase_hf", name, *arguments]


def run(arguments: Sequence[str], name: str) -> None:
    """Run a command."""
    subprocess.run(command(arguments, name), check=True, env=environment())


def environment() -> dict[str, str]:
    """One thread a process where there are several."""
    return {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def link_vectors(raw: Path, tables: Path) -> None:
    """Vectors beside the tables."""
    for name in ("minilm_f16.npy", "minilm_ids.parquet"):
        os.link(raw / name, tables / name)


def size(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def hashes_of(tables: Path) -> dict[str, str]:
    """Of the tables that were prepared."""
    return {path.name: sha256_of_file(path) for path in tables.glob("*.parquet") if "minilm" not in path.name}


def hash_of(shards: Path) -> str:
    """Of a folder of shards, less what a killed run leaves for the next one to drop."""
    digest = hashlib.sha256()
    for path in sorted([*shards.rglob("*.arrow"), shards / "shards.json"]):
        if "_work" not in path.parts:
            digest.update(f"{path.relative_to(shards).as_posix()} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()[:16]


# ---- tables ----------------------------------------------------------------------------------------------------------


def render(receipts: Path) -> str:
    """Markdown."""
    runs = sorted((read_json(path) for path in receipts.glob("time-*.json")), key=lambda run: run["interactions"])
    lines = ["| interactions | items | stage | seconds | peak memory of a process (GiB) |", "|---:|---:|---|---:|---:|"]
    for one in runs:
        for stage in STAGES:
            facts = one["stages"][stage]
            lines.append(
                f"| {one['interactions']:,} | {one['items']:,} | {stage} | {facts['seconds']:.0f} "
                f"| {facts['peak_gib_of_a_process']:.2f} |"
            )
    for one in runs:
        sizes = ", ".join(f"{name} {count / 1e9:.2f} GB" for name, count in one["bytes"].items())
        lines += ["", f"{one['interactions']:,} interactions: {sizes}; {one['packed']['tokens']:,} tokens."]
    for path in sorted(receipts.glob("kills-*.json")):
        one = read_json(path)
        hit = sum(event["killed"] for event in one["kills"])
        same = one["tables_are_the_same"] and one["shards_are_the_same"]
        lines += [
            "",
            f"{one['interactions']:,} interactions, kill -9 at {hit} random moments: the tables and shards are "
            f"{'the same, byte for byte' if same else 'NOT the same'}.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
