"""A folder of text vectors, so that only new and changed texts are ever encoded."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file
from recbase_hf.progress import progress
from recbase_hf.text.encoder import TextEncoder, load_text_encoder
from recbase_hf.text.template import ItemTemplate

__all__ = ["VectorCache", "default_cache_folder", "encode_with_cache"]

CHUNK = 1_024
"""Texts per shard: what an interrupted run can lose."""

KEY_BYTES = 16

_logger = logging.getLogger(__name__)


def default_cache_folder() -> Path:
    """`$RECBASE_CACHE` if it is set, otherwise `~/.cache/recbase_hf`."""
    configured = os.environ.get("RECBASE_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "recbase_hf"


def encode_with_cache(
    texts: Sequence[str], template: ItemTemplate, *, encoder: str, revision: str | None, trust_remote_code: bool = False
) -> np.ndarray:
    """Vectors (n, width) float32 of item texts by the encoder of that name, from the default cache if they are there.

    Args:
        texts: as `template` rendered them.
        template: part of the key.
        encoder: name of the text encoder; its model is loaded only if a text is not in the cache.
        revision: of the encoder.
        trust_remote_code: whether the encoder's repository may run its own code.
    """
    model = load_text_encoder(encoder, revision, trust_remote_code=trust_remote_code)
    return VectorCache(default_cache_folder() / "vectors").encode(texts, model, template)


class VectorCache:
    """Text vectors in safetensors shards, found by encoder name, revision, template and text.

    The shards of one encoder and template lie in a folder of their own. A shard's name holds the hash of its
    content: processes that write at the same time do not meet, and a truncated or altered shard is noticed, set
    aside and encoded again.

    Args:
        folder: where the shards are kept; made on the first write.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def encode(self, texts: Sequence[str], encoder: TextEncoder, template: ItemTemplate) -> np.ndarray:
        """Vectors of the texts, (n, dimension) float32; each distinct text that is not cached is encoded once.

        Args:
            texts: n texts as `template` rendered them.
            encoder: called with at most 1,024 texts at a time; each result is stored before the next call.
            template: what rendered the texts; part of the key.

        Raises:
            DataError: the encoder gave vectors of another shape, or NaN or infinity; the message names the row.
        """
        shards = self._shard_folder(encoder, template)
        keys = [_key(text) for text in texts]
        first_row: dict[bytes, int] = {}
        source = np.array([first_row.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)

        found = []
        for shard_keys, shard_vectors in _read_shards(shards):
            rows = np.array([first_row.get(key.tobytes(), -1) for key in shard_keys], dtype=np.int64)
            found.append((rows[rows >= 0], shard_vectors[rows >= 0]))
        # An encoder may have to load its model to know its width, so it is not asked where all is there.
        widths = {part.shape[1] for _, part in found if len(part)}
        complete = len({row for rows, _ in found for row in rows.tolist()}) == len(first_row)
        width = widths.pop() if complete and len(widths) == 1 else encoder.dimension

        vectors = np.empty((len(texts), width), dtype=np.float32)
        known = np.zeros(len(texts), dtype=bool)
        for rows, part in found:
            if part.shape[1] == width:
                vectors[rows] = part
                known[rows] = True

        missing = np.array([row for row in first_row.values() if not known[row]], dtype=np.int64)
        for rows in _chunks(missing):
            vectors[rows] = _encode_rows(texts, rows, encoder)
            _write_shard(shards, [keys[row] for row in rows], vectors[rows], encoder, template)

        repeated = np.flatnonzero(source != np.arange(len(texts)))
        vectors[repeated] = vectors[source[repeated]]
        return vectors

    def _shard_folder(self, encoder: TextEncoder, template: ItemTemplate) -> Path:
        identity = json.dumps([encoder.name, encoder.revision, template.to_dict()], sort_keys=True)
        return self.folder / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()[:KEY_BYTES]


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    starts = range(0, len(rows), CHUNK)
    for start in progress(starts, description="Encoding texts") if len(rows) > CHUNK else starts:
        yield rows[start : start + CHUNK]


def _encode_rows(texts: Sequence[str], rows: np.ndarray, encoder: TextEncoder) -> np.ndarray:
    """Fresh vectors of the texts in `rows`, checked: whatever is stored is believed for ever after."""
    vectors = np.asarray(encoder.encode([texts[row] for row in rows]), dtype=np.float32)
    expected = (len(rows), encoder.dimension)
    if vectors.shape != expected:
        raise DataError(f"the text encoder {encoder.name!r} gave vectors of shape {vectors.shape}, expected {expected}")
    broken = rows[~np.isfinite(vectors).all(axis=1)]
    if len(broken):
        raise DataError(
            f"the text encoder {encoder.name!r} gave NaN or infinity for text {broken[0]}, {texts[broken[0]][:80]!r}; "
            "try a wider number format (float32) or change the text"
        )
    return vectors


def _write_shard(
    folder: Path, keys: list[bytes], vectors: np.ndarray, encoder: TextEncoder, template: ItemTemplate
) -> None:
    tensors = {"keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES), "vectors": vectors}
    metadata = {
        "encoder": encoder.name,
        "revision": encoder.revision or "",
        "template": json.dumps(template.to_dict(), ensure_ascii=False),
    }
    content = save(tensors, metadata)
    number = sum(1 for _ in folder.glob("*.safetensors"))
    with atomic_file(folder / f"{number:05d}-{_content_hash(content)}.safetensors") as temporary:
        temporary.write_bytes(content)


def _read_shards(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Keys, (n, 16) uint8, and vectors, (n, width) float32, of every shard that is whole."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            yield _read_shard(path)
        except (OSError, ValueError, SafetensorError) as error:
            _logger.warning("%s is set aside, its texts will be encoded again: %s", path, error)
            with suppress(OSError):  # a read-only cache, or another process was quicker
                path.rename(path.with_suffix(".broken"))


def _read_shard(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    if not path.stem.endswith(f"-{_content_hash(content)}"):
        raise ValueError("the content does not have the hash in the file name")
    tensors = load(content)
    keys, vectors = tensors.get("keys"), tensors.get("vectors")
    if keys is None or vectors is None or vectors.dtype != np.float32:
        raise ValueError("it does not hold keys and float32 vectors")
    if vectors.ndim != 2 or keys.shape != (len(vectors), KEY_BYTES):
        raise ValueError(f"it holds keys {keys.shape} and vectors {vectors.shape}")
    return keys, vectors


def _content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
