"""Item texts to a file of vectors beside the tables, for item tables whose vectors no memory holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbase_hf.data.blocks import TableBlocks, hash_of_tables, item_blocks
from recbase_hf.data.domain import ItemVectors
from recbase_hf.data.vectors import ENDING, find_ids
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file, explained_full_disk, read_json, write_json
from recbase_hf.progress import progress
from recbase_hf.share import Share
from recbase_hf.text.encoder import TextEncoder, normalize_rows
from recbase_hf.text.template import require_texts

__all__ = ["write_vectors"]

TEXTS_A_PART = 1 << 14
"""What an interruption can cost a process."""


def write_vectors(
    folder: str | Path, name: str, encoder: TextEncoder, source: ItemVectors, *, share: Share | None = None
) -> Path:
    """Encode the items of a folder into `NAME_f16.npy` and `NAME_ids.parquet`, streamed and resumed.

    The vectors have unit length and are half-precision numbers, an item a row in the order of the item table.

    Args:
        folder: with `items.*`.
        name: of the vectors, such as `minilm`; other commands take them by `--vectors NAME`.
        encoder: of the texts.
        source: the item template; encoder name and revision for the record.
        share: every process encodes its own parts.

    Returns:
        The path of the vectors; where they are there already they are left alone.

    Raises:
        DataError: an item has no text, or vectors of that name are of other texts or another encoder.
    """
    folder, share = Path(folder), share or Share()
    path = folder / f"{name}{ENDING}"
    work, record = folder / f".{name}_parts", folder / f"{name}_made.json"
    items = item_blocks(folder)
    if not items.num_rows:
        raise DataError(f"{items.name}: the table has no rows; give at least one item")
    finished = path.exists()
    if share.is_first:
        settings = {
            "items": hash_of_tables(folder),
            "encoder": encoder.name,
            "revision": encoder.revision,
            "template": source.template.to_dict(),
        }
        _require_same(record if finished else work / "settings.json", settings)
        if finished:
            shutil.rmtree(work, ignore_errors=True)  # of a run that was killed at its very end
    share.wait()
    if finished:
        return path
    for block in range(len(items)):
        for start, part in share.mine(_parts(items, block)):
            target = work / f"{start:012d}.npy"
            if not target.exists():
                with explained_full_disk(folder):
                    _encode(items, block, start, part, encoder, source, target)
    share.wait()
    if share.is_first:
        write_json(record, read_json(work / "settings.json"))
        with explained_full_disk(folder):
            _join(items, work, path)
        shutil.rmtree(work)
    share.wait()
    return path


def _parts(items: TableBlocks, block: int) -> Iterator[tuple[int, slice]]:
    """The first item row of each part, and the part of the block."""
    rows = items.ranges[block]
    for start in range(0, len(rows), TEXTS_A_PART):
        yield rows.start + start, slice(start, min(start + TEXTS_A_PART, len(rows)))


def _encode(
    items: TableBlocks, block: int, start: int, part: slice, encoder: TextEncoder, source: ItemVectors, target: Path
) -> None:
    table = items.read(block).slice(part.start, part.stop - part.start)
    texts = source.template.render_all(datasets.Dataset(table))
    require_texts(texts, table["item_id"].to_pylist(), place=f"{items.name}, from row {start + 1}: ")
    vectors = normalize_rows(encoder.encode(texts)).astype(np.float16)
    with atomic_file(target) as temporary, open(temporary, "wb") as file:
        np.save(file, vectors)


def _join(items: TableBlocks, work: Path, path: Path) -> None:
    parts = sorted(work.glob("*.npy"))
    width = np.load(parts[0], mmap_mode="r").shape[1]
    with atomic_file(find_ids(path)) as temporary, pq.ParquetWriter(temporary, _IDS) as writer:
        for block in range(len(items)):
            writer.write_table(items.read(block, ["item_id"]).cast(_IDS))
    header = {"descr": "<f2", "fortran_order": False, "shape": (items.num_rows, width)}
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in progress(parts, description="joining vectors", unit=" parts"):
            file.write(np.load(part).tobytes())


_IDS = pa.schema({"item_id": pa.large_string()})


def _require_same(record: Path, settings: dict[str, Any]) -> None:
    before = read_json(record) if record.exists() else settings
    differing = sorted(key for key in settings if before.get(key) != settings[key])
    if differing:
        raise DataError(
            f"{record} is of vectors that were made otherwise ({', '.join(differing)}); delete these vectors, or "
            "choose another name"
        )
    if record.name == "settings.json":
        write_json(record, settings)
