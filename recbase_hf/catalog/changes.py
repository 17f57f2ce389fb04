"""How a catalog changes as items come and go, and what such changes do to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.catalog.collisions import Taken, assign_codes
from recbase_hf.catalog.measures import drift, is_shared_by_texts, numbered_texts, reconstruction_cosines
from recbase_hf.catalog.reading import ItemTexts, read_texts, template_of, text_source, vectors_of
from recbase_hf.errors import DataError
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.modeling.centering import center

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.catalog.item_catalog import ItemCatalog

__all__ = ["CatalogDiff", "DriftReport", "add_items", "diff", "remove", "texts_and_vectors_under"]

SAMPLE = 10_000
"""Old items that stand for all of them when the new ones are compared with them."""

BATCH = 8192
"""Items that are decoded at a time."""

MEAN_HAS_MOVED = 0.1
"""At this distance a rebuild gives about one item in seven another first code, and most items another semantic ID
(measured on catalogs of films, games, clothes, jokes and musicians with MiniLM vectors)."""

MANY_UNLIKE_TRAINING = 0.05
MANY_COLLIDE = 0.05


@dataclass(frozen=True)
class DriftReport:
    """How items that were added to a catalog fit in. `str()` says it in words, with advice.

    Attributes:
        num_old: items that were there.
        num_added: items that were added.
        num_added_texts: distinct texts among them.
        num_colliding: of these texts, how many share a semantic ID with another text, an old or a new one.
        cosine_old: mean cosine of (at most 10,000) old items, centered, with what their semantic IDs decode to.
        cosine_new: the same for the new items.
        share_unlike_training: share of the new items whose cosine is below that of 99 % of the items that the quantizer
            was fitted on; 0.01 is to be expected. None if the tokenizer does not know those.
        mean_shift: distance of the catalog's mean, which stays, from the mean that all items have now; the vectors have
            length 1.
    """

    num_old: int
    num_added: int
    num_added_texts: int
    num_colliding: int
    cosine_old: float
    cosine_new: float
    share_unlike_training: float | None
    mean_shift: float

    @property
    def advice(self) -> list[str]:
        """What to do about it, if anything."""
        found = []
        if self.mean_shift > MEAN_HAS_MOVED:
            found.append(
                "the mean has moved: build the catalog anew from all items (recbase build-catalog, or "
                "ItemCatalog.from_items), or the old center makes new items look alike"
            )
        if (self.share_unlike_training or 0.0) > MANY_UNLIKE_TRAINING:
            found.append(
                "many new items are unlike what the tokenizer was trained on: check their texts (language, template), "
                "or train a tokenizer on items of this kind"
            )
        if self.num_colliding > MANY_COLLIDE * self.num_added_texts:
            found.append(
                "many new items score like others: a tokenizer with a larger codebook, or with the collision policy "
                "reassign, would tell them apart"
            )
        return found

    def __str__(self) -> str:
        lines = [
            f"{self.num_added:,} items added to {self.num_old:,}; {self.num_colliding:,} of their "
            f"{self.num_added_texts:,} different texts share a semantic ID with another text, old or new",
            f"cosine of items and their reconstruction: new {self.cosine_new:.3f}, old {self.cosine_old:.3f}",
            f"mean of all items: {self.mean_shift:.3f} from the catalog's",
        ]
        if self.share_unlike_training is not None:
            lines.insert(
                2, f"reconstructed worse than 99 % of the training items: {self.share_unlike_training:.1%} of the new"
            )
        return "\n".join([*lines, *(f"advice: {advice}" for advice in self.advice or ["none needed"])])


@dataclass(frozen=True)
class CatalogDiff:
    """What a newer catalog changes; tuples of item ids, in the order of the catalog that holds them.

    Attributes:
        added: only in the newer catalog.
        removed: only in the older one.
        changed_texts: in both, with different texts.
        changed_codes: in both, with different semantic IDs.
        fingerprints: of the older and of the newer catalog.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed_texts: tuple[str, ...]
    changed_codes: tuple[str, ...]
    fingerprints: tuple[str, str]

    @property
    def same_tokenizer(self) -> bool:
        """Whether the semantic IDs of one mean the same in the other."""
        return self.fingerprints[0] == self.fingerprints[1]

    @property
    def is_empty(self) -> bool:
        """Whether the catalogs hold the same."""
        return self.same_tokenizer and not (self.added or self.removed or self.changed_texts or self.changed_codes)

    def __str__(self) -> str:
        if self.is_empty:
            return "no difference"
        parts = {
            "added": self.added,
            "removed": self.removed,
            "with another text": self.changed_texts,
            "with another semantic ID": self.changed_codes if self.same_tokenizer else (),
        }
        lines = [f"{len(ids):,} {what}: {_some(ids)}" for what, ids in parts.items() if ids]
        if not self.same_tokenizer:
            old, new = self.fingerprints
            lines.append(f"made with different tokenizers, {old} and {new}: their semantic IDs cannot be compared")
        return "\n".join(lines)


