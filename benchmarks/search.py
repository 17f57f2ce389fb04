"""The exact search and beams on a trained model: time, how much of the catalog is looked at, what beams miss.

    python benchmarks/search.py --model runs/mine/model --data my-shop
    python benchmarks/search.py --table                 # the table of all receipts

The data set is a folder in the two-table form; searched is for the next item of its users. One receipt a data set.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from recbase_hf import ItemCatalog, ItemTemplate, RecBaseScorer
from recbase_hf.config import option, parse_arguments
from recbase_hf.data.domain import ItemVectors, load_domain
from recbase_hf.evaluation.intervals import bootstrap_interval
from recbase_hf.evaluation.protocols import leave_last_out
from recbase_hf.evaluation.receipts import circumstances
from recbase_hf.files import read_json, write_json
from recbase_hf.scoring.walk import Walker

TOP = 20
METHODS = ("joint", "catalog")
BEAMS = (20, 50, 200)


@dataclass(frozen=True)
class SearchBenchmark:
    """Exact search and beams."""

    model: str | None = option(None, help="bundle: a folder or a Hub id")
    data: str | None = option(None, help="folder in the two-table form")
    vectors: str | None = option(None, help="name of vectors that lie beside the tables, instead of encoding")
    users: int = option(100, help="who are searched for")
    receipts: str = option("benchmarks/receipts/search", help="folder of the receipts")
    seed: int = option(0, help="which users")
    table: bool = option(False, help="only print the table of the receipts")


def measure(options: SearchBenchmark) -> dict[str, Any]:
    """All figures of a model and a data set."""
    scorer = RecBaseScorer.from_pretrained(str(options.model))
    tokenizer = scorer.tokenizer
    template = ItemTemplate.from_dict(tokenizer.item_template or {})
    vectors = ItemVectors(tokenizer.text_encoder_name, template=template, precomputed=options.vectors)
    domain = load_domain(str(options.data), vectors, unordered_events="drop", seed=options.seed)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=tokenizer, vectors=domain.vectors)
    users = leave_last_out(domain.histories, len(catalog), max_users=options.users, seed=options.seed)
    histories = [[catalog.item_ids[row] for row in rows] for rows in users.histories]
    methods = {method: measure_method(scorer, catalog, histories, method) for method in METHODS}
    prefixes = sum(catalog.trie.num_nodes(depth) for depth in range(1, catalog.trie.num_levels))
    return {"items": len(catalog), "prefixes": prefixes, "users": len(histories), "methods": methods}


def measure_method(scorer: RecBaseScorer, catalog: ItemCatalog, histories: Any, method: str) -> dict[str, Any]:
    """Seconds for all users, prefixes that went through the model, and the share of the exact top that beams find."""
    exact = partial(scorer.recommend, histories, TOP, catalog=catalog, method=method)
    nodes, best = nodes_of(exact), ids_of(exact)
    row: dict[str, Any] = {"seconds": seconds_of(exact), "nodes_a_user": nodes / len(histories), "beams": {}}
    for beams in BEAMS:
        search = partial(exact, search="beam", num_beams=beams)
        recall = np.array([len(mine & theirs) / TOP for mine, theirs in zip(best, ids_of(search), strict=True)])
        row["beams"][str(beams)] = {
            "seconds": seconds_of(search),
            "recall": float(recall.mean()),
            "recall_interval": bootstrap_interval(recall),
        }
    return row


def ids_of(search: Callable[[], Any]) -> list[set[str]]:
    """The items found, a user."""
    return [{item.item_id for item in items} for items in search()]


def seconds_of(search: Callable[[], Any]) -> float:
    """Wall time of a second run."""
    start = time.perf_counter()
    search()
    return time.perf_counter() - start


def nodes_of(search: Callable[[], Any]) -> int:
    """How many prefixes go through the model."""
    counts: list[int] = []
    descend = Walker.descend

    def counting(self: Walker, *arguments: Any) -> Any:
        counts.append(len(arguments[-1]))
        return descend(self, *arguments)

    with patch.object(Walker, "descend", counting):
        search()
    return sum(counts)


def print_table(receipt: dict[str, Any]) -> None:
    """One data set."""
    figures = receipt["figures"]
    items, users, prefixes = (f"{figures[name]:,}" for name in ("items", "users", "prefixes"))
    print(f"## {receipt['data']}: {items} items with {prefixes} prefixes, {users} users, top {TOP}\n")
    print("| search | ms a user | prefixes computed | recall of the exact top |\n|---|---:|---:|---:|")
    for method, row in figures["methods"].items():
        print(f"| exact, {method} | {1000 * row['seconds'] / figures['users']:,.1f} | {row['nodes_a_user']:,.0f} | 1 |")
        for beams, part in row["beams"].items():
            low, high = part["recall_interval"]
            cells = f"{1000 * part['seconds'] / figures['users']:,.1f} | | {part['recall']:.3f} [{low:.3f}, {high:.3f}]"
            print(f"| {beams} beams, {method} | {cells} |")
    print()


def main() -> None:
    """Run and print the table."""
    options = parse_arguments(
        SearchBenchmark, None, program="benchmarks/search.py", description=SearchBenchmark.__doc__ or ""
    )
    if not options.table:
        if options.model is None or options.data is None:
            sys.exit("give --model and --data")
        start = time.perf_counter()
        name = Path(options.data).name
        results = {"data": name, "figures": measure(options)}
        results |= circumstances(shlex.join(sys.argv), time.perf_counter() - start)
        write_json(Path(options.receipts) / f"{name}.json", results)
    for path in sorted(Path(options.receipts).glob("*.json")):
        print_table(read_json(path))


if __name__ == "__main__":
    main()
