"""`recbase demo-train`: the whole loop on data that every machine has, from item texts to zero-shot scores.

The model learns how installed Python packages use each other and is then shown the standard library: other items, other
users, nothing of it seen by tokenizer or model.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option
from recbase_hf.files import read_json

__all__ = ["COMMAND", "DemoTrain", "demo_train"]

logger = logging.getLogger(__name__)

# Some six thousand items cannot fill 1024 codes a level; few codes are shared by many items, so that the model sees
# each often enough to learn what it means.
TOKENIZER_FLAGS = ("--codebook-size", "64", "--max-steps-per-level", "100", "--evaluate-every", "25")
PRETRAIN_FLAGS = ("--size", "tiny", "--epochs", "4", "--evaluate-every", "60")


@dataclass(frozen=True)
class DemoTrain:
    """Train on one domain, score another that neither tokenizer nor model has seen, and show recommendations."""

    data: str = option("python-api/stdlib", help="the unseen domain: a folder with items.* and interactions.*")
    output: str = option("runs/demo-train", help="folder for everything that is made")
    k: int = option(10, help="recommendations to show")
    seed: int = option(0, help="of the training")


def demo_train(options: DemoTrain) -> Answer:
    """Run the stages; each reuses what an earlier run left in the output folder."""
    output = Path(options.output)
    os.environ["RECBASE_CACHE"] = str(output.resolve())
    from recbase_hf.commands.evaluate import Evaluate, evaluate, load_evaluation
    from recbase_hf.commands.options import resolve_folder
    from recbase_hf.evaluation.receipt_table import render_table

    logger.info("1/5 data: what installed packages use of each other, and the unseen domain %s", options.data)
    resolve_folder("python-api/packages")
    unseen = resolve_folder(options.data)

    logger.info("2/5 tokenizer: texts to vectors, vectors to semantic IDs")
    seed = ("--seed", str(options.seed))
    _launch("train-tokenizer", output, output / "tokenizer", (*TOKENIZER_FLAGS, *seed))
    logger.info("3/5 language model: next-token prediction on histories of semantic IDs")
    _launch("pretrain", output, output / "model", (*PRETRAIN_FLAGS, *seed))

    logger.info("4/5 zero-shot: catalog of the unseen domain, chosen against not-chosen items")
    evaluated = Evaluate(
        model=str(output / "model"),
        data=str(unseen),
        output=str(output / "results" / f"{unseen.resolve().name}.json"),
        vectors="minilm" if (unseen / "minilm_f16.npy").exists() else None,
        unordered_events="drop",
    )
    evaluation = load_evaluation(evaluated)
    scorer, catalog, task = evaluation.scorer, evaluation.catalog, evaluation.task
    assert scorer is not None  # a model was named
    assert catalog is not None
    receipt = evaluate(evaluated, evaluation=evaluation)
    catalog.save_pretrained(output / "catalog" / unseen.resolve().name)

    logger.info("5/5 recommendations for one user")
    lengths = [len(history) for history in task.histories]
    user = next((user for user, length in enumerate(lengths) if length >= 5), int(np.argmax(lengths)))
    history = task.histories[user]
    k = min(options.k, len(catalog) - len(set(history.tolist())))
    found = scorer.recommend([catalog.item_ids[row] for row in history], k, catalog=catalog)
    lines = [
        f"\n{render_table(receipt)}\n",
        f"history of {task.users[user]} (oldest first):",
        *(f"  {catalog.titles[row]}" for row in history),
        f"top {k} of {len(catalog):,} items (natural-log probability):",
        *(f"  {item.score:8.3f}  {item.title}" for item in found),
        f"\neverything is in {output}",
    ]
    return Answer("\n".join(lines), {"output": str(output), "receipt": receipt})


def _launch(name: str, output: Path, made: Path, flags: tuple[str, ...]) -> None:
    """Run a training command under `accelerate launch`, unless its result is there.

    Raises:
        ChildProcessError: it did not end well.
        ValueError: the result was made with another seed.
    """
    record = made / "training.json"
    if record.exists():
        seed = read_json(record)["settings"]["seed"]
        if str(seed) != flags[flags.index("--seed") + 1]:
            raise ValueError(f"{made} was made with seed {seed}; choose another --output, or delete {output}")
        logger.info("    reusing %s", made)
        return
    import torch

    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--num_processes", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    if not torch.accelerator.is_available():
        command += ["--cpu", "--num_cpu_threads_per_process", str(os.cpu_count() or 1)]
    arguments = [name, "--output", str(output), *flags]
    command += ["-m", "recbase_hf", *arguments]
    logger.info("    %s", shlex.join(["accelerate", "launch", "-m", "recbase_hf", *arguments]))
    # Standard output is for the answer alone, which may be JSON.
    status = subprocess.run(command, check=False, stdout=sys.stderr).returncode
    if status:
        raise ChildProcessError(
            f"{name} ended with status {status}; run the demo again to go on from its last checkpoint"
        )


COMMAND = Command("demo-train", DemoTrain, demo_train)
