"""Token shards hold every history once, whatever the blocks, the processes and the interruptions."""

from __future__ import annotations

import errno
import shutil
import threading
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf import ItemCatalog
from recbase_hf.data import blocks
from recbase_hf.data.domain import ItemVectors, load_domain
from recbase_hf.errors import DataError, FingerprintMismatchError, UnknownItemError
from recbase_hf.files import atomic_file
from recbase_hf.shards import events, item_codes, pack
from recbase_hf.shards.pack import Packing, pack_domains
from recbase_hf.shards.token_shards import ShardedRows, TokenShards
from recbase_hf.share import Share
from tiny_world import HashEncoder, make_items, make_tokenizer

TOKENIZER = make_tokenizer(num_levels=2)
SOURCE = ItemVectors(encoder=HashEncoder.name, precomputed="minilm")
PACKING = Packing(row_length=21, max_items=6, validation_share=0.2)


def write_domain(
    folder: Path, users: int = 30, *, order: str | None = "timestamp", seed: int = 0, items: int = 30
) -> Path:
    """Two Parquet tables of several row groups, and vectors of all items but the last, in another order."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    table = make_items(items)
    pq.write_table(pa.Table.from_pylist(table), folder / "items.parquet", row_group_size=7)
    lengths = rng.integers(1, 12, users)
    events = {
        "user_id": np.repeat([f"user-{user}" for user in range(users)], lengths),
        "item_id": [table[item]["item_id"] for length in lengths for item in rng.integers(0, items, length)],
        "label": rng.random(lengths.sum()) < 0.9,
    }
    if order is not None:
        events[order] = rng.integers(0, 50, lengths.sum())
    if order == "order":
        events["order"] = [None] * int(lengths.sum())
    shuffled = pa.table(events).take(rng.permutation(int(lengths.sum())))
    pq.write_table(shuffled, folder / "interactions.parquet", row_group_size=11)
    rows = rng.permutation(items - 1)
    vectors = HashEncoder().encode([table[row]["title"] for row in rows])
    np.save(folder / "minilm_f16.npy", vectors.astype(np.float16))
    pq.write_table(pa.table({"item_id": [table[row]["item_id"] for row in rows]}), folder / "minilm_ids.parquet")
    return folder


@pytest.fixture
def small_blocks(monkeypatch):
    """As if tables were too large for memory."""
    monkeypatch.setattr(blocks, "ROWS_A_BLOCK", 25)
    monkeypatch.setattr(events, "ROWS_A_PARTITION", 40)
    monkeypatch.setattr(item_codes, "SUMMED", 8)


def windows_of(shards: TokenShards) -> Counter:
    """How often each window of tokens stands in the shards."""
    found: Counter = Counter()
    for part in (shards.train, shards.validation):
        for row in part:
            starts = np.flatnonzero(row == shards.layout.bos).tolist()
            end = int((row != shards.layout.pad).sum())
            found.update(
                tuple(row[start:stop].tolist()) for start, stop in zip(starts, [*starts[1:], end], strict=True)
            )
    return found


def expected_windows(folder: Path, tokenizer=TOKENIZER) -> Counter:
    """Cut from the histories that evaluation sees, with the semantic IDs of the catalog that scoring sees."""
    domain = load_domain(folder, SOURCE)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=tokenizer, vectors=domain.vectors)
    found: Counter = Counter()
    for user in range(len(domain.histories)):
        items = domain.histories[user]
        for end in range(len(items), 0, -PACKING.max_items):
            window = items[max(0, end - PACKING.max_items) : end]
            if len(window) >= 2:
                found[tuple(tokenizer.layout.history_ids(catalog.codes[window]).tolist())] += 1
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("order", ["timestamp", "order", None])
@pytest.mark.usefixtures("small_blocks")
def test_shards_hold_the_histories_that_are_evaluated_under_the_ids_that_are_scored(tmp_path, order):
    folder = write_domain(tmp_path / "shop", order=order)
    shards = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    assert windows_of(shards) == expected_windows(folder)
    facts = shards.facts["domains"]["shop"]
    assert len(facts["files"]) >= 6, "several partitions"
    assert facts["items_without_vector"] == 1
    domain = load_domain(folder, SOURCE)
    assert shards.facts["settings"]["data"] == {"shop": domain.hash}
    assert shards.facts["settings"]["items"] == {"shop": domain.items_hash}
    assert facts["events"] == len(domain.histories.items)


@pytest.mark.parametrize("policy", ["keep", "reassign", "digit"])
@pytest.mark.usefixtures("small_blocks")
def test_items_are_coded_as_in_the_catalog_under_every_collision_policy(tmp_path, policy):
    tokenizer = make_tokenizer(num_levels=3, codebook_size=16)
    tokenizer.collisions = policy
    tokenizer = type(tokenizer)(
        quantizer=tokenizer.quantizer,
        text_encoder=HashEncoder.name,
        item_template=tokenizer.item_template,
        collisions=policy,
    )
    packing = Packing(row_length=1 + 6 * tokenizer.layout.num_levels, max_items=6)
    folder = write_domain(tmp_path / "shop")
    shards = pack_domains([folder], tokenizer, SOURCE, tmp_path / "shards", packing)
    assert windows_of(shards) == expected_windows(folder, tokenizer)


@pytest.mark.usefixtures("small_blocks")
def test_two_processes_leave_what_one_leaves(tmp_path):
    folders = [write_domain(tmp_path / "shop"), write_domain(tmp_path / "books", 17, order=None, seed=1)]
    pack_domains(folders, TOKENIZER, SOURCE, tmp_path / "one", PACKING)
    barrier = threading.Barrier(2, timeout=30)
    failed: list[BaseException] = []

    def work(index: int) -> None:
        try:
            share = Share(index, 2, lambda: barrier.wait() and None)
            pack_domains(folders, TOKENIZER, SOURCE, tmp_path / "two", PACKING, share=share)
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


@pytest.mark.usefixtures("small_blocks")
def test_after_an_interruption_at_any_file_the_same_call_leaves_the_same_bytes(tmp_path, monkeypatch):
    folders = [write_domain(tmp_path / "shop", 12), write_domain(tmp_path / "books", 9, seed=1)]
    pack_domains(folders, TOKENIZER, SOURCE, tmp_path / "straight", PACKING)
    straight = files_of(tmp_path / "straight")
    interruptions = 0
    for before in range(2, 10_000, 9):
        writes = iter(range(10_000))

        def interrupted(path, _writes=writes, _before=before):
            if next(_writes) == _before:
                raise KeyboardInterrupt
            return atomic_file(path)

        output = tmp_path / f"resumed-{before}"
        with monkeypatch.context() as patch:
            for module in ("events", "item_codes", "token_shards"):
                patch.setattr(f"recbase_hf.shards.{module}.atomic_file", interrupted)
            try:
                pack_domains(folders, TOKENIZER, SOURCE, output, PACKING)
                break
            except KeyboardInterrupt:
                interruptions += 1
        with pytest.raises(FileNotFoundError, match="no finished token shards"):
            TokenShards.open(output)
        pack_domains(folders, TOKENIZER, SOURCE, output, PACKING)
        assert files_of(output) == straight
    assert interruptions >= 5


def test_the_same_call_again_does_nothing_and_another_is_refused(tmp_path, monkeypatch):
    folder = write_domain(tmp_path / "shop")
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    before = files_of(tmp_path / "shards")
    monkeypatch.setattr(pack, "_pack_domain", None)
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    assert files_of(tmp_path / "shards") == before
    with pytest.raises(ValueError, match=r"made with other settings \(max_items\)"):
        pack_domains(
            [folder], TOKENIZER, SOURCE, tmp_path / "shards", Packing(row_length=21, max_items=5, validation_share=0.2)
        )
    other = write_domain(tmp_path / "other" / "shop", seed=3)
    with pytest.raises(ValueError, match=r"other settings \(data, vector_files\)"):
        pack_domains([other], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    with pytest.raises(FingerprintMismatchError):
        TokenShards.open(tmp_path / "shards", tokenizer=make_tokenizer(num_levels=2, seed=1))


def test_what_was_begun_with_other_settings_is_dropped(tmp_path, monkeypatch):
    folder = write_domain(tmp_path / "shop")
    with monkeypatch.context() as patch:
        patch.setattr(pack, "_facts", None)
        with pytest.raises(TypeError):
            pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", Packing(row_length=30, max_items=6))
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "straight", PACKING)
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "straight")


def test_a_data_set_in_the_output_folder_is_never_touched(tmp_path):
    folder = write_domain(tmp_path / "shop")
    before = files_of(folder)
    for output in (tmp_path, folder):
        with pytest.raises(ValueError, match="name a folder of its own"):
            pack_domains([folder], TOKENIZER, SOURCE, output, PACKING)
    own = tmp_path / "out" / "rows"
    own.mkdir(parents=True)
    (own / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not of token shards; name another folder"):
        pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "out", PACKING)
    assert (own / "mine.txt").read_text() == "mine"
    assert files_of(folder) == before


@pytest.mark.parametrize("lost", ["record", "half"])
def test_work_that_nobody_vouches_for_is_dropped(tmp_path, monkeypatch, lost):
    folder = write_domain(tmp_path / "shop")
    with monkeypatch.context() as patch:
        patch.setattr(pack, "_facts", None)
        with pytest.raises(TypeError):
            pack_domains([folder], make_tokenizer(num_levels=2, seed=3), SOURCE, tmp_path / "shards", PACKING)
    if lost == "record":
        (tmp_path / "shards" / "_work" / "settings.json").unlink()
    else:  # killed while it was being dropped
        (tmp_path / "shards" / "_work").rename(tmp_path / "shards" / "_work.dropped")
        shutil.rmtree(tmp_path / "shards" / "rows")
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "straight", PACKING)
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "straight")


def test_vectors_that_changed_meanwhile_start_the_work_over(tmp_path, monkeypatch):
    folder = write_domain(tmp_path / "shop")
    with monkeypatch.context() as patch:
        patch.setattr(pack, "_facts", None)
        with pytest.raises(TypeError):
            pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    np.save(folder / "minilm_f16.npy", np.load(folder / "minilm_f16.npy")[::-1])
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "straight", PACKING)
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "straight")


def test_shards_are_mapped_and_not_read(tmp_path):
    pack_domains([write_domain(tmp_path / "shop")], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    before = pa.total_allocated_bytes()
    shards = TokenShards.open(tmp_path / "shards")
    assert len(shards.train.read(range(len(shards.train)))) > 0
    assert pa.total_allocated_bytes() == before


def validation_windows(shards: TokenShards) -> Counter:
    nothing = ShardedRows([], {}, shards.layout, "")
    return windows_of(replace(shards, train=shards.validation, validation=nothing))


def test_users_stay_on_their_side_when_others_come(tmp_path):
    many = write_domain(tmp_path / "many" / "shop", 80)
    few = shutil.copytree(many, tmp_path / "few" / "shop")
    table = pq.read_table(few / "interactions.parquet").to_pylist()
    kept = [row for row in table if int(row["user_id"].split("-")[1]) < 40]
    pq.write_table(pa.Table.from_pylist(kept), few / "interactions.parquet")
    packing = replace(PACKING, validation_share=0.3)
    first, second = (
        validation_windows(pack_domains([folder], TOKENIZER, SOURCE, folder.parent / "shards", packing))
        for folder in (few, many)
    )
    assert first
    assert not first - second
    assert second - first


def test_who_validates_follows_from_the_seed(tmp_path):
    folder = write_domain(tmp_path / "shop", 60)
    first, same, other = (
        validation_windows(pack_domains([folder], TOKENIZER, SOURCE, tmp_path / name, replace(PACKING, seed=seed)))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("users", "share", "expected"), [(2, 0.05, (1, 1)), (1, 0.5, (1, 0)), (40, 0.0, None), (3, 0.99, None)]
)
def test_somebody_validates_and_somebody_is_left_to_learn_from(tmp_path, users, share, expected):
    folder = tmp_path / "shop"
    write_domain(folder, 1)
    names = np.repeat([f"user-{user}" for user in range(users)], 3)
    table = {"user_id": names, "item_id": [f"item-{place}" for place in (2, 3, 4)] * users}
    pq.write_table(pa.table(table), folder / "interactions.parquet")
    facts = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", Packing(validation_share=share)).facts
    sides = tuple(facts["domains"]["shop"][f"{side}_users"] for side in ("training", "validation"))
    assert sum(sides) == users
    assert sides[0] >= 1
    assert (sides[1] >= 1) == (share > 0 and users > 1)
    assert expected is None or sides == expected


def test_a_sample_of_users_has_the_wanted_size(tmp_path):
    folder = write_domain(tmp_path / "shop", 60)
    facts = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", Packing(max_users=13)).facts["domains"][
        "shop"
    ]
    assert facts["training_users"] + facts["validation_users"] == 13


def test_datasets_opens_a_shard(tmp_path):
    shards = pack_domains([write_domain(tmp_path / "shop")], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    name = shards.facts["domains"]["shop"]["files"][0]["name"]
    opened = datasets.Dataset.from_file(str(tmp_path / "shards" / name))
    assert opened["input_ids"][0] == shards.train[0].tolist()


# ---- bad input -------------------------------------------------------------------------------------------------------


def rewrite(folder: Path, name: str, change) -> None:
    rows = pq.read_table(folder / name).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / name, row_group_size=11)


def error_of(kind: type[Exception], folder: Path, output: Path, **options) -> str:
    with pytest.raises(kind) as error:
        pack_domains([folder], TOKENIZER, SOURCE, output, Packing(row_length=21, max_items=6, **options))
    assert not (output / "shards.json").exists()
    return str(error.value)


@pytest.mark.usefixtures("small_blocks")
def test_what_is_wrong_is_named_with_its_row_in_the_file(tmp_path):
    folder = write_domain(tmp_path / "shop")
    rewrite(folder, "interactions.parquet", lambda rows: rows[30].update(item_id="ghost", label=True))
    message = error_of(UnknownItemError, folder, tmp_path / "a")
    assert "interactions.parquet, row 31: item 'ghost'" in message
    rewrite(folder, "interactions.parquet", lambda rows: rows[30].update(item_id="item-1", timestamp=None))
    assert "row 31, column 'timestamp': missing" in error_of(DataError, folder, tmp_path / "b")
    error_free = Packing(row_length=21, max_items=6, unordered_events="drop")
    assert len(pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "c", error_free).train)
    rewrite(folder, "interactions.parquet", lambda rows: rows[40].update(user_id=""))
    assert "row 41, column 'user_id': the id is missing" in error_of(DataError, folder, tmp_path / "d")
    rewrite(folder, "interactions.parquet", lambda rows: rows[40].update(user_id="ann"))
    rewrite(folder, "items.parquet", lambda rows: rows[9].update(item_id="item-3"))
    assert "row 10, column 'item_id': 'item-3' stands in row 4 already" in error_of(DataError, folder, tmp_path / "e")


def test_a_domain_without_anything_to_learn_from_is_refused(tmp_path):
    folder = write_domain(tmp_path / "shop")
    pq.write_table(
        pa.table({"user_id": ["ann", "bob"], "item_id": ["item-2", "item-3"]}), folder / "interactions.parquet"
    )
    assert "nothing to learn from" in error_of(DataError, folder, tmp_path / "shards")


def test_vectors_of_other_items_are_refused(tmp_path):
    folder = write_domain(tmp_path / "shop")
    rewrite(folder, "minilm_ids.parquet", lambda rows: rows[4].update(item_id="ghost"))
    assert "row 5, column 'item_id': 'ghost' is not in the item table" in error_of(DataError, folder, tmp_path / "a")
    rewrite(folder, "minilm_ids.parquet", lambda rows: rows[4].update(item_id=rows[5]["item_id"]))
    assert "an item id comes twice" in error_of(DataError, folder, tmp_path / "b")
    rewrite(folder, "minilm_ids.parquet", lambda rows: rows.pop())
    assert "29 vectors but" in error_of(DataError, folder, tmp_path / "c")


def test_a_full_disk_is_named_and_the_same_call_goes_on(tmp_path, monkeypatch):
    folder = write_domain(tmp_path / "shop")

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("recbase_hf.shards.pack.write_shard", full)
        with pytest.raises(OSError, match=r"the disk is full while .*/shards is written .*; make room"):
            pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "straight", PACKING)
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "straight")


@pytest.mark.parametrize("damage", ["missing", "truncated", "row"])
def test_damaged_shards_are_noticed(tmp_path, damage):
    shards = pack_domains([write_domain(tmp_path / "shop")], TOKENIZER, SOURCE, tmp_path / "shards", PACKING)
    path = tmp_path / "shards" / shards.facts["domains"]["shop"]["files"][0]["name"]
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.write_bytes((tmp_path / "shards" / shards.facts["domains"]["shop"]["files"][1]["name"]).read_bytes())
    with pytest.raises(DataError, match=r"pack the data again"):
        TokenShards.open(tmp_path / "shards")


@pytest.mark.usefixtures("small_blocks")
def histories_in(shards: TokenShards, split: str) -> list[np.ndarray]:
    """The codes of every window of one split, (items, levels) each."""
    layout, found = shards.layout, []
    for row in getattr(shards, split):
        tokens = row[row != layout.pad]
        found += [
            layout.ids_to_codes(part.reshape(-1, 2))
            for part in np.split(tokens, np.flatnonzero(tokens == layout.bos))
            if len(part)
            for part in [part[1:]]
        ]
    return found


def test_a_mirrored_pass_writes_whole_histories_in_the_codes_of_one_image(tmp_path):
    folder = write_domain(tmp_path / "shop")
    packing = replace(PACKING, mirrors=3, mirrored_share=0.5, passes=4)
    shards = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", packing)
    domain = load_domain(folder, SOURCE)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=TOKENIZER, vectors=domain.vectors)
    images = [catalog.mirrored(number, tokenizer=TOKENIZER).codes for number in range(4)]
    assert not any(np.array_equal(images[0], image) for image in images[1:])
    seen: Counter = Counter()
    for window in histories_in(shards, "train"):
        fits = [
            number
            for number, codes in enumerate(images)
            if any(_holds(codes[domain.histories[user]], window) for user in range(len(domain.histories)))
        ]
        assert fits
        seen.update(fits if len(fits) == 1 else [])
    assert set(seen) == {0, 1, 2, 3}, "all images, and the catalog as it is"
    for window in histories_in(shards, "validation"):
        assert any(_holds(images[0][domain.histories[user]], window) for user in range(len(domain.histories)))


def _holds(history: np.ndarray, window: np.ndarray) -> bool:
    return any(np.array_equal(history[start : start + len(window)], window) for start in range(len(history)))


def test_the_newest_events_are_held_out_of_all_rows(tmp_path):
    folder = write_domain(tmp_path / "shop")
    shards = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "shards", replace(PACKING, hold_out_last=2))
    domain = load_domain(folder, SOURCE)
    catalog = ItemCatalog.from_items(domain.items, tokenizer=TOKENIZER, vectors=domain.vectors)
    shorter = domain.histories.first(domain.histories.lengths - 2)
    expected: Counter = Counter()
    for user in range(len(shorter)):
        for end in range(len(shorter[user]), 0, -PACKING.max_items):
            window = shorter[user][max(0, end - PACKING.max_items) : end]
            if len(window) >= 2:
                expected[tuple(TOKENIZER.layout.history_ids(catalog.codes[window]).tolist())] += 1
    assert windows_of(shards) == expected
    with pytest.raises(DataError, match="beside the 20 held out"):
        pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "none", replace(PACKING, hold_out_last=20))


def test_every_pass_has_all_histories_and_cuts_the_long_ones_elsewhere(tmp_path):
    folder = write_domain(tmp_path / "shop")
    packing = replace(PACKING, max_items=3, passes=3)
    once = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "once", replace(packing, passes=1))
    shards = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "thrice", packing)
    (passes,) = shards.train.passes.values()
    assert sum(passes) == len(shards.train)
    assert shards.train.an_epoch == -(-len(shards.train) // 3)
    firsts = np.cumsum([0, *passes])
    rows = [shards.train.read(range(start, stop)) for start, stop in pairwise(firsts)]
    assert sorted(map(tuple, rows[0].input_ids.tolist())) == sorted(map(tuple, (row.tolist() for row in once.train)))
    assert len({tuple(sorted(map(tuple, part.input_ids.tolist()))) for part in rows}) == 3
    assert shards.validation.hash == once.validation.hash
    again = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "again", packing)
    assert again.train.hash == shards.train.hash
    other = pack_domains([folder], TOKENIZER, SOURCE, tmp_path / "other", replace(packing, seed=1))
    assert other.train.hash != shards.train.hash


@pytest.mark.parametrize(
    "options",
    [
        {"validation_share": 1.0},
        {"validation_share": -0.1},
        {"max_users": -1},
        {"row_length": 0},
        {"max_items": 1},
        {"mirrors": -1},
        {"mirrored_share": 1.5},
        {"hold_out_last": -1},
    ],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Packing(**options)
