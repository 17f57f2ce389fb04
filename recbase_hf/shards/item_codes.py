"""The semantic IDs that the items of a data set have in their catalog, for item tables of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from recbase_hf.catalog.collisions import assign_codes
from recbase_hf.catalog.reading import template_of
from recbase_hf.data.blocks import TableBlocks
from recbase_hf.data.id_index import IdIndex
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file
from recbase_hf.modeling.centering import SUMMED, mean_of_sums
from recbase_hf.progress import progress
from recbase_hf.quantizers.geometry import Mirrors
from recbase_hf.share import Share
from recbase_hf.text.encoder import normalize_rows

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["ItemVectorRows", "encode_items", "rows_of_vectors"]


class ItemVectorRows(NamedTuple):
    """Vectors, and the items that they are of.

    Attributes:
        read: gives some of the vectors, (n, width) floating, by a slice.
        rows: (vectors,) int64, the row of the item table that each is of.
    """

    read: Callable[[slice], np.ndarray]
    rows: np.ndarray


def encode_items(
    items: TableBlocks,
    vectors: ItemVectorRows,
    tokenizer: RecBaseTokenizer,
    folder: Path,
    *,
    mirrors: int = 0,
    share: Share,
) -> np.ndarray:
    """Semantic IDs (1 + mirrors, items, levels) int32, the first as `ItemCatalog.from_items` gives them.

    Items without a vector have -1.

    Args:
        items: the item table, whose texts are read only where the tokenizer keeps semantic IDs apart.
        vectors: of the items.
        tokenizer: its quantizer, mean and collision policy.
        folder: for files of parts, which a later call takes up.
        mirrors: how many mirror images of the catalog follow.
        share: every process takes its own parts.
    """
    parts = [slice(start, min(start + SUMMED, len(vectors.rows))) for start in range(0, len(vectors.rows), SUMMED)]
    folder.mkdir(parents=True, exist_ok=True)
    sums = [folder / f"sum-{number:05d}.npy" for number in range(len(parts))]
    for part, path in progress(list(share.mine(zip(parts, sums, strict=True))), description="mean of the catalog"):
        if not path.exists():
            _save(path, _unit_vectors(vectors, part).sum(axis=0, dtype=np.float64))
    share.wait()
    quantizer = tokenizer.quantizer
    prior = quantizer.corpus_mean.cpu().numpy(), quantizer.config.mean_shrinkage
    mean = mean_of_sums([np.load(path) for path in sums], len(vectors.rows), *prior)
    images = _Images(tokenizer, mean, mirrors)
    if tokenizer.collisions != "keep":
        codes = _apart(items, vectors, images)
    else:
        files = [folder / f"codes-{number:05d}.npy" for number in range(len(parts))]
        for part, path in progress(list(share.mine(zip(parts, files, strict=True))), description="semantic IDs"):
            if not path.exists():
                unit = _unit_vectors(vectors, part)
                codes = np.stack([tokenizer.encode_items(image, mean=mean) for image in images.of(unit)])
                _save(path, codes.astype(np.int32))
        share.wait()
        codes = np.concatenate([np.load(path) for path in files], axis=1)
    codes_of_items = np.full((1 + mirrors, items.num_rows, codes.shape[2]), -1, dtype=np.int32)
    codes_of_items[:, vectors.rows] = codes
    return codes_of_items


class _Images:
    """The catalog as it is, and its mirror images."""

    def __init__(self, tokenizer: RecBaseTokenizer, mean: np.ndarray, mirrors: int) -> None:
        self.tokenizer, self.mean, self.mirrors = tokenizer, mean, Mirrors(tokenizer.quantizer) if mirrors else None
        self.numbers = range(1 + mirrors)

    def of(self, vectors: np.ndarray) -> Iterator[np.ndarray]:
        for number in self.numbers:
            yield vectors if self.mirrors is None else self.mirrors.image(vectors, self.mean, number)


def _apart(items: TableBlocks, vectors: ItemVectorRows, images: _Images) -> np.ndarray:
    """Under a policy that keeps texts apart, which has to see all of them at once."""
    import datasets

    table = pa.concat_tables(list(items)).take(pa.array(vectors.rows))
    texts = template_of(images.tokenizer).render_all(datasets.Dataset(table))
    unit = normalize_rows(vectors.read(slice(None)))
    return np.stack([assign_codes(images.tokenizer, image, texts, mean=images.mean) for image in images.of(unit)])


def rows_of_vectors(ids: pa.ChunkedArray, items: IdIndex, place: str) -> np.ndarray:
    """The item row of each vector id, (n,) int64.

    Raises:
        DataError: an id is not in the item table, or comes twice.
    """
    rows = items.find(ids)
    if (rows < 0).any():
        first = int(np.argmax(rows < 0))
        raise DataError(
            f"{place}, row {first + 1}, column 'item_id': {ids[first].as_py()!r} is not in the item table; "
            "add the item, or make the vectors again for this table"
        )
    if len(np.unique(rows)) < len(rows):
        raise DataError(f"{place}: an item id comes twice; make the vectors again for this table")
    return rows


def _unit_vectors(vectors: ItemVectorRows, part: slice) -> np.ndarray:
    try:
        return normalize_rows(vectors.read(part))
    except DataError as error:
        raise DataError(f"item vectors from row {part.start + 1}: {error}") from None


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
