"""Leave-one-domain-out: train and calibrate on all folders but one, rank on the one that nothing has seen.

    python benchmarks/zero_shot.py --data data/* --vectors minilm
    python benchmarks/zero_shot.py --table            # the table of README.md, from the receipts alone

Each folder is in the two-table form. One receipt a left-out folder; a finished one is not run again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from recbase_hf.commands.calibrate import Calibrate, calibrate
from recbase_hf.commands.evaluate import Evaluate, evaluate
from recbase_hf.commands.options import log_to_terminal
from recbase_hf.commands.pretrain import Pretrain, pretrain
from recbase_hf.commands.train_tokenizer import TrainTokenizer, train_tokenizer
from recbase_hf.config import option, parse_arguments
from recbase_hf.evaluation.receipts import read_receipt


@dataclass(frozen=True)
class ZeroShot:
    """Leave-one-domain-out evaluation of small models."""

    data: tuple[str, ...] = option((), help="folders in the two-table form")
    receipts: str = option("benchmarks/receipts/zero_shot/mirrors", help="folder of the receipts")
    vectors: str | None = option(None, help="name of vectors that lie beside the tables, instead of encoding")
    codebook_size: int = option(64, help="codes a level, four levels")
    steps_per_level: int = option(100, help="steps of tokenizer training, a level")
    size: str = option("tiny", help="size of the model")
    embeddings: str = option("geometry", help="where embeddings start", choices=("geometry", "random"))
    mirrors: int = option(64, help="mirror images of every catalog")
    mirrored_share: float = option(0.7, help="of the histories, written in their codes")
    passes: int = option(8, help="packings, each with other cuts and images")
    epochs: float = option(1.0, help="passes over the training rows")
    temperature: float = option(2.0, help="of mixing the data sets")
    batch_rows: int = option(4, help="rows of about 512 tokens a step")
    max_items: int = option(21, help="items a training window, the history of 20 and the next")
    calibration_users: int = option(300, help="users of each training set, for whom alpha and text weight are fitted")
    max_test_users: int = option(3000, help="users that are evaluated")
    left_out: tuple[str, ...] = option((), help="folders that are left out, in turn; default all")
    ladder: bool = option(False, help="also baselines that are fitted on the left-out set")
    seed: int = option(0, help="of everything")
    table: bool = option(False, help="only print the table of the receipts")


def main() -> None:
    """Run what is missing and print the table."""
    options = parse_arguments(ZeroShot, None, program="benchmarks/zero_shot.py", description=ZeroShot.__doc__ or "")
    log_to_terminal()
    if not options.table:
        if len(options.data) < 2:
            sys.exit("--data needs at least two folders: one is left out, the others are trained on")
        for left_out in options.left_out or options.data:
            run(options, left_out)
    print(render(Path(options.receipts)))


def run(options: ZeroShot, left_out: str) -> None:
    """Train on the others, evaluate on `left_out`, write its receipt."""
    from recbase_hf.training.launch import make_accelerator

    receipt = Path(options.receipts) / f"{Path(left_out).name}.json"
    if receipt.exists():
        read_receipt(receipt)
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
            embeddings=options.embeddings,
            mirrors=options.mirrors,
            mirrored_share=options.mirrored_share,
            passes=options.passes,
            epochs=options.epochs,
            temperature=options.temperature,
            batch_rows=options.batch_rows,
            max_items=options.max_items,
            evaluate_every=500,
            save_every=500,
        )
        folder = pretrain(model, accelerator)
        calibrate(
            Calibrate(
                model=str(folder),
                data=others,
                vectors=options.vectors,
                unordered_events="drop",
                max_users=options.calibration_users,
                seed=options.seed,
            )
        )
        evaluate(
            Evaluate(
                model=str(folder),
                data=left_out,
                output=str(receipt),
                vectors=options.vectors,
                unordered_events="drop",
                ladder=options.ladder,
                max_users=options.max_test_users,
                seed=options.seed,
            )
        )


def render(receipts: Path) -> str:
    """Markdown: GAUC, a row a ranker, a column a left-out data set; half the width of the widest interval below."""
    found = [read_receipt(path) for path in sorted(receipts.glob("*.json"))]
    if not found:
        sys.exit(f"no receipts in {receipts}; run the benchmark first")
    names = list(dict.fromkeys(row["name"] for receipt in found for row in receipt["rankers"]))
    figures = [{row["name"]: row["metrics"]["gauc"] for row in receipt["rankers"]} for receipt in found]
    table = np.array([[one[name]["value"] if name in one else np.nan for one in figures] for name in names])
    lines = ["| ranker | " + " | ".join(map(_title, found)) + " | mean |"]
    lines.append("|---|" + "---:|" * (len(found) + 1))
    for name, row in zip(names, table, strict=True):
        cells = [_cell(value, best) for value, best in zip(row, np.nanmax(table, axis=0), strict=True)]
        mean = "–" if np.isnan(row).any() else f"{row.mean():.3f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {mean} |")
    users = [f"{receipt['rankers'][0]['users']:,}" for receipt in found]
    lines.append(f"| users | {' | '.join(users)} | |")
    widest = max((part["high"] - part["low"]) / 2 for one in figures for part in one.values())
    lines += ["", f"95 % intervals over users are in the receipts; the widest is ± {widest:.3f}."]
    return "\n".join(lines)


def _title(receipt: dict[str, Any]) -> str:
    """The data set, and whether the model has learned from it."""
    known = (receipt["model"] or {}).get("was_trained_on_this_data")
    return receipt["dataset"]["name"] + (" (trained on)" if known else "")


def _cell(value: float, best: float) -> str:
    if np.isnan(value):
        return "–"
    return f"**{value:.3f}**" if value == best else f"{value:.3f}"


if __name__ == "__main__":
    main()
