"""ItemCatalog: the items that can be scored and recommended, with their ids, texts, vectors and semantic IDs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from recbase_hf.catalog import changes, storage
from recbase_hf.catalog.changes import CatalogDiff, DriftReport
from recbase_hf.catalog.collisions import CollisionReport, assign_codes, collision_report
from recbase_hf.catalog.index_files import IndexForm, checked_codes, hash_of_codes, read_codes, write_index
from recbase_hf.catalog.reading import ItemTexts, read_texts, template_of, text_source, vectors_of
from recbase_hf.catalog.trie import CodeTrie, build_trie
from recbase_hf.errors import DataError, UnknownItemError
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.modeling.centering import center
from recbase_hf.quantizers.geometry import Mirrors
from recbase_hf.text.template import ItemTemplate

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.doctor.diagnosis import Diagnosis
    from recbase_hf.publishing.push import Push

__all__ = ["ItemCatalog"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ItemCatalog:
    """A catalog of items under one tokenizer. It never changes: `add_items`, `remove` and `migrate` give a new one.

    Attributes:
        item_ids: (items,) str.
        titles: one short line an item, for people.
        texts: what the text encoder read, an item.
        codes: (items, levels) int64 semantic IDs.
        vectors: (items, width) float32, unit length, as the text encoder gave them; None if only the codes are known.
        mean: (width,) float32, what is subtracted from the vectors before quantizer and similarities; None likewise.
        codebook_size: codes a level.
        fingerprint: of the tokenizer that made the codes.
        text_encoder: name of the encoder that made the vectors, where it is known.
        text_encoder_revision: its revision, where one was pinned.
        item_template: how the texts were written, as a dictionary; None if that is not known.
    """

    item_ids: list[str]
    titles: list[str]
    texts: list[str]
    codes: np.ndarray
    vectors: np.ndarray | None
    mean: np.ndarray | None
    codebook_size: int
    fingerprint: str
    text_encoder: str | None = None
    text_encoder_revision: str | None = None
    item_template: dict[str, Any] | None = None

    # ---- building ----------------------------------------------------------------------------------------------

    @classmethod
    def from_items(
        cls,
        items: Any,
        *,
        tokenizer: RecBaseTokenizer,
        vectors: np.ndarray | None = None,
        trust_remote_code: bool = False,
    ) -> ItemCatalog:
        """Encode a table of items.

        Args:
            items: a path to Parquet, CSV or JSON-lines, a folder that holds `items.*`, a `datasets.Dataset`, a
                DataFrame, or a list of dictionaries; it needs a column `item_id` and text columns.
            tokenizer: gives the item template, the text encoder, the quantizer and what to do about items that get the
                same semantic ID. Vectors of the encoder that it names are cached; an encoder that was attached to it is
                simply called.
            vectors: (items, width) sentence vectors, where they are at hand; otherwise the texts are encoded.
            trust_remote_code: whether the repository of the encoder that the tokenizer names may run its own code.

        Raises:
            DataError: an id is missing or twice, a text is empty, a vector is not finite or of the wrong width, or too
                many items want the same semantic ID (see `recbase_hf.catalog.collisions.assign_codes`).
        """
        texts = read_texts(items, template_of(tokenizer))
        vectors = vectors_of(texts, tokenizer, vectors, trust_remote_code=trust_remote_code)
        return cls._of_vectors(texts, vectors, tokenizer)

    @classmethod
    def _of_vectors(cls, items: ItemTexts, vectors: np.ndarray, tokenizer: RecBaseTokenizer) -> ItemCatalog:
        mean = tokenizer.catalog_mean(vectors)
        return cls(
            **items._asdict(),
            codes=assign_codes(tokenizer, vectors, items.texts, mean=mean),
            vectors=vectors,
            mean=mean,
            codebook_size=tokenizer.layout.codebook_size,
            fingerprint=tokenizer.fingerprint,
            **text_source(tokenizer),
        )

    @classmethod
    def from_codes(
        cls,
        items: Any,
        codes: np.ndarray | str | Path,
        *,
        codebook_size: int = 1024,
        first_key: int = 0,
        tokenizer: RecBaseTokenizer | None = None,
        fingerprint: str | None = None,
    ) -> ItemCatalog:
        """Take semantic IDs as somebody else has published them, for items whose vectors are not needed.

        Such a catalog can be scored, inspected, changed by `remove` and exported; it has no vectors, so items cannot be
        added. A scorer accepts it only if it has the scorer's fingerprint.

        Args:
            items: a table as in `from_items`; text columns are optional, unless the tokenizer's template names them.
            codes: (items, levels) integers from 0, in the rows of the table, or a file that `read_codes` reads.
            codebook_size: codes a level.
            first_key: of an index file, 0 or 1: the key of the first row.
            tokenizer: the one that made the codes, if it is known.
            fingerprint: of that tokenizer, where only this is known; by default a hash of the codes, `codes-...`, which
                no tokenizer has.

        Raises:
            DataError: the codes do not belong to the items, are out of range or do not fit the tokenizer.

        >>> catalog = ItemCatalog.from_codes([{"item_id": "a"}, {"item_id": "b"}], [[0, 3], [1, 0]], codebook_size=4)
        >>> catalog
        ItemCatalog(2 items, 2 semantic IDs, codes-857279fc9e600228)
        """
        texts = read_texts(items, ItemTemplate() if tokenizer is None else template_of(tokenizer))
        if isinstance(codes, str | Path):
            codes = read_codes(codes, texts.item_ids, codebook_size=codebook_size, first_key=first_key)
        codes = checked_codes(codes, len(texts.item_ids), codebook_size=codebook_size)
        if tokenizer is not None:
            layout = tokenizer.layout
            if (layout.num_levels, layout.codebook_size) != (codes.shape[1], codebook_size):
                raise DataError(
                    f"the codes have {codes.shape[1]} levels of {codebook_size}, the tokenizer has {layout.num_levels} "
                    f"of {layout.codebook_size}, so it has not made them; leave the tokenizer out"
                )
            fingerprint = tokenizer.fingerprint
        return cls(
            **texts._asdict(),
            codes=codes,
            vectors=None,
            mean=None,
            codebook_size=codebook_size,
            fingerprint=fingerprint or f"codes-{hash_of_codes(codes, codebook_size)}",
        )

    def mirrored(self, number: int, *, tokenizer: RecBaseTokenizer) -> ItemCatalog:
        """The same items with the semantic IDs of a mirror image of their vectors.

        To a model that has learned from mirror images (`mirrors` of `recbase pretrain`) each is another view of a
        catalog that it does not know; the mean of the scores over several views is better than one of them.

        Args:
            number: of the image, from 1; 0 is the catalog as it is.
            tokenizer: the one that made the semantic IDs.

        Raises:
            DataError: the catalog was made of codes only.
            FingerprintMismatchError: another tokenizer made the semantic IDs.
        """
        require_same_fingerprint(tokenizer=tokenizer.fingerprint, catalog=self.fingerprint)
        vectors, mean = self.require_vectors()
        if not number:
            return self
        image = Mirrors(tokenizer.quantizer).image(vectors, mean, number)
        return replace(self, vectors=image, codes=assign_codes(tokenizer, image, self.texts, mean=mean))

    # ---- looking -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        num_ids = self.trie.num_nodes(self.trie.num_levels)
        return f"ItemCatalog({len(self):,} items, {num_ids:,} semantic IDs, {self.fingerprint})"

    @cached_property
    def trie(self) -> CodeTrie:
        """The semantic IDs as a trie; that of a saved catalog comes from its file, where there is one."""
        return build_trie(self.codes, self.codebook_size)

    def __getstate__(self) -> dict[str, Any]:
        # What scorers keep here belongs to their models, which a copy or another process does not have.
        return {name: value for name, value in vars(self).items() if name != "priors"}

    @cached_property
    def priors(self) -> WeakKeyDictionary[Any, dict[Any, Any]]:
        """What a scorer keeps of its language model's scores under an empty history, by model."""
        return WeakKeyDictionary()

    @cached_property
    def centered_vectors(self) -> np.ndarray:
        """(items, width) float32: vectors less the catalog's mean, scaled to unit length.

        Raises:
            DataError: the catalog was made of codes only.
        """
        return center(*self.require_vectors())

    def require_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (items, width) and mean (width,).

        Raises:
            DataError: the catalog was made of codes only.
        """
        if self.vectors is None or self.mean is None:
            raise DataError(
                "the catalog was made of codes only and has no vectors; build it from its items with "
                "recbase build-catalog, or ItemCatalog.from_items"
            )
        return self.vectors, self.mean

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    def __contains__(self, item_id: Any) -> bool:
        return str(item_id) in self._row_of_id

    def rows(self, item_ids: Iterable[Any]) -> np.ndarray:
        """Catalog rows (n,) int64 of item ids.

        Raises:
            UnknownItemError: an id is not in the catalog.
            TypeError: one string instead of a list.
        """
        if isinstance(item_ids, str):
            raise TypeError(f"give a list of item ids, not the single string {item_ids!r}")
        try:
            return np.array([self._row_of_id[str(item_id)] for item_id in item_ids], dtype=np.int64)
        except KeyError as error:
            raise UnknownItemError(
                f"item {error.args[0]!r} is not in the catalog of {len(self):,} items"
                f"{self._meant(error.args[0])}; drop it, or build the catalog from a table that holds it"
            ) from None

    def _meant(self, item_id: str) -> str:
        """A hint to the id that lost its leading zeros in a spreadsheet, or is written in other letters."""
        plain = item_id.casefold().lstrip("0")
        like = next((other for other in self.item_ids if other.casefold().lstrip("0") == plain), None)
        return "" if like is None else f" (did you mean {like!r}?)"

    def collisions(self) -> CollisionReport:
        """Which items share a semantic ID."""
        return collision_report(self.item_ids, self.texts, self.trie)

    def diagnose(self, tokenizer: RecBaseTokenizer | None = None) -> Diagnosis:
        """What is wrong with these semantic IDs, if anything; with their tokenizer also how well it knows the items."""
        from recbase_hf.doctor.diagnosis import diagnose_catalogs

        return diagnose_catalogs([self], tokenizer=tokenizer)

    # ---- changing ----------------------------------------------------------------------------------------------

    def add_items(
        self,
        items: Any,
        *,
        tokenizer: RecBaseTokenizer,
        vectors: np.ndarray | None = None,
        trust_remote_code: bool = False,
    ) -> tuple[ItemCatalog, DriftReport]:
        """The catalog with further items behind its own, and whether they fit in.

        The new items are coded around the mean that the catalog has, and the collision policy gives way to the old
        ones: no semantic ID of an old item changes. What that costs once the catalog has become another one, the report
        says.

        Args:
            items: a table as in `from_items`.
            tokenizer: the one that made the catalog.
            vectors: (new items, width), where they are at hand.
            trust_remote_code: whether the repository of the encoder that the tokenizer names may run its own code.

        Raises:
            DataError: an id is in the catalog already, the catalog has no vectors, or as in `from_items`.
            FingerprintMismatchError: the tokenizer is another.
        """
        return changes.add_items(self, items, tokenizer=tokenizer, vectors=vectors, trust_remote_code=trust_remote_code)

    def remove(self, item_ids: Iterable[Any]) -> ItemCatalog:
        """The catalog without these items; the others keep their semantic IDs, and the catalog its mean.

        Raises:
            UnknownItemError: an id is not in the catalog.
            DataError: no item would be left.
        """
        return changes.remove(self, item_ids)

    def diff(self, other: ItemCatalog) -> CatalogDiff:
        """What `other`, as the newer catalog, changes; the order of the items does not count.

        >>> old = ItemCatalog.from_codes([{"item_id": "a"}, {"item_id": "b"}], [[0, 3], [1, 0]], codebook_size=4)
        >>> print(old.diff(old.remove(["a"])))
        1 removed: a
        """
        return changes.diff(self, other)

    def migrate(
        self,
        tokenizer: RecBaseTokenizer,
        *,
        items: Any = None,
        vectors: np.ndarray | None = None,
        trust_remote_code: bool = False,
    ) -> ItemCatalog:
        """The same items under another tokenizer, around a mean of their own.

        The vectors are used again if text encoder (name and revision) and item template are those that made them;
        otherwise the texts are encoded.

        Args:
            items: the item table, as in `from_items`; needed only if the template differs or is not known. It may hold
                more items than the catalog.
            vectors: (items, width) in the catalog's rows, where they are at hand.
            trust_remote_code: whether the repository of the encoder that the tokenizer names may run its own code.

        Raises:
            DataError: the table is needed and not given, or lacks an item; or as in `from_items`.
        """
        texts, vectors = changes.texts_and_vectors_under(
            self, tokenizer, items=items, vectors=vectors, trust_remote_code=trust_remote_code
        )
        return self._of_vectors(texts, vectors, tokenizer)

    # ---- on disk -----------------------------------------------------------------------------------------------

    def export_index(self, path: str | Path, *, form: IndexForm = "offset") -> None:
        """Write the codes as an index file of the RecBase authors; ids are not in it, rows are (see `write_index`)."""
        write_index(self.codes, path, codebook_size=self.codebook_size, form=form)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the catalog into a folder: Parquet, safetensors and JSON, whole or not at all."""
        storage.save(self, folder)

    def push_to_hub(self, repo_id: str, *, base: str | None = None, license: str | None = None, **options: Any) -> Push:
        """Publish the catalog, in one commit with its card.

        Args:
            repo_id: `owner/name`; made if it is not there.
            base: Hub id of the bundle whose tokenizer made the catalog.
            license: of items and texts, an identifier that the Hub knows.
            **options: `private`, `revision`, `replace`, `dry_run`, `message`, `token` of
                `recbase_hf.publishing.push_folder`, whose errors these are.
        """
        from recbase_hf.publishing.objects import push_saved

        return push_saved(self.save_pretrained, repo_id, base=base, license=license, **options)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, tokenizer: RecBaseTokenizer | None = None, **hub: Any
    ) -> ItemCatalog:
        """Read a catalog back, from a folder or the Hub.

        Args:
            name_or_path: what `save_pretrained` wrote, or the id of a repository.
            tokenizer: if given, checked to be the one that made the catalog.
            **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

        Raises:
            FileNotFoundError: the folder or repository is not a catalog, or is not there.
            FingerprintMismatchError: made with another tokenizer.
            DataError: a file is damaged or the files do not belong together.
            ConnectionError: the Hub cannot be reached, and the catalog is not in the cache.
        """
        fields, trie = storage.load(storage.folder_of(name_or_path, **hub), tokenizer=tokenizer)
        catalog = cls(**fields)
        if trie is not None:
            # Where cached_property looks. Not a field: `dataclasses.replace` would carry it over to other codes.
            vars(catalog)["trie"] = trie
        return catalog
