"""Tables of many domains to packed token shards: streamed, shared out over processes, and resumed after a kill.

Every part of the work is a file that is written beside and renamed; what is there is not done again. So an interrupted
run goes on where it was, on any number of processes, and leaves the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from recbase_hf.config import option, require_positive
from recbase_hf.data.blocks import (
    TableBlocks,
    hash_of_items,
    hash_of_tables,
    interaction_blocks,
    item_blocks,
    time_column,
)
from recbase_hf.data.domain import ItemVectors, encode_texts
from recbase_hf.data.id_index import IdIndex, mix
from recbase_hf.data.vectors import find_ids, find_vectors, open_vectors
from recbase_hf.errors import DataError
from recbase_hf.files import explained_full_disk, hash_of_json, read_json, sha256_of_file, write_json
from recbase_hf.progress import progress
from recbase_hf.shards.events import UserEvents, group_partitions, partition_by_user
from recbase_hf.shards.item_codes import ItemVectorRows, encode_items, rows_of_vectors
from recbase_hf.shards.packing import default_row_length, pack_histories, require_fitting
from recbase_hf.shards.token_shards import FACTS, TokenShards, write_shard
from recbase_hf.share import Share

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["Packing", "pack_domains"]

logger = logging.getLogger(__name__)

ROWS = "rows"
_WORK = "_work"


@dataclass(frozen=True)
class Packing:
    """How histories become rows of tokens."""

    row_length: int | None = option(
        None, help="tokens a packed row; default two full windows, or as many as make 512 tokens"
    )
    max_items: int = option(100, help="items a training window, and the context of the model")
    passes: int = option(
        1, help="packings, each with the histories that are longer than a window cut elsewhere; an epoch takes the next"
    )
    hold_out_last: int = option(
        0,
        help="newest events of every user that are left out, for an evaluation on the same users (with the same seed, "
        "vectors and unordered_events)",
    )
    mirrors: int = option(
        0,
        help="mirror images of every catalog, in whose codes histories are written too: what holds in all of them "
        "holds in a domain that nobody has seen; 4 bytes a code, item and image in memory",
    )
    mirrored_share: float = option(0.7, help="of the histories of a pass, written in the codes of a mirror image")
    max_users: int = option(0, help="users of each data set, drawn at random; 0 takes all")
    validation_share: float = option(0.05, help="of the users, held out for the validation loss")
    unordered_events: str = option(
        "error",
        help="what to do with events that lack their place in an otherwise ordered history",
        choices=("error", "drop"),
    )
    seed: int = option(0, help="of everything that is drawn")

    def __post_init__(self) -> None:
        require_positive(self, *([] if self.row_length is None else ["row_length"]))
        if self.max_items < 2:
            raise ValueError(f"max_items is {self.max_items}; a window needs 2 items, one to predict the other")
        if self.passes < 1:
            raise ValueError(f"passes is {self.passes}; give 1 to cut every history once, or more")
        for name in ("hold_out_last", "mirrors"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 for none, or a number")
        if not 0 <= self.mirrored_share <= 1:
            raise ValueError(f"mirrored_share is {self.mirrored_share}; give a share of at least 0 and at most 1")
        if self.max_users < 0:
            raise ValueError(f"max_users is {self.max_users}; give 0 for all users, or a number")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; give a share of at least 0 and below 1")


def pack_domains(
    folders: Sequence[str | Path],
    tokenizer: RecBaseTokenizer,
    source: ItemVectors,
    output: str | Path,
    packing: Packing | None = None,
    *,
    share: Share | None = None,
) -> TokenShards:
    """Pack the histories of data sets into token shards.

    Args:
        folders: in the two-table form, each a domain of its own by the folder's name.
        tokenizer: gives every item the semantic ID that it has in its own catalog.
        source: of the item vectors. Vectors that lie beside the tables are memory-mapped; texts are encoded in memory.
        output: folder for the shards; other data, tokenizer or settings need another folder.
        packing: how.
        share: which part of the work is this process's; all must see the same `output`.

    Raises:
        DataError: a table or the vectors cannot be used, or a domain has no user to learn from; says where.
        FileNotFoundError: a table is missing.
        ValueError: `output` holds shards of other data or settings, or a setting is out of range.
    """
    packing, share, output = packing or Packing(), share or Share(), Path(output)
    row_length = packing.row_length or default_row_length(tokenizer.layout, packing.max_items)
    require_fitting(tokenizer.layout, row_length=row_length, max_items=packing.max_items)
    packing = replace(packing, row_length=row_length)
    domains = {Path(folder).resolve().name: Path(folder) for folder in folders}
    if len(domains) < len(folders):
        raise ValueError(f"two of the data folders have the same name ({', '.join(sorted(domains))}); rename one")
    for folder in domains.values():
        if output.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise ValueError(f"{output} holds the data set {folder}; name a folder of its own for the shards")
    if share.is_first:
        _require_same_settings(output, _settings(domains, tokenizer, source, packing))
    share.wait()
    finished = (output / FACTS).exists()
    share.wait()
    if not finished:
        settings = read_json(output / _WORK / "settings.json")
        with explained_full_disk(output):
            facts = {
                name: _pack_domain(name, folder, tokenizer, source, output, packing, share)
                for name, folder in domains.items()
            }
        share.wait()  # all have read what is deleted now
        if share.is_first:
            write_json(output / FACTS, {"settings": settings, "domains": facts})
    if share.is_first:
        _clean(output)
    share.wait()
    return TokenShards.open(output)


def _clean(output: Path) -> None:
    """Drop what is of no use once the shards are finished, also what killed processes left half written."""
    _drop(output / _WORK)
    for path in (output / ROWS).rglob(".*.arrow.*.partial"):
        path.unlink()


def _drop(folder: Path) -> None:
    """Delete a folder so that a kill does not leave a part of it under its name."""
    dropped = folder.with_name(f"{folder.name}.dropped")
    shutil.rmtree(dropped, ignore_errors=True)
    if folder.exists():
        folder.rename(dropped)
        shutil.rmtree(dropped)


def _settings(
    domains: dict[str, Path], tokenizer: RecBaseTokenizer, source: ItemVectors, packing: Packing
) -> dict[str, Any]:
    layout = tokenizer.layout
    return {
        "tokenizer": tokenizer.fingerprint,
        "layout": {"num_levels": layout.num_levels, "codebook_size": layout.codebook_size},
        "vectors": source.precomputed,
        "vector_files": {name: _hash_of_vectors(folder, source) for name, folder in domains.items()},
        "packing": asdict(packing),
        "data": {name: hash_of_tables(folder, folder) for name, folder in domains.items()},
        "items": {name: hash_of_items(folder) for name, folder in domains.items()},
    }


def _hash_of_vectors(folder: Path, source: ItemVectors) -> str | None:
    """Of the file of the vectors and that of their ids, where they lie beside the tables."""
    if source.precomputed is None:
        return None
    path = find_vectors(folder, source.precomputed)
    return hash_of_json([sha256_of_file(path), sha256_of_file(find_ids(path))])[:16]


def _require_same_settings(output: Path, settings: dict[str, Any]) -> None:
    """Write the settings down where nothing is finished; what was begun with other ones is dropped.

    Raises:
        ValueError: finished shards are of other settings; names what differs.
    """
    finished, record = output / FACTS, output / _WORK / "settings.json"
    if finished.exists():
        differing = _differing(read_json(finished)["settings"], settings)
        if differing:
            raise ValueError(
                f"{output} holds token shards made with other settings ({', '.join(differing)}); "
                "choose another folder, or delete that one"
            )
        return
    begun = read_json(record) if record.exists() else None
    if begun is None or _differing(begun, settings):
        if begun is not None:
            reason = ", ".join(_differing(begun, settings))
            logger.info("%s was begun with other settings (%s): starting over", output, reason)
        if not (output / _WORK).exists() and (output / ROWS).exists():
            raise ValueError(f"{output} holds a folder {ROWS} that is not of token shards; name another folder")
        _drop(output / ROWS)
        _drop(output / _WORK)
    write_json(record, settings)


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old, new = (
        {**made["packing"], **{name: made[name] for name in made if name != "packing"}} for made in (before, now)
    )
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _pack_domain(
    name: str,
    folder: Path,
    tokenizer: RecBaseTokenizer,
    source: ItemVectors,
    output: Path,
    packing: Packing,
    share: Share,
) -> dict[str, Any]:
    """One domain's shards; returns its part of `shards.json`."""
    work, done = output / _WORK / "domains" / name, output / _WORK / "finished" / f"{name}.json"
    if done.exists():
        return read_json(done)
    logger.info("packing %s", folder)
    items, interactions = item_blocks(folder), interaction_blocks(folder)
    for table in (items, interactions):
        if not table.num_rows:
            raise DataError(f"{table.name}: the table has no rows")
    ids = pa.chunked_array([chunk for block in range(len(items)) for chunk in _ids(items, block)], pa.large_string())
    index = IdIndex(ids)
    _require_unique(index, ids, items.name)
    vectors = _vectors(folder, ids, index, source, share)
    _require_width(vectors, tokenizer, folder)
    codes = encode_items(items, vectors, tokenizer, work, mirrors=packing.mirrors, share=share)
    times = time_column(interactions)
    drop: Any = packing.unordered_events
    count = partition_by_user(interactions, index, work, times=times, unordered_events=drop, share=share)
    del index
    has_code = codes[0, :, 0] >= 0
    paths = group_partitions(work, count, has_code, times=times, item_ids=ids, seed=packing.seed, share=share)
    chosen = _chosen_users(name, paths, packing)
    for part in progress(share.mine(range(count)), description=f"packing {name}", unit=" partitions"):
        _pack_partition(name, part, paths[part], codes, chosen, tokenizer, packing, work, output)
    share.wait()
    if share.is_first:
        write_json(done, _facts(paths, has_code, work, chosen, packing))
        _drop(work)
    share.wait()
    return read_json(done)


