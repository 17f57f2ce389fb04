"""From a table of items to ids, titles, texts and vectors, each checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recbase_hf.data.tables import read_items
from recbase_hf.errors import DataError
from recbase_hf.text.template import ItemTemplate, require_texts
from recbase_hf.text.vector_cache import encode_with_cache

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["ItemTexts", "read_texts", "template_of", "text_source", "vectors_of"]


class ItemTexts(NamedTuple):
    """Ids, titles (for people) and texts (for the text encoder), an item each."""

    item_ids: list[str]
    titles: list[str]
    texts: list[str]

    def select(self, rows: np.ndarray) -> ItemTexts:
        """Those of (n,) rows, in that order."""
        return ItemTexts(*([values[row] for row in rows.tolist()] for values in self))


def read_texts(items: Any, template: ItemTemplate) -> ItemTexts:
    """Read a table of items, in any form that `ItemCatalog.from_items` takes.

    Raises:
        DataError: no column `item_id`, an id is missing or twice, or a column of the template is missing.
    """
    table = read_items(items)
    item_ids, texts = table["item_id"][:], template.render_all(table)
    return ItemTexts(item_ids, _titles(table, texts, item_ids), texts)


def template_of(tokenizer: RecBaseTokenizer) -> ItemTemplate:
    """How the tokenizer wants items to be written.

    Raises:
        TypeError: it knows no items.
    """
    if not hasattr(tokenizer, "item_template"):
        raise TypeError(
            f"{type(tokenizer).__name__} is a plain tokenizer, which cannot encode items; load it by "
            "recbase_hf.RecBaseTokenizer.from_pretrained, or import that class before AutoTokenizer loads it"
        )
    return ItemTemplate.from_dict(tokenizer.item_template or {})


def text_source(tokenizer: RecBaseTokenizer) -> dict[str, Any]:
    """What a catalog remembers of the way its vectors were made: `text_encoder`, its revision, `item_template`."""
    return {
        "text_encoder": tokenizer.text_encoder_name,
        "text_encoder_revision": tokenizer.text_encoder_revision,
        "item_template": template_of(tokenizer).to_dict(),
    }


def vectors_of(
    items: ItemTexts,
    tokenizer: RecBaseTokenizer,
    vectors: np.ndarray | None = None,
    *,
    trust_remote_code: bool = False,
) -> np.ndarray:
    """Vectors (items, width) float32 of unit length: those given, else the texts' by the tokenizer's encoder.

    Args:
        items: their texts are encoded where no vectors are given.
        tokenizer: vectors of the encoder that it names are cached; one that was attached to it is simply called.
        vectors: (items, width), where they are at hand.
        trust_remote_code: whether the encoder's repository may run its own code.

    Raises:
        DataError: a text is empty, or a vector is not finite or of the wrong width.
    """
    if vectors is None:
        require_texts(items.texts, items.item_ids)
        vectors = _encode(tokenizer, items.texts, trust_remote_code)
    return _unit_vectors(vectors, items.item_ids, tokenizer.quantizer.config.input_dim)


def _encode(tokenizer: RecBaseTokenizer, texts: list[str], trust_remote_code: bool) -> np.ndarray:
    if tokenizer.attached_text_encoder is not None or tokenizer.text_encoder_name is None:
        return tokenizer.encode_texts(texts)
    return encode_with_cache(
        texts,
        template_of(tokenizer),
        encoder=tokenizer.text_encoder_name,
        revision=tokenizer.text_encoder_revision,
        trust_remote_code=trust_remote_code,
    )


def _titles(table: Any, texts: Sequence[str], item_ids: Sequence[str]) -> list[str]:
    """The column `title` or `name`, else the first line of the text, else the id."""
    lines = [text.partition("\n")[0] or item_id for text, item_id in zip(texts, item_ids, strict=True)]
    for column in ("title", "name"):
        if column in table.column_names:
            return [str(value) if value else line for value, line in zip(table[column], lines, strict=True)]
    return lines


def _unit_vectors(vectors: np.ndarray, item_ids: Sequence[str], width: int) -> np.ndarray:
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
