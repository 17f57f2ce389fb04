"""`recbase build-catalog`: an item table to a catalog folder."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recbase_hf.bundle import located, require_folder_if_path
from recbase_hf.catalog import ItemCatalog
from recbase_hf.catalog.storage import FACTS
from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import resolve_folder
from recbase_hf.config import option

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["COMMAND", "BuildCatalog", "build_catalog", "load_tokenizer", "require_no_catalog"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildCatalog:
    """Encode a table of items into a catalog."""

    model: str = option(help="bundle or tokenizer: a folder or a Hub id")
    items: str = option(help="Parquet, CSV or JSON-lines file with item_id and text columns, or a folder with items.*")
    output: str = option("runs/catalog", help="folder of the catalog")
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")


def build_catalog(options: BuildCatalog) -> ItemCatalog:
    """Build and save; a catalog that is in the folder already is not overwritten."""
    require_no_catalog(options.output)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    catalog = ItemCatalog.from_items(
        resolve_folder(options.items), tokenizer=tokenizer, trust_remote_code=options.trust_remote_code
    )
    catalog.save_pretrained(options.output)
    return catalog


def require_no_catalog(folder: str) -> None:
    """Raise if writing a catalog into the folder would overwrite one.

    Raises:
        FileExistsError: there is a catalog.
    """
    if (Path(folder) / FACTS).exists():
        raise FileExistsError(f"{folder} holds a catalog already; choose another --output, or delete that folder")


def load_tokenizer(name_or_path: str, *, trust_remote_code: bool = False) -> RecBaseTokenizer:
    """The tokenizer of a bundle, or one by itself.

    Args:
        name_or_path: a folder or a Hub id.
        trust_remote_code: whether the repository of its text encoder is going to run its own code.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: code is to be trusted of an encoder that the tokenizer does not name.
    """
    from recbase_hf.auto import RecBaseTokenizer

    name_or_path = str(located(name_or_path))
    require_folder_if_path(name_or_path)
    tokenizer = RecBaseTokenizer.from_pretrained(name_or_path)
    if trust_remote_code and tokenizer.text_encoder_name is None:
        raise ValueError(
            f"the tokenizer in {name_or_path} names no text encoder whose code could be trusted; leave out "
            "--trust-remote-code, or train a tokenizer that names its encoder"
        )
    return tokenizer


def run(options: BuildCatalog) -> Answer:
    """Build, save, and say how many items share a semantic ID."""
    return answer_of_catalog(build_catalog(options), options.output)


def answer_of_catalog(catalog: ItemCatalog, folder: str) -> Answer:
    """Where a catalog is, and how many of its items share a semantic ID."""
    collisions = catalog.collisions()
    content = {"catalog": folder, "fingerprint": catalog.fingerprint, "collisions": asdict(collisions)}
    return Answer(f"{folder}: {collisions}", content)


COMMAND = Command("build-catalog", BuildCatalog, run)