def _ids(items: TableBlocks, block: int) -> list[pa.Array]:
    return items.read(block, ["item_id"])["item_id"].chunks


def _require_unique(index: IdIndex, ids: pa.ChunkedArray, name: str) -> None:
    first = index.find(ids)
    repeated = np.flatnonzero(first != np.arange(len(first)))
    if len(repeated):
        row = int(repeated[0])
        raise DataError(
            f"{name}, row {row + 1}, column 'item_id': {ids[row].as_py()!r} stands in row {first[row] + 1} already; "
            "remove one row or give it another id"
        )


def _vectors(folder: Path, ids: pa.ChunkedArray, index: IdIndex, source: ItemVectors, share: Share) -> ItemVectorRows:
    if source.precomputed is None:
        with share.first_process_first():  # it fills the cache
            return ItemVectorRows(encode_texts(folder, source).__getitem__, np.arange(len(ids)))
    path = find_vectors(folder, source.precomputed)
    vectors = open_vectors(path)
    ids_path = find_ids(path)
    of_vectors = pa.chunked_array(
        [chunk for table in item_blocks(ids_path) for chunk in table["item_id"].chunks], pa.large_string()
    )
    if len(of_vectors) != len(vectors):
        raise DataError(f"{path} has {len(vectors)} vectors but {ids_path} has {len(of_vectors)} ids; make both again")

    def read(part: slice) -> np.ndarray:
        return np.array(open_vectors(path)[part])  # mapped anew, so that what was read does not stay in memory

    return ItemVectorRows(read, rows_of_vectors(of_vectors, index, str(ids_path)))


