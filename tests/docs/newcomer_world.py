"""What a newcomer has at hand: small shops, raw files and codes, under the names that the documentation gives them."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbase_hf.data.python_api import Extraction
from recbase_hf.data.python_source import ItemText

REPOSITORY = Path(__file__).parents[2]

SHOPS = (
    *("my-shop", "shop-a", "shop-b", "other-shop", "data/amazon-games", "data/amazon-industrial", "data/amazon-office"),
    *("data/anime-mal", "data/hm-fashion", "data/jester-jokes", "data/lastfm-hetrec", "data/movielens-100k"),
    *("data/online-retail", "data/steam-reviews"),
)
MADE_BY = {
    "runs/mine/tokenizer": "accelerate launch examples/train_tokenizer.py --data shop-a shop-b --output runs/mine",
    "runs/mine/model": "accelerate launch examples/pretrain.py --data shop-a shop-b --output runs/mine --size mini",
    "runs/new/model": "accelerate launch examples/pretrain.py --data shop-a shop-b --output runs/mine --size mini",
    "my-catalog": "recbase build-catalog --model recbase-mini --items my-shop --output my-catalog",
    "catalog-a": "recbase build-catalog --model runs/mine/tokenizer --items shop-a --output catalog-a",
    "catalog-b": "recbase build-catalog --model runs/mine/tokenizer --items shop-b --output catalog-b",
    "other-catalog": "recbase build-catalog --model recbase-mini --items other-shop --output other-catalog",
}
"""What only a command can make, when it is first named."""

USERS, ITEMS = 60, 40
WORDS = ("red", "old", "new", "soft", "tiny")
THINGS = ("shoe", "novel", "chess set", "guitar", "lamp", "film", "kettle", "desk", "coat")
NAMES = (
    *("json", "json.loads", "json.dumps", "pathlib", "pathlib.Path", "os", "os.getcwd", "os.path.join", "sys"),
    *("sys.argv", "re", "re.compile", "tkinter", "tkinter.Tk", "io", "io.StringIO", "math", "math.sqrt", "time"),
    *("time.sleep", "random", "random.choice", "shutil", "shutil.copy", "csv", "csv.reader"),
)


def write_world(folder: Path) -> None:
    """Make the folder, in which the scripts of the repository are too, but none of its results."""
    for name in SHOPS:
        write_shop(folder / name)
    for name in ("hm/articles.csv", "hm/items.csv"):
        write_items(folder / name, "hm", range(ITEMS))
    write_export(folder)
    write_items(folder / "new-items.csv", "new", range(ITEMS, ITEMS + 5))
    codes = {row: [f"<{level}_{(row + place) % 8}>" for place, level in enumerate("abcd")] for row in range(ITEMS)}
    (folder / "hm.index.json").write_text(json.dumps(codes))
    write_downloaded_books(folder / "downloaded")
    (folder / "runs").mkdir()
    (folder / "runs" / "new").symlink_to("mine")  # a later training of the same kind
    for script in (*(REPOSITORY / "examples").glob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")):
        (folder / script.parent.name).mkdir(exist_ok=True)
        (folder / script.parent.name / script.name).symlink_to(script)


def write_shop(folder: Path) -> None:
    """A data set in two tables, and vectors beside them that are as wide as those of MiniLM."""
    write_items(folder / "items.csv", folder.name, range(ITEMS))
    rows = [f"user-{user},id-{item},{seconds}\n" for user, item, seconds in events(folder.name)]
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    vectors = np.random.default_rng(len(folder.name)).normal(size=(ITEMS, 384))
    np.save(folder / "minilm_f16.npy", vectors.astype(np.float16))
    pq.write_table(pa.table({"item_id": [f"id-{number}" for number in range(ITEMS)]}), folder / "minilm_ids.parquet")


def write_export(folder: Path) -> None:
    """What a shop has in two CSV files, in words of its own."""
    titles = [" ".join(pair) for pair in product(WORDS, THINGS)][:ITEMS]
    (folder / "items.csv").write_text("sku,name\n" + "".join(f"{row},{name}\n" for row, name in enumerate(titles)))
    rows = [f"{user},{item},{seconds}\n" for user, item, seconds in events("export")]
    (folder / "log.csv").write_text("customer_id,sku,date\n" + "".join(rows))


def write_items(path: Path, brand: str, numbers: range) -> None:
    """Items `id-0`, `id-1`, ... with texts that no other has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    titles = [" ".join(pair) for pair in product(WORDS, THINGS)]
    rows = [f"id-{number},{titles[number]},{brand}\n" for number in numbers]
    path.write_text("item_id,title,brand\n" + "".join(rows))


def events(seed: str) -> list[tuple[int, int, int]]:
    """Users, numbers of items, and seconds since 1970: all take every third item, from some item and day on."""
    draw = random.Random(seed)
    starts = [(user, draw.randrange(ITEMS), draw.randrange(100)) for user in range(USERS)]
    return [
        (user, (item + 3 * place) % ITEMS, 1_600_000_000 + (day + place) * 86_400)
        for user, item, day in starts
        for place in range(5 + user % 4)
    ]


def write_downloaded_books(folder: Path) -> None:
    """Raw files of `amazon-2023-books`."""
    folder.mkdir()
    books = [{"parent_asin": f"B{number}", "title": f"Book {number}"} for number in range(ITEMS)]
    reviews = [
        {"user_id": f"U{user}", "parent_asin": f"B{item}", "rating": 5.0, "timestamp": 1000 * seconds}
        for user, item, seconds in events("books")
    ]
    for name, rows in {"meta_Books": books, "Books": reviews}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def extract_installed(domain: str) -> Extraction:
    """In place of all Python source of a machine: files that use some names of the standard library."""
    starts = random.Random(domain).choices(range(len(NAMES)), k=USERS)
    histories = {
        f"file{user}.py": [NAMES[(start + 3 * place) % len(NAMES)] for place in range(6)]
        for user, start in enumerate(starts)
    }
    return Extraction(histories, {name: ItemText(summary=f"What {name} is for.") for name in NAMES}, {})
