"""From an item's fields to its vector: the template, the text encoder, and the cache of vectors."""

from __future__ import annotations

from recbase_hf.text.encoder import (
    DEFAULT_TEXT_ENCODER,
    SentenceTransformerEncoder,
    TextEncoder,
    load_text_encoder,
    normalize_rows,
)
from recbase_hf.text.template import ItemTemplate
from recbase_hf.text.vector_cache import VectorCache, default_cache_folder, encode_with_cache

__all__ = [
    "DEFAULT_TEXT_ENCODER",
    "ItemTemplate",
    "SentenceTransformerEncoder",
    "TextEncoder",
    "VectorCache",
    "default_cache_folder",
    "encode_with_cache",
    "load_text_encoder",
    "normalize_rows",
]
