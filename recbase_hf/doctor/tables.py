"""What the doctor examines: item tables with whatever is known of their texts, codes and vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.catalog.reading import read_texts
from recbase_hf.errors import DataError
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.modeling.centering import center
from recbase_hf.text.template import ItemTemplate

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.catalog import ItemCatalog

__all__ = ["NO_TEXT", "NO_VECTOR", "ItemTable", "name_of_source", "table_of_catalog", "table_of_items"]

NO_TEXT, NO_VECTOR = "no text", "no vector"
"""Why items are left out."""


@dataclass(frozen=True)
class ItemTable:
    """One table of items; what is None is not known, and what needs it is reported as not measured.

    Attributes:
        name: what the report calls it.
        item_ids: (items,) ids.
        titles: one short line an item, for the examples.
        texts: what the text encoder reads, an item.
        codes: (items, levels) integer semantic IDs, zero-based.
        vectors: (items, width) floating, centered sentence vectors.
        decoded: (items, width) floating, what the codes decode to.
        last_level_counts: whether the last code only counts the items that share the codes before it (`digit` of the
            tokenizer's collision policies); None: as the codes look.
        left_out: items of the source that are not in the table, by reason ("no text" or "no vector").

    Raises:
        DataError: there is no item, the parts differ in length, a vector is not finite, or codes are no codes.
    """

    name: str
    item_ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str] | None = None
    codes: np.ndarray | None = None
    vectors: np.ndarray | None = None
    decoded: np.ndarray | None = None
    last_level_counts: bool | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.item_ids) == 0:
            raise DataError(f"{self.name}: there are no items; give at least one")
        for part in ("titles", "texts", "codes", "vectors", "decoded"):
            values = getattr(self, part)
            if values is not None and len(values) != len(self):
                raise DataError(f"{self.name}: {len(values)} {part} for {len(self)} items; give one for each item")
        for part in ("vectors", "decoded"):
            self._require_finite(part)
        self._require_codes()

    def __len__(self) -> int:
        return len(self.item_ids)

    def _require_finite(self, part: str) -> None:
        array = getattr(self, part)
        if array is None:
            return
        if array.ndim != 2 or array.dtype.kind != "f":
            raise DataError(f"{self.name}: {part} are {array.dtype} of shape {array.shape}; give floats (items, width)")
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise DataError(
                f"{self.name}, row {bad[0] + 1} of {part} (item {self.item_ids[bad[0]]!r}): NaN or infinity, "
                f"as in {len(bad) - 1} more; encode these items again"
            )

    def _require_codes(self) -> None:
        codes = self.codes
        if codes is None:
            return
        if codes.ndim != 2 or codes.shape[1] == 0 or codes.dtype.kind not in "iu":
            raise DataError(
                f"{self.name}: codes are {codes.dtype} of shape {codes.shape}; give integers (items, levels)"
            )
        if codes.min() < 0:
            row, level = np.argwhere(codes < 0)[0]
            raise DataError(
                f"{self.name}, row {row + 1} (item {self.item_ids[row]!r}), level {level + 1}: code "
                f"{codes[row, level]} is negative; codes count from 0"
            )


def table_of_catalog(catalog: ItemCatalog, *, name: str, tokenizer: RecBaseTokenizer | None = None) -> ItemTable:
    """The table of a catalog; with the tokenizer that made it, its codes are decoded too.

    Raises:
        FingerprintMismatchError: the catalog was made with another tokenizer.
    """
    if tokenizer is not None:
        require_same_fingerprint(**{"tokenizer": tokenizer.fingerprint, f"catalog {name}": catalog.fingerprint})
    return ItemTable(
        name=name,
        item_ids=catalog.item_ids,
        titles=catalog.titles,
        texts=catalog.texts,
        codes=catalog.codes,
        vectors=None if catalog.vectors is None else catalog.centered_vectors,
        decoded=None if tokenizer is None or catalog.vectors is None else _decoded(catalog, tokenizer),
        last_level_counts=None if tokenizer is None else tokenizer.collisions == "digit",
    )


def _decoded(catalog: ItemCatalog, tokenizer: RecBaseTokenizer) -> np.ndarray:
    """What the codes decode to, (items, width) float32; each semantic ID is decoded once."""
    first = catalog.trie.items[catalog.trie.first_item[:-1]]
    return tokenizer.decode_items(catalog.codes[first])[catalog.trie.leaves]


def table_of_items(
    items: Any,
    vectors: np.ndarray | None = None,
    *,
    codes: np.ndarray | None = None,
    name: str | None = None,
    template: ItemTemplate | None = None,
) -> ItemTable:
    """The table of bare items, before there is a tokenizer.

    Args:
        items: a file, a folder with `items.*`, a Dataset, a DataFrame, or a list of dictionaries (see `read_items`).
        vectors: (items, width) sentence vectors as the text encoder gave them; they are centered on their mean here.
        codes: (items, levels) integer semantic IDs from elsewhere.
        name: default that of the file or folder.
        template: how columns become the text; default the column `text`, else all text columns.

    Raises:
        DataError: the table cannot be read, or vectors or codes do not fit it.
    """
    known = read_texts(items, template or ItemTemplate())
    if vectors is not None:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim == 2 and np.isfinite(vectors).all():  # what else it is, the table says better
            vectors = center(vectors, vectors.mean(axis=0, dtype=np.float64))
    return ItemTable(
        name=name_of_source(items) if name is None else name,
        **known._asdict(),
        codes=codes,
        vectors=vectors,
    )


def name_of_source(source: Any) -> str:
    """A file's name without its ending, a folder's name, or that of the folder for a file called `items.*`.

    >>> name_of_source("shops/toys/items.parquet"), name_of_source("shops/toys"), name_of_source("toys.csv.gz")
    ('toys', 'toys', 'toys')
    """
    if not isinstance(source, (str, os.PathLike)):
        return "items"
    path = Path(source).resolve()
    stem = path.name if path.is_dir() else path.name.partition(".")[0]
    return path.parent.name if stem == "items" else stem