def _require_width(vectors: ItemVectorRows, tokenizer: RecBaseTokenizer, folder: Path) -> None:
    wanted = tokenizer.quantizer.config.input_dim
    shape = vectors.read(slice(0, 1)).shape
    if shape != (1, wanted):
        raise DataError(
            f"{folder}: the vectors have {'no rows' if not shape[0] else f'{shape[1]} numbers'}, the tokenizer takes "
            f"{wanted} an item; they must be of the text encoder that it names"
        )


# ---- which users -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ChosenUsers:
    """Users are chosen by numbers that follow from their ids: nobody changes sides because others come or go.

    Attributes:
        sampled_below: a user takes part whose first number is below.
        validated_below: of these, one validates whose second number is below.
        seed: of the numbers.
    """

    sampled_below: int
    validated_below: int
    seed: int

    def of(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Who trains and who validates, each (users,) bool."""
        sampled = _numbers(hashes, self.seed, "sample") < np.uint64(self.sampled_below)
        validates = _numbers(hashes, self.seed, "validation") < np.uint64(self.validated_below)
        return sampled & ~validates, sampled & validates


def _chosen_users(name: str, paths: Sequence[Path], packing: Packing) -> _ChosenUsers:
    hashes = np.concatenate([_usable(UserEvents(path), packing) for path in paths])
    if not len(hashes):
        held_out = f" beside the {packing.hold_out_last} held out" if packing.hold_out_last else ""
        raise DataError(
            f"{name}: no user has two events with items that have vectors{held_out}, so there is nothing to learn "
            "from; check user_id, item_id and label"
        )
    most = int(np.iinfo(np.uint64).max)
    sampled_below = most
    if 0 < packing.max_users < len(hashes):
        numbers = _numbers(hashes, packing.seed, "sample")
        sampled_below = int(np.partition(numbers, packing.max_users)[packing.max_users])
        hashes = hashes[numbers < np.uint64(sampled_below)]
    numbers = np.sort(_numbers(hashes, packing.seed, "validation"))
    at_least = int(numbers[min(1, len(numbers) - 1)]) if packing.validation_share and len(numbers) > 1 else 0
    validated_below = max(at_least, int(packing.validation_share * most))
    if validated_below > int(numbers[-1]):  # somebody has to be left to learn from
        validated_below = int(numbers[-1])
    return _ChosenUsers(sampled_below, validated_below, packing.seed)


def _usable(users: UserEvents, packing: Packing) -> np.ndarray:
    """The hashes of users from whom something can be learned: one item alone has nothing to predict it."""
    return users.hashes[users.histories.lengths >= 2 + packing.hold_out_last]


def _numbers(hashes: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    name = f"{purpose:<8}".encode()
    short = name if len(name) == 8 else hashlib.blake2b(name, digest_size=8).digest()
    salt = np.uint64(int.from_bytes(short, "little"))
    return mix(mix(hashes ^ salt) + np.uint64(seed))


# ---- rows ------------------------------------------------------------------------------------------------------------


def _pack_partition(
    name: str,
    part: int,
    path: Path,
    codes: np.ndarray,  # (images, items, levels)
    chosen: _ChosenUsers,
    tokenizer: RecBaseTokenizer,
    packing: Packing,
    work: Path,
    output: Path,
) -> None:
    """The shards of one partition, and beside its users what they hold."""
    record = work / f"rows-{part:05d}.json"
    if record.exists():
        return
    users = UserEvents(path)
    trains, validates = chosen.of(users.hashes)
    splits = [("train", trains, number) for number in range(packing.passes)] + [("validation", validates, 0)]
    files = []
    for split, mask, number in splits:
        histories = users.histories.select(mask)
        histories = histories.first(histories.lengths - packing.hold_out_last)
        images = _images(users.hashes[mask], split, number, packing)
        # Of the codes of all images one after the other.
        rows_of_codes = histories.items + np.repeat(images * codes.shape[1], histories.lengths)
        rows = pack_histories(
            replace(histories, items=rows_of_codes),
            codes.reshape(-1, codes.shape[2]),
            tokenizer.layout,
            row_length=cast(int, packing.row_length),
            max_items=packing.max_items,
            shifts=_shifts(users.hashes[mask], number, packing),
        )
        of_pass = f"-{number:03d}" if packing.passes > 1 and split == "train" else ""
        shard = Path(ROWS) / name / f"{split}{of_pass}-{part:05d}.arrow"
        files.append({"name": shard.as_posix(), "pass": number, **write_shard(output / shard, rows)})
    write_json(record, files)


def _shifts(hashes: np.ndarray, number: int, packing: Packing) -> np.ndarray | None:
    """Where a pass cuts each user's history: the first so that the newest window is full, the others anywhere."""
    if number == 0:
        return None
    return (_numbers(hashes, packing.seed, f"cut{number}") % np.uint64(packing.max_items)).astype(np.int64)


def _images(hashes: np.ndarray, split: str, number: int, packing: Packing) -> np.ndarray:
    """Which image of the catalog a pass shows each user's history in, (users,) int64; 0 is the catalog as it is."""
    if not packing.mirrors or split == "validation":
        return np.zeros(len(hashes), dtype=np.int64)
    mirrored = _numbers(hashes, packing.seed, f"mirror{number}") < np.uint64(packing.mirrored_share * (2**64 - 2048))
    images = 1 + (_numbers(hashes, packing.seed, f"image{number}") % np.uint64(packing.mirrors)).astype(np.int64)
    return np.where(mirrored, images, 0)


def _facts(
    paths: Sequence[Path], has_code: np.ndarray, work: Path, chosen: _ChosenUsers, packing: Packing
) -> dict[str, Any]:
    files = [file for part in range(len(paths)) for file in read_json(work / f"rows-{part:05d}.json")]
    users = [UserEvents(path) for path in paths]
    sides = [tuple(int(side.sum()) for side in chosen.of(_usable(part, packing))) for part in users]
    return {
        "items": len(has_code),
        "items_without_vector": int((~has_code).sum()),
        "users": sum(len(part.histories) for part in users),
        "events": sum(len(part.histories.items) for part in users),
        "events_without_vector": sum(part.dropped for part in users),
        "repeated_events": sum(part.repeated for part in users),
        "training_users": sum(training for training, _ in sides),
        "validation_users": sum(validation for _, validation in sides),
        **{what: sum(file[what] for file in files) for what in ("rows", "tokens", "targets")},
        "files": sorted(files, key=lambda file: file["name"]),
    }
