"""Options that several commands share, and what they resolve to."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from recbase_hf.config import option
from recbase_hf.data.domain import DomainVectors, ItemVectors, load_domain_vectors
from recbase_hf.data.python_api import build_python_api
from recbase_hf.files import read_json
from recbase_hf.progress import is_main_process
from recbase_hf.text.encoder import DEFAULT_TEXT_ENCODER, load_text_encoder
from recbase_hf.text.template import ItemTemplate
from recbase_hf.text.vector_cache import default_cache_folder

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = [
    "DataOptions",
    "TextOptions",
    "data_of_training",
    "items_of_training",
    "load_item_vectors",
    "log_to_terminal",
    "require_same_settings",
    "resolve_folder",
    "settings_of_training",
    "vectors_for",
]

EMBEDDED = "python-api/"


@dataclass(frozen=True)
class DataOptions:
    """Which data sets to read."""

    data: tuple[str, ...] = option(
        ("python-api/packages",),
        help="folders with items.* and interactions.*, or the embedded python-api/packages and python-api/stdlib",
    )


@dataclass(frozen=True)
class TextOptions:
    """How items become vectors."""

    text_encoder: str = option(DEFAULT_TEXT_ENCODER, help="sentence encoder: a Hub id or a folder")
    text_encoder_revision: str | None = option(None, help="revision of the encoder on the Hub")
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    item_fields: tuple[str, ...] = option((), help="text columns; default the column text, else all text columns")
    item_lead: str | None = option(None, help="sentence that opens every item's text")
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )

    def item_vectors(self) -> ItemVectors:
        """Where the vectors come from."""
        template = ItemTemplate(fields=self.item_fields or None, lead=self.item_lead)
        revision = self.text_encoder_revision
        if self.vectors is None:  # a local folder has a revision of its own, which tells changed weights
            revision = load_text_encoder(self.text_encoder, revision).revision
        return ItemVectors(
            encoder=self.text_encoder,
            revision=revision,
            template=template,
            precomputed=self.vectors,
            trust_remote_code=self.trust_remote_code,
        )


def resolve_folder(data: str) -> Path:
    """A folder in the two-table form; the embedded data sets are built in the cache when they are asked for."""
    if data.startswith(EMBEDDED):
        name = data.removeprefix(EMBEDDED)
        if name not in ("packages", "stdlib"):
            raise ValueError(f"unknown embedded data set {data!r}; there are python-api/packages and python-api/stdlib")
        domain = cast(Literal["packages", "stdlib"], name)
        return build_python_api(default_cache_folder() / "python-api" / name, domain)
    return Path(data)


def load_item_vectors(options: DataOptions, source: ItemVectors) -> list[DomainVectors]:
    """The item vectors of `--data`; the folders need no interactions.

    Raises:
        ValueError: two folders have the same name, by which domains are told apart.
    """
    _require_distinct_names(options)
    return [load_domain_vectors(resolve_folder(data), source) for data in options.data]


def vectors_for(tokenizer: RecBaseTokenizer, precomputed: str | None, *, trust_remote_code: bool) -> ItemVectors:
    """Where the vectors come from that a tokenizer takes: its own text encoder and template.

    Args:
        precomputed: name of vectors that lie beside the tables; None encodes the texts.
        trust_remote_code: whether the encoder's repository may run its own code.

    Raises:
        ValueError: the tokenizer names no text encoder, and there are no other vectors.
    """
    if tokenizer.text_encoder_name is None and precomputed is None:
        raise ValueError("the tokenizer names no text encoder; name vectors that lie beside the tables with --vectors")
    return ItemVectors(
        encoder=tokenizer.text_encoder_name or "",
        revision=tokenizer.text_encoder_revision,
        template=ItemTemplate.from_dict(tokenizer.item_template or {}),
        precomputed=precomputed,
        trust_remote_code=trust_remote_code,
    )


def _require_distinct_names(options: DataOptions) -> None:
    names = [Path(data).resolve().name for data in options.data]
    if len(set(names)) < len(names):
        raise ValueError(f"two of the data folders have the same name ({', '.join(sorted(names))}); rename one")


def require_same_settings(made: Path, settings: dict, *, what: str) -> bool:
    """Whether `what` was already made in folder `made`, by the same settings.

    Raises:
        ValueError: it was made with other settings, which are named.
    """
    record = made / "training.json"
    if not record.exists():
        return False
    before = read_json(record)["settings"]
    differing = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
    if differing:
        raise ValueError(
            f"{made} holds a {what} made with other settings ({', '.join(differing)}); "
            "choose another --output, or delete that folder"
        )
    return True


def data_of_training(made: str | Path) -> dict[str, str]:
    """Names and hashes of the data sets that a tokenizer or model was made from; none where its folder does not say."""
    return settings_of_training(made).get("data", {})


def items_of_training(made: str | Path) -> dict[str, str]:
    """Names and hashes of the items that a tokenizer was fitted on; none where its folder does not say."""
    return settings_of_training(made).get("items", {})


def settings_of_training(made: str | Path) -> dict[str, Any]:
    """The settings that a folder, or a repository on the Hub, records of its training; none where it does not."""
    from recbase_hf.bundle import bundle_file

    record: Path | None = Path(made) / "training.json"
    if not Path(made).is_dir():
        record = bundle_file(made, "training.json")
    return read_json(record)["settings"] if record is not None and record.exists() else {}


class _ProgressBarHandler(logging.Handler):
    """Writes above a running progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm.auto import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def log_to_terminal() -> None:
    """Show the library's messages on standard error, on the main process."""
    library = logging.getLogger("recbase_hf")
    library.handlers = [_ProgressBarHandler()]
    library.setLevel(logging.INFO if is_main_process() else logging.ERROR)
