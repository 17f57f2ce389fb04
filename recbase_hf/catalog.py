"""ItemCatalog: the items that can be scored and recommended, with their ids, texts, vectors and semantic IDs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.data.tables import read_items
from recbase_hf.errors import DataError, UnknownItemError
from recbase_hf.files import atomic_folder, read_json, write_json
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.modeling.centering import center
from recbase_hf.text.template import ItemTemplate, require_texts
from recbase_hf.text.vector_cache import encode_with_cache
from recbase_hf.trie import CodeTrie, build_trie

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["CollisionReport", "ItemCatalog"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class CollisionReport:
    """How many items share a semantic ID. Colliding items are kept; they score alike.

    Attributes:
        num_items: items in the catalog.
        num_semantic_ids: distinct semantic IDs among them.
        num_colliding_items: items that share their semantic ID with another item.
        num_colliding_texts: distinct texts that share their semantic ID with a different text; identical texts are one
            item to a text model, so only these are the quantizer's doing.
        largest_bucket: ids of the items under the most crowded semantic ID.
    """

    num_items: int
    num_semantic_ids: int
    num_colliding_items: int
    num_colliding_texts: int
    largest_bucket: tuple[str, ...]


class ItemCatalog:
    """A catalog of items under one tokenizer.

    Attributes:
        item_ids: (items,) str.
        titles: one short line an item, for people.
        texts: what the text encoder read, an item.
        codes: (items, levels) int64 semantic IDs.
        vectors: (items, width) float32, unit length, as the text encoder gave them.
        mean: (width,) float32, what is subtracted from the vectors before quantizer and similarities.
        codebook_size: codes a level.
        fingerprint: of the tokenizer that made the codes.
    """

    def __init__(
        self,
        *,
        item_ids: Sequence[str],
        titles: Sequence[str],
        texts: Sequence[str],
        codes: np.ndarray,
        vectors: np.ndarray,
        mean: np.ndarray,
        codebook_size: int,
        fingerprint: str,
    ) -> None:
        self.item_ids = list(item_ids)
        self.titles = list(titles)
        self.texts = list(texts)
        self.codes = codes
        self.vectors = vectors
        self.mean = mean
        self.codebook_size = codebook_size
        self.fingerprint = fingerprint

    @classmethod
    def from_items(cls, items: Any, *, tokenizer: RecBaseTokenizer, vectors: np.ndarray | None = None) -> ItemCatalog:
        """Encode a table of items.

        Args:
            items: a path to Parquet, CSV or JSON-lines, a folder that holds `items.*`, a `datasets.Dataset`, a
                DataFrame, or a list of dictionaries; it needs a column `item_id` and text columns.
            tokenizer: gives the item template, the text encoder and the quantizer. Vectors of the encoder that it names
                are cached; an encoder that was attached to it is simply called.
            vectors: (items, width) sentence vectors, where they are at hand; otherwise the texts are encoded.

        Raises:
            DataError: an id is missing or twice, a text is empty, a vector is not finite or of the wrong width.
        """
        table = read_items(items)
        item_ids = table["item_id"][:]
        template = ItemTemplate.from_dict(tokenizer.item_template or {})
        texts = template.render_all(table)
        if vectors is None:
            require_texts(texts, item_ids)
            vectors = _encode(tokenizer, texts, template)
        vectors = _checked_vectors(vectors, item_ids, tokenizer.quantizer.config.input_dim)
        mean = tokenizer.catalog_mean(vectors)
        return cls(
            item_ids=item_ids,
            titles=_titles(table, texts),
            texts=texts,
            codes=tokenizer.encode_items(vectors, mean=mean),
            vectors=vectors,
            mean=mean,
            codebook_size=tokenizer.layout.codebook_size,
            fingerprint=tokenizer.fingerprint,
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        return f"ItemCatalog({len(self):,} items, {len(self.trie.bucket_sizes):,} semantic IDs, {self.fingerprint})"

    @cached_property
    def trie(self) -> CodeTrie:
        """The semantic IDs as a trie."""
        return build_trie(self.codes, self.codebook_size)

    @cached_property
    def centered_vectors(self) -> np.ndarray:
        """(items, width) float32: vectors less the catalog's mean, scaled to unit length."""
        return center(self.vectors, self.mean)

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    def rows(self, item_ids: Iterable[Any]) -> np.ndarray:
        """Catalog rows (n,) int64 of item ids.

        Raises:
            UnknownItemError: an id is not in the catalog.
        """
        try:
            return np.array([self._row_of_id[str(item_id)] for item_id in item_ids], dtype=np.int64)
        except KeyError as error:
            raise UnknownItemError(
                f"item {error.args[0]!r} is not in the catalog of {len(self):,} items; "
                "drop it, or build the catalog from a table that holds it"
            ) from None

    def collisions(self) -> CollisionReport:
        """Which items share a semantic ID."""
        leaves = self.trie.paths[:, -1]
        sizes = self.trie.bucket_sizes
        distinct = {(leaf, text): None for leaf, text in zip(leaves.tolist(), self.texts, strict=True)}
        texts_per_leaf = np.bincount([leaf for leaf, _ in distinct], minlength=len(sizes))
        largest = np.flatnonzero(leaves == sizes.argmax())
        return CollisionReport(
            num_items=len(self),
            num_semantic_ids=len(sizes),
            num_colliding_items=int(sizes[sizes > 1].sum()),
            num_colliding_texts=int(texts_per_leaf[texts_per_leaf > 1].sum()),
            largest_bucket=tuple(self.item_ids[row] for row in largest),
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the catalog into a folder: Parquet, safetensors and JSON, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from safetensors.numpy import save_file

        with atomic_folder(folder) as temporary:
            columns = {"item_id": self.item_ids, "title": self.titles, "text": self.texts}
            codes = pa.FixedSizeListArray.from_arrays(pa.array(self.codes.ravel(), pa.int32()), self.codes.shape[1])
            pq.write_table(pa.table({**columns, "codes": codes}), temporary / "items.parquet")
            save_file({"mean": self.mean, "vectors": self.vectors}, temporary / "vectors.safetensors")
            facts = {
                "format_version": FORMAT_VERSION,
                "fingerprint": self.fingerprint,
                "num_items": len(self),
                "codebook_size": self.codebook_size,
            }
            write_json(temporary / "catalog.json", facts)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, tokenizer: RecBaseTokenizer | None = None) -> ItemCatalog:
        """Read a catalog back.

        Args:
            folder: what `save_pretrained` wrote.
            tokenizer: if given, checked to be the one that made the catalog.

        Raises:
            FileNotFoundError: the folder is not a catalog.
            FingerprintMismatchError: made with another tokenizer.
            DataError: a file is damaged or the files do not belong together.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        for name in ("catalog.json", "items.parquet", "vectors.safetensors"):
            if not (folder / name).exists():
                raise FileNotFoundError(f"{folder} is not a catalog: {name} is missing; write one with save_pretrained")
        try:
            facts = read_json(folder / "catalog.json")
            if facts["format_version"] > FORMAT_VERSION:
                raise DataError(f"{folder} was written by a newer recbase-hf; upgrade with: pip install -U recbase-hf")
            codebook_size, fingerprint, num_items = (
                facts[name] for name in ("codebook_size", "fingerprint", "num_items")
            )
            table = pq.read_table(folder / "items.parquet")
            columns = {name: table[name].to_pylist() for name in ("item_id", "title", "text")}
            codes = np.asarray(table["codes"].combine_chunks().flatten(), dtype=np.int64)
            arrays = load_file(folder / "vectors.safetensors")
            vectors, mean = arrays["vectors"], arrays["mean"]
        except DataError:
            raise
        except (pa.ArrowException, SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"the catalog in {folder} is damaged ({error}); build it again") from error
        if tokenizer is not None:
            require_same_fingerprint(tokenizer=tokenizer.fingerprint, catalog=fingerprint)
        if not len(table) == len(vectors) == num_items or mean.shape != vectors.shape[1:]:
            raise DataError(
                f"{folder}: items.parquet has {len(table)} items, vectors.safetensors {len(vectors)}, catalog.json "
                f"{num_items} (vectors {vectors.shape}, mean {mean.shape}); they do not belong together: "
                "build the catalog again"
            )
        in_range = ((codes >= 0) & (codes < codebook_size)).all()
        if not in_range or len(set(columns["item_id"])) < num_items or not np.isfinite(vectors).all():
            raise DataError(
                f"the catalog in {folder} was tampered with (a code out of range, an item id twice, or a vector "
                "that is not finite); build it again"
            )
        return cls(
            item_ids=columns["item_id"],
            titles=columns["title"],
            texts=columns["text"],
            codes=codes.reshape(num_items, -1),
            vectors=vectors,
            mean=mean,
            codebook_size=codebook_size,
            fingerprint=fingerprint,
        )


def _encode(tokenizer: RecBaseTokenizer, texts: list[str], template: ItemTemplate) -> np.ndarray:
    if tokenizer.attached_text_encoder is not None or tokenizer.text_encoder_name is None:
        return tokenizer.encode_texts(texts)
    return encode_with_cache(
        texts, template, encoder=tokenizer.text_encoder_name, revision=tokenizer.text_encoder_revision
    )


def _titles(table: Any, texts: list[str]) -> list[str]:
    for column in ("title", "name"):
        if column in table.column_names:
            values = zip(table[column], texts, strict=True)
            return [str(value) if value else _first_line(text) for value, text in values]
    return [_first_line(text) for text in texts]


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def _checked_vectors(vectors: np.ndarray, item_ids: list[str], width: int) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.shape != (len(item_ids), width):
        raise DataError(
            f"the vectors have shape {vectors.shape}, the tokenizer takes ({len(item_ids)}, {width}): one row an item, "
            "from the text encoder that the tokenizer names"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(
            f"the vector of item {item_ids[bad[0]]!r} (row {bad[0] + 1}) holds NaN or infinity; encode it again"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 1e-12, lengths, 1.0))