def _some(ids: tuple[str, ...], count: int = 5) -> str:
    return ", ".join(ids[:count]) + (", ..." if len(ids) > count else "")


def add_items(
    catalog: ItemCatalog,
    items: Any,
    *,
    tokenizer: RecBaseTokenizer,
    vectors: np.ndarray | None,
    trust_remote_code: bool = False,
) -> tuple[ItemCatalog, DriftReport]:
    """See `ItemCatalog.add_items`."""
    require_same_fingerprint(tokenizer=tokenizer.fingerprint, catalog=catalog.fingerprint)
    old_vectors, mean = catalog.require_vectors()
    new = read_texts(items, template_of(tokenizer))
    known = [row for row, item_id in enumerate(new.item_ids) if item_id in catalog]
    if known:
        raise DataError(
            f"{len(known):,} of {len(new.item_ids):,} items are in the catalog already, the first in row "
            f"{known[0] + 1} (item_id {new.item_ids[known[0]]!r}); leave them out, or remove the old ones first "
            "(recbase catalog remove, or catalog.remove)"
        )
    vectors = vectors_of(new, tokenizer, vectors, trust_remote_code=trust_remote_code)
    codes = assign_codes(tokenizer, vectors, new.texts, mean=mean, taken=Taken(catalog.codes, catalog.texts))
    grown = replace(
        catalog,
        item_ids=[*catalog.item_ids, *new.item_ids],
        titles=[*catalog.titles, *new.titles],
        texts=[*catalog.texts, *new.texts],
        codes=np.concatenate([catalog.codes, codes]),
        vectors=np.concatenate([old_vectors, vectors]),
    )
    return grown, _drift(grown, len(catalog), tokenizer)


def remove(catalog: ItemCatalog, item_ids: Iterable[Any]) -> ItemCatalog:
    """See `ItemCatalog.remove`."""
    kept = np.setdiff1d(np.arange(len(catalog)), catalog.rows(item_ids))
    if not len(kept):
        raise DataError(f"this would remove all {len(catalog):,} items, and a catalog holds at least one; delete it")
    return replace(
        catalog,
        **ItemTexts(catalog.item_ids, catalog.titles, catalog.texts).select(kept)._asdict(),
        codes=catalog.codes[kept],
        vectors=None if catalog.vectors is None else catalog.vectors[kept],
    )


def diff(old: ItemCatalog, new: ItemCatalog) -> CatalogDiff:
    """See `ItemCatalog.diff`."""
    common = [item_id for item_id in old.item_ids if item_id in new]
    old_rows, new_rows = old.rows(common), new.rows(common)
    if old.codes.shape[1] == new.codes.shape[1]:
        has_other_codes = (old.codes[old_rows] != new.codes[new_rows]).any(axis=1)
    else:
        has_other_codes = np.ones(len(common), dtype=bool)
    rows = zip(common, old_rows.tolist(), new_rows.tolist(), strict=True)
    return CatalogDiff(
        added=tuple(item_id for item_id in new.item_ids if item_id not in old),
        removed=tuple(item_id for item_id in old.item_ids if item_id not in new),
        changed_texts=tuple(item_id for item_id, left, right in rows if old.texts[left] != new.texts[right]),
        changed_codes=tuple(common[row] for row in np.flatnonzero(has_other_codes)),
        fingerprints=(old.fingerprint, new.fingerprint),
    )


