"""One domain, ready for training or evaluation: items, sentence vectors and histories from a folder of two tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from recbase_hf.data.blocks import hash_of_items, hash_of_tables
from recbase_hf.data.histories import Histories, build_histories
from recbase_hf.data.tables import read_interactions, read_items
from recbase_hf.data.vectors import find_vectors, open_vectors, read_rows, read_vectors
from recbase_hf.errors import DataError, UnknownItemError
from recbase_hf.files import sha256_of_file
from recbase_hf.text.template import ItemTemplate, require_texts
from recbase_hf.text.vector_cache import encode_with_cache

if TYPE_CHECKING:
    import datasets

__all__ = ["Domain", "DomainVectors", "ItemVectors", "encode_texts", "load_domain", "load_domain_vectors"]

SAMPLE = 100_000
"""Vectors of a domain whose texts are kept, at most."""


@dataclass(frozen=True)
class ItemVectors:
    """Where item vectors come from.

    Attributes:
        encoder: name of the sentence encoder (a Hub id or a folder).
        revision: its revision, where one is pinned.
        template: how an item's columns become a text.
        precomputed: name of vectors that lie beside the tables (`NAME_f16.npy`, `NAME_ids.parquet`) and were made with
            that encoder and template; items without a vector are left out. None encodes the texts, with a cache.
        trust_remote_code: whether the encoder's repository may run its own code.
    """

    encoder: str
    revision: str | None = None
    template: ItemTemplate = field(default_factory=ItemTemplate)
    precomputed: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Domain:
    """Items with their vectors, and users' histories over them.

    Attributes:
        name: the folder's name.
        items: the item table.
        vectors: (items, width) float32 unit vectors.
        histories: positive events a user, as rows of `items`.
        hash: of the tables as they lie in the folder.
        items_hash: of the item ids alone, in any order.
    """

    name: str
    items: datasets.Dataset
    vectors: np.ndarray
    histories: Histories
    hash: str
    items_hash: str


@dataclass(frozen=True)
class DomainVectors:
    """The item vectors of a domain, for fitting a quantizer.

    Attributes:
        name: the folder's name.
        vectors: (items, width), where they lie in a file memory-mapped, so that any number of them can be read.
        hash: of the item table.
        items_hash: of the item ids alone, as in a `Domain`.
        sample: (n,) int64, rows of `vectors`, ascending: all, or 100,000 drawn at random.
        sample_texts: the item texts of these.
        file_hash: of the file of the vectors, where they come from one.
    """

    name: str
    vectors: np.ndarray
    hash: str
    items_hash: str
    sample: np.ndarray
    sample_texts: list[str]
    file_hash: str | None = None


def load_domain_vectors(folder: str | Path, source: ItemVectors) -> DomainVectors:
    """The vectors of the items in a folder; it needs no interactions.

    Raises:
        DataError: the item table or the vectors cannot be used; the message names file, column and row.
        FileNotFoundError: a file is missing.
    """
    folder = Path(folder)
    items = read_items(folder)
    file = None if source.precomputed is None else find_vectors(folder, source.precomputed)
    if file is None:
        vectors, rows = _encode(folder, items, source), np.arange(len(items))
    else:
        vectors = open_vectors(file)
        rows = read_rows(file, items["item_id"][:], len(vectors))
    sample = np.sort(np.random.default_rng(0).permutation(len(rows))[:SAMPLE])
    return DomainVectors(
        name=folder.resolve().name,
        vectors=vectors,
        hash=hash_of_tables(items),
        items_hash=hash_of_items(items),
        sample=sample,
        sample_texts=source.template.render_all(items.select(rows[sample])),
        file_hash=None if file is None else sha256_of_file(file),
    )


def load_domain(
    folder: str | Path, source: ItemVectors, *, unordered_events: Literal["error", "drop"] = "error", seed: int = 0
) -> Domain:
    """Read `items.*` and `interactions.*` of a folder and embed the items.

    Args:
        folder: in the two-table form.
        source: where the vectors come from.
        unordered_events: what to do with events that lack their place in an otherwise ordered history.
        seed: for data sets without any order.

    Raises:
        DataError: a table cannot be used; the message names file, column and row.
        FileNotFoundError: a table is missing.
    """
    folder = Path(folder)
    items, interactions = read_items(folder), read_interactions(folder)
    content_hash, items_hash = hash_of_tables(items, interactions), hash_of_items(items)
    item_ids = items["item_id"][:]
    try:
        histories = build_histories(interactions, item_ids, unordered_events=unordered_events, seed=seed)
    except (DataError, UnknownItemError) as error:
        raise type(error)(f"{folder}: {error}") from None
    if source.precomputed is not None:
        rows, vectors = read_vectors(folder, item_ids, source.precomputed)
        new_row = np.full(len(items), -1)
        new_row[rows] = np.arange(len(rows))
        items, histories = items.select(rows), histories.map_items(new_row)
    else:
        vectors = _encode(folder, items, source)
    if not len(histories):
        raise DataError(f"{folder}: no user has an event with an item of the table; check user_id, item_id and label")
    return Domain(folder.resolve().name, items, vectors, histories, content_hash, items_hash)


def encode_texts(folder: Path, source: ItemVectors) -> np.ndarray:
    """Vectors (items, width) float32 of the texts of the items in a folder, from the cache where they are there."""
    return _encode(folder, read_items(folder), source)


def _encode(folder: Path, items: datasets.Dataset, source: ItemVectors) -> np.ndarray:
    texts = source.template.render_all(items)
    require_texts(texts, items["item_id"][:], place=f"{folder}: ")
    return encode_with_cache(
        texts,
        source.template,
        encoder=source.encoder,
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
    )
