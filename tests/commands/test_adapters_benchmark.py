"""The benchmark of the adapters finds tables equal that went through published files, and tells of what went lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "adapters.py"
ORDERS = [(f"user {user}", place) for user in range(3) for place in range(4)]


def data_set(folder: Path, items: list[dict[str, Any]], **columns: Any) -> str:
    folder.mkdir()
    ids = [row["item_id"] for row in items]
    rows = [
        {"user_id": user, "item_id": ids[(place * place) % len(ids)], "order": place}
        | {name: value(place) for name, value in columns.items()}
        for user, place in ORDERS
    ]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    pq.write_table(pa.Table.from_pylist(rows), folder / "interactions.parquet")
    return str(folder)


def films(folder: Path) -> str:
    items = [
        {
            "title": "Misérables, Les (1995)",
            "title_no_year": "Misérables, Les",
            "year": 1995,
            "genres": ["Drama", "War"],
        },
        {"title": "unknown", "title_no_year": "unknown", "year": None, "genres": ["unknown"]},
    ]
    rows = [row | {"item_id": str(place), "release_date": "01-Jan-1995"} for place, row in enumerate(items)]
    return data_set(
        folder,
        rows,
        rating=lambda place: 3.0 + place % 2,
        label=lambda place: place % 2,
        timestamp=lambda place: 880_000_000 + place // 3,
    )


def clothes(folder: Path) -> str:
    names = ["title", "product_type", "product_group", "graphical_appearance", "colour_group"]
    names += ["department", "index", "section", "garment_group"]
    texts = dict.fromkeys(names, 'Under-, "Nightwear"')
    items = [texts | {"item_id": f"010877501{place}", "description": None if place else "a\nb"} for place in range(3)]
    return data_set(folder, items, timestamp=lambda _: 1_600_560_000, price=lambda _: 0.05, sales_channel=lambda _: 2)


def products(folder: Path, *titles: str) -> str:
    return data_set(folder, [{"item_id": f"B{place}", "title": title} for place, title in enumerate(titles)])


def run(*arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_goes_through_published_files_is_equal_or_told(tmp_path: Path) -> None:
    folders = [
        films(tmp_path / "films"),
        clothes(tmp_path / "clothes"),
        products(tmp_path / "shop-games", "Chess & Go", "\u00c9checs <3"),
        products(tmp_path / "shop", "two  spaces"),
        data_set(tmp_path / "songs", [{"item_id": "1", "artist": "x"}]),
    ]
    receipts = tmp_path / "receipts"
    printed = run("--data", *folders, "--receipts", str(receipts))
    assert "| item texts | 1; 1 missing, 1 added, such as ('title', 'B0', 'two  spaces')" in printed
    assert "Of other sources than the adapters read: songs." in printed
    assert {path.stem for path in receipts.glob("*.json")} == {"films", "clothes", "shop-games", "shop"}
    figures = {path.stem: json.loads(path.read_text())["figures"] for path in receipts.glob("*.json")}
    assert set(figures["films"]) == {"movielens-100k", "movielens-1m", "movielens-32m"}
    assert set(figures["shop-games"]) == {"amazon-2018-video-games", "amazon-2023-video-games"}
    for name in ("films", "clothes", "shop-games"):
        for form in figures[name].values():
            for compared in form["compared"].values():
                assert (compared["missing"], compared["added"]) == (0, 0)
    assert str(tmp_path) not in "".join(path.read_text() for path in receipts.glob("*.json"))
    assert run("--table", "--receipts", str(receipts)) in printed
