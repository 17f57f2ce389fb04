"""Leave-one-domain-out: train tokenizer and model on all folders but one, rank on the one that neither has seen.

    python benchmarks/zero_shot.py --data data/* --vectors minilm
    python benchmarks/zero_shot.py --table            # the table of README.md, from the receipts alone

Each folder is in the two-table form. One receipt a left-out folder; a finished one is not run again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from recbase_hf.commands.evaluate import Evaluate, evaluate
from recbase_hf.commands.options import log_to_terminal
from recbase_hf.commands.pretrain import Pretrain, pretrain
from recbase_hf.commands.train_tokenizer import TrainTokenizer, train_tokenizer
from recbase_hf.config import option, parse_arguments
from recbase_hf.evaluation.results import read_results


@dataclass(frozen=True)
class ZeroShot:
    """Leave-one-domain-out evaluation of small models."""

    data: tuple[str, ...] = option((), help="folders in the two-table form")
    receipts: str = option("benchmarks/receipts/zero_shot", help="folder of the receipts")
    vectors: str | None = option(None, help="name of vectors that lie beside the tables, instead of encoding")
    codebook_size: int = option(64, help="codes a level, four levels")
    steps_per_level: int = option(100, help="steps of tokenizer training, a level")
    size: str = option("tiny", help="size of the model")
    epochs: float = option(1.0, help="passes over the training rows")
    max_users: int = option(1500, help="training users of each data set")
    max_items: int = option(50, help="items a training window")
    max_test_users: int = option(3000, help="users that are evaluated")
    seed: int = option(0, help="of everything")
    table: bool = option(False, help="only print the table of the receipts")


def main() -> None:
    """Run what is missing and print the table."""
    options = parse_arguments(ZeroShot, None, program="benchmarks/zero_shot.py", description=ZeroShot.__doc__ or "")
    log_to_terminal()
    if not options.table:
        if len(options.data) < 2:
            sys.exit("--data needs at least two folders: one is left out, the others are trained on")
        for left_out in options.data:
            run(options, left_out)
    print(render(Path(options.receipts)))


def run(options: ZeroShot, left_out: str) -> None:
    """Train on the others, evaluate on `left_out`, write its receipt."""
    from recbase_hf.training.launch import make_accelerator

    receipt = Path(options.receipts) / f"{Path(left_out).name}.json"
    if receipt.exists():
        before = read_results(receipt)["model"]["training"]
        differing = [
            name
            for name in ("size", "epochs", "max_users", "max_items", "seed")
            if before[name] != getattr(options, name)
        ]
        if differing:
            sys.exit(
                f"{receipt} was made with other settings ({', '.join(differing)}); name another folder for --receipts"
            )
        return
    others = tuple(folder for folder in options.data if folder != left_out)
    data = {"data": others, "vectors": options.vectors, "seed": options.seed}
    accelerator = make_accelerator()
    with TemporaryDirectory() as work:
        tokenizer = TrainTokenizer(
            **data,
            output=work,
            codebook_size=options.codebook_size,
            max_steps_per_level=options.steps_per_level,
        )
        train_tokenizer(tokenizer, accelerator)
        model = Pretrain(
            **data,
            unordered_events="drop",
            output=work,
            size=options.size,
            epochs=options.epochs,
            max_users=options.max_users,
            max_items=options.max_items,
        )
        folder = pretrain(model, accelerator)
        evaluate(
            Evaluate(
                model=str(folder),
                data=left_out,
                output=str(receipt),
                vectors=options.vectors,
                unordered_events="drop",
                max_users=options.max_test_users,
                seed=options.seed,
            )
        )


def render(receipts: Path) -> str:
    """Markdown: GAUC with its interval, a row a left-out data set, and the means."""
    results = [read_results(path) for path in sorted(receipts.glob("*.json"))]
    if not results:
        sys.exit(f"no receipts in {receipts}; run the benchmark first")
    names = [figures["name"] for figures in results[0]["figures"]]
    lines = ["| left out | users | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    table = np.array([[figures["gauc"] for figures in result["figures"]] for result in results])
    for result, row in zip(results, table, strict=True):
        cells = []
        for figures, value in zip(result["figures"], row, strict=True):
            low, high = figures["gauc_interval"]
            best = "**" if value == row.max() else ""
            cells.append(f"{best}{value:.3f}{best} [{low:.3f}, {high:.3f}]")
        lines.append(
            f"| {result['dataset']['name']} | {result['figures'][0]['scored_users']:,} | " + " | ".join(cells) + " |"
        )
    lines.append("| mean | | " + " | ".join(f"{value:.3f}" for value in table.mean(axis=0)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