def texts_and_vectors_under(
    catalog: ItemCatalog,
    tokenizer: RecBaseTokenizer,
    *,
    items: Any,
    vectors: np.ndarray | None,
    trust_remote_code: bool = False,
) -> tuple[ItemTexts, np.ndarray]:
    """The catalog's items as another tokenizer wants them; see `ItemCatalog.migrate`."""
    source = text_source(tokenizer)
    texts = ItemTexts(catalog.item_ids, catalog.titles, catalog.texts)
    if items is not None:
        table = read_texts(items, template_of(tokenizer))
        texts = table.select(_rows_in(table, catalog.item_ids))
    elif catalog.item_template != source["item_template"]:
        written = catalog.item_template or "which it does not name"
        raise DataError(
            f"the catalog's texts were written by another item template ({written}) than the tokenizer's "
            f"({source['item_template']}); give the item table (--items, or items=...) to write them anew"
        )
    is_same = texts.texts == catalog.texts and all(getattr(catalog, name) == value for name, value in source.items())
    if vectors is None and catalog.vectors is not None and catalog.text_encoder is not None and is_same:
        return texts, catalog.vectors
    return texts, vectors_of(texts, tokenizer, vectors, trust_remote_code=trust_remote_code)


def _rows_in(table: ItemTexts, item_ids: list[str]) -> np.ndarray:
    row_of_id = {item_id: row for row, item_id in enumerate(table.item_ids)}
    missing = [item_id for item_id in item_ids if item_id not in row_of_id]
    if missing:
        raise DataError(
            f"{len(missing):,} of the catalog's {len(item_ids):,} items are not in the item table, the first is "
            f"{missing[0]!r}; add them to the table, or remove them from the catalog first (recbase catalog remove, or "
            "catalog.remove)"
        )
    return np.array([row_of_id[item_id] for item_id in item_ids], dtype=np.int64)


def _drift(catalog: ItemCatalog, num_old: int, tokenizer: RecBaseTokenizer) -> DriftReport:
    """How the items from row `num_old` on fit in with those before."""
    vectors, mean = catalog.require_vectors()
    sample = np.linspace(0, num_old - 1, min(num_old, SAMPLE)).astype(np.int64)
    cosines = _cosines_of_own_codes(tokenizer, vectors[num_old:], mean)
    fitted = tokenizer.quantizer.fitted_cosines.cpu().numpy()
    return DriftReport(
        num_old=num_old,
        num_added=len(catalog) - num_old,
        num_added_texts=len(set(catalog.texts[num_old:])),
        num_colliding=_count_colliding(catalog, num_old),
        cosine_old=float(_cosines_of_own_codes(tokenizer, vectors[sample], mean).mean()),
        cosine_new=float(cosines.mean()),
        share_unlike_training=None if np.isnan(fitted).any() else drift(cosines, fitted),
        mean_shift=float(np.linalg.norm(tokenizer.catalog_mean(vectors) - mean)),
    )


def _count_colliding(catalog: ItemCatalog, num_old: int) -> int:
    """Distinct texts of the items from row `num_old` on that share a semantic ID with another text."""
    text = numbered_texts(catalog.texts)
    is_shared = is_shared_by_texts(catalog.trie.leaves, text)
    return len(np.unique(text[num_old:][is_shared[num_old:]]))


def _cosines_of_own_codes(tokenizer: RecBaseTokenizer, vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(items,) cosine of centered vectors with what the quantizer's own codes decode to, before any is reassigned."""
    import torch

    found = []
    for start in range(0, len(vectors), BATCH):
        centered = center(vectors[start : start + BATCH], mean)
        codes = tokenizer.quantizer.encode(torch.from_numpy(centered))
        found.append(reconstruction_cosines(centered, tokenizer.quantizer.decode(codes).float().cpu().numpy()))
    return np.concatenate(found)
