"""Speed and memory of pretraining: packed rows against the stock Trainer with padded batches, on real histories.

    python benchmarks/pretrain.py --data data/*/ --vectors minilm            # the model of `--size mini`, 2 threads
    python benchmarks/pretrain.py --table                                    # the tables of all receipts

Both train the same model on the same histories with about as many token positions a batch, and are judged by useful
tokens, those that are to be predicted. One receipt a size and device.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from recbase_hf import RecBaseTokenizer
from recbase_hf.commands.options import vectors_for
from recbase_hf.commands.train_tokenizer import TrainTokenizer, train_tokenizer
from recbase_hf.config import option, parse_arguments
from recbase_hf.evaluation.receipts import circumstances
from recbase_hf.files import read_json, write_json
from recbase_hf.language_model import new_language_model, qwen2_config
from recbase_hf.shards.pack import Packing, pack_domains
from recbase_hf.shards.packing import IGNORED
from recbase_hf.shards.token_shards import TokenShards
from recbase_hf.training.flops import model_flops_utilization, peak_flops, training_flops_per_token
from recbase_hf.training.loss import chunked_cross_entropy
from recbase_hf.training.pretrain import Pretraining, train_language_model
from recbase_hf.training.rows import RowReader, micro_batches

VOCABULARY, TARGETS = 4160, 4096


@dataclass(frozen=True)
class PretrainBenchmark:
    """Speed and memory of pretraining."""

    data: tuple[str, ...] = option((), help="folders in the two-table form")
    vectors: str | None = option("minilm", help="name of vectors that lie beside the tables")
    size: str = option("mini", help="of the model")
    max_items: int = option(100, help="items a window")
    batch_rows: int = option(4, help="packed rows a step")
    steps: int = option(12, help="that are timed, after two to warm up")
    mixed_precision: str = option("no", help="of the training")
    threads: int = option(2, help="of torch, on a CPU")
    receipts: str = option("benchmarks/receipts/pretrain", help="folder of the receipts")
    table: bool = option(False, help="only print the tables of the receipts")


def main() -> None:
    """Measure and print."""
    options = parse_arguments(PretrainBenchmark, None, program="benchmarks/pretrain.py", description=__doc__ or "")
    if not options.table:
        if not options.data:
            sys.exit("--data needs a folder")
        start = time.perf_counter()
        facts = measure(options)
        facts.update(circumstances(shlex.join(["python", *sys.argv]), time.perf_counter() - start))
        write_json(Path(options.receipts) / f"{options.size}-{facts['device']}.json", facts)
    for path in sorted(Path(options.receipts).glob("*.json")):
        print(render(read_json(path)))


def measure(options: PretrainBenchmark) -> dict[str, Any]:
    """All figures of a size, on this machine."""
    from recbase_hf.training.launch import make_accelerator

    torch.set_num_threads(options.threads)
    accelerator = make_accelerator(mixed_precision=options.mixed_precision)
    with TemporaryDirectory() as work:
        data = {"data": options.data, "vectors": options.vectors, "output": work}
        train_tokenizer(TrainTokenizer(**data, max_steps_per_level=20), accelerator)
        tokenizer = RecBaseTokenizer.from_pretrained(Path(work) / "tokenizer")
        source = vectors_for(tokenizer, options.vectors, trust_remote_code=False)
        packing = Packing(max_items=options.max_items, unordered_events="drop")
        shards = pack_domains(options.data, tokenizer, source, Path(work) / "shards", packing)
        config = qwen2_config(options.size, shards.layout, max_items=options.max_items)
        packed = packed_speed(shards, config, options, accelerator, Path(work) / "training")
        row_length = shards.facts["settings"]["packing"]["row_length"]
        padded = padded_speed(shards, config, options, Path(work) / "trainer", options.batch_rows * row_length)
        document = packed["tokens_a_window"]
        flops = training_flops_per_token(config, document)
        device = accelerator.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        return {
            "size": options.size,
            "device": "cpu" if device.type == "cpu" else name.replace(" ", "-"),
            "threads": options.threads if device.type == "cpu" else None,
            "mixed_precision": options.mixed_precision,
            "row_length": row_length,
            "batch_rows": options.batch_rows,
            "packed": packed,
            "padded": padded,
            "speedup": packed["useful_tokens_per_second"] / padded["useful_tokens_per_second"],
            "data_path": data_path_speed(shards, options, accelerator, packed["useful_tokens_per_second"]),
            "loss_memory": loss_memory(),
            "model_tflops": packed["tokens_per_second"] * flops / 1e12,
            "mfu": model_flops_utilization(
                config, tokens_per_second=packed["tokens_per_second"], document_length=document, peak=peak_flops(name)
            ),
        }


def packed_speed(
    shards: TokenShards, config: Any, options: PretrainBenchmark, accelerator: Any, folder: Path
) -> dict[str, float]:
    """Of our trainer, from the difference of a longer and a shorter run, so that start and end do not count."""
    seconds = []
    rows = options.batch_rows
    for steps in (2, 2 + options.steps):
        training = Pretraining(
            epochs=steps * rows / len(shards.train), batch_rows=rows, evaluate_every=10**9, save_every=10**9
        )
        model = new_language_model(config, seed=0)
        start = time.perf_counter()
        empty = type(shards.validation)([], {}, shards.layout, "")
        train_language_model(
            model, shards.train, empty, training, accelerator=accelerator, folder=folder / f"steps-{steps}"
        )
        seconds.append(time.perf_counter() - start)
    batches = micro_batches_of(shards, options, accelerator, 2 + options.steps)[2:]
    sizes = torch.stack([batch.sizes for batch in batches]).sum(dim=0)
    useful = sum(len(batch.targets) for batch in batches)
    spent = seconds[1] - seconds[0]
    files = [
        file for domain in shards.facts["domains"].values() for file in domain["files"] if "train-" in file["name"]
    ]
    row_length = shards.facts["settings"]["packing"]["row_length"]
    return {
        "useful_tokens_per_second": useful / spent,
        "tokens_per_second": float(sizes[0]) / spent,
        "tokens_a_window": float(sizes[0] / sizes[1]),
        "efficiency": sum(file["tokens"] for file in files) / (sum(file["rows"] for file in files) * row_length),
    }


def padded_speed(
    shards: TokenShards, config: Any, options: PretrainBenchmark, folder: Path, positions: int
) -> dict[str, float]:
    """Of transformers' Trainer on the same windows, each padded to the longest of its batch."""
    from torch.nn.utils.rnn import pad_sequence
    from transformers import Trainer, TrainingArguments

    windows = windows_of(shards, count=20_000)
    longest = max(map(len, windows))
    batch_size = max(1, positions // longest)

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = [window["input_ids"] for window in batch]
        labels = [torch.cat([torch.tensor([IGNORED]), one[1:]]) for one in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence([torch.ones_like(one) for one in ids], batch_first=True),
        }

    steps = options.steps * max(1, round(positions / (batch_size * np.mean([len(one) for one in windows]))))
    seconds, useful = [], []
    for count in (2, 2 + steps):
        seen = [0]

        def counting(batch: list[dict[str, torch.Tensor]], seen: list[int] = seen) -> dict[str, torch.Tensor]:
            made = collate(batch)
            seen[0] += int((made["labels"] != IGNORED).sum())
            return made

        arguments = TrainingArguments(
            output_dir=str(folder / str(count)),
            max_steps=count,
            per_device_train_batch_size=batch_size,
            use_cpu=not torch.accelerator.is_available(),
            bf16=options.mixed_precision == "bf16",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        dataset = [{"input_ids": torch.from_numpy(window.astype(np.int64))} for window in windows]
        trainer = Trainer(new_language_model(config, seed=0), arguments, data_collator=counting, train_dataset=dataset)
        start = time.perf_counter()
        trainer.train()
        seconds.append(time.perf_counter() - start)
        useful.append(seen[0])
    return {
        "useful_tokens_per_second": (useful[1] - useful[0]) / (seconds[1] - seconds[0]),
        "windows_a_batch": batch_size,
        "mean_window": float(np.mean([len(one) for one in windows])),
        "longest_window": longest,
    }


def windows_of(shards: TokenShards, count: int) -> list[np.ndarray]:
    """Some windows of the training rows, drawn at random from rows of all domains."""
    windows: list[np.ndarray] = []
    for row in np.random.default_rng(0).permutation(len(shards.train)):
        ids = shards.train[int(row)]
        starts = np.flatnonzero(ids == shards.layout.bos).tolist()
        end = int((ids != shards.layout.pad).sum())
        windows += [ids[start:stop] for start, stop in zip(starts, [*starts[1:], end], strict=True)]
        if len(windows) >= count:
            break
    order = np.random.default_rng(1).permutation(len(windows))
    return [windows[place] for place in order]


def micro_batches_of(shards: TokenShards, options: PretrainBenchmark, accelerator: Any, count: int) -> list[Any]:
    """The first batches that training reads."""
    training = Pretraining(batch_rows=options.batch_rows)
    return list(micro_batches(RowReader(shards.train), training, accelerator, start=0, stop=count))


def data_path_speed(
    shards: TokenShards, options: PretrainBenchmark, accelerator: Any, consumed: float
) -> dict[str, float]:
    """Reading batches alone."""
    start = time.perf_counter()
    batches = micro_batches_of(shards, options, accelerator, 200)
    speed = sum(len(batch.targets) for batch in batches) / (time.perf_counter() - start)
    return {"useful_tokens_per_second": speed, "times_what_training_consumes": speed / consumed}


def loss_memory() -> dict[str, float]:
    """Largest sum of allocations in forward and backward of the loss alone, chunked and not, in MB."""
    peaks = {chunk: peak_of_loss(chunk) for chunk in (1024, TARGETS)}
    return {"chunked_mb": peaks[1024], "unchunked_mb": peaks[TARGETS], "ratio": peaks[1024] / peaks[TARGETS]}


def peak_of_loss(chunk: int) -> float:
    """MB, by the profiler's record of every allocation."""
    width = 256
    torch.manual_seed(0)
    head = torch.nn.Linear(width, VOCABULARY, bias=False)
    hidden = torch.randn(TARGETS, width, requires_grad=True)
    targets = torch.randint(VOCABULARY, (TARGETS,))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        chunked_cross_entropy(hidden, targets, head, chunk=chunk).sum().backward()
    total = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return peak / 1e6


def render(receipt: dict[str, Any]) -> str:
    """Markdown."""
    packed, padded, data, loss = (receipt[name] for name in ("packed", "padded", "data_path", "loss_memory"))
    mfu = "not measured" if receipt["mfu"] is None else f"{receipt['mfu']:.1%}"
    where = receipt["device"] if receipt["threads"] is None else f"{receipt['threads']} threads"
    return "\n".join(
        [
            f"| `{receipt['size']}`, {where} | packed | stock Trainer, padded | ratio |",
            "|---|---:|---:|---:|",
            f"| useful tokens a second | {packed['useful_tokens_per_second']:,.0f} "
            f"| {padded['useful_tokens_per_second']:,.0f} | {receipt['speedup']:.2f} |",
            f"| share of positions that hold a token | {packed['efficiency']:.1%} | | |",
            f"| data path alone, useful tokens a second | {data['useful_tokens_per_second']:,.0f} | "
            f"| {data['times_what_training_consumes']:.0f} x what training takes |",
            f"| memory of the loss, {TARGETS:,} targets, vocabulary {VOCABULARY:,} | {loss['chunked_mb']:.0f} MB "
            f"| {loss['unchunked_mb']:.0f} MB unchunked | {loss['ratio']:.2f} |",
            f"| MFU | {mfu} | | |",
        ]
    )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
