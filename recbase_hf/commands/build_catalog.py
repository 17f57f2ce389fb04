"""`recbase build-catalog`: an item table to a catalog folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recbase_hf.bundle import require_folder_if_path
from recbase_hf.catalog import ItemCatalog
from recbase_hf.commands.options import log_to_terminal, resolve_folder
from recbase_hf.config import option, parse_arguments
from recbase_hf.text.encoder import load_text_encoder

__all__ = ["BuildCatalog", "build_catalog", "load_tokenizer", "main"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildCatalog:
    """Encode a table of items into a catalog."""

    model: str = option(help="bundle or tokenizer: a folder or a Hub id")
    items: str = option(help="Parquet, CSV or JSON-lines file with item_id and text columns, or a folder with items.*")
    output: str = option("runs/catalog", help="folder of the catalog")
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")


def build_catalog(options: BuildCatalog) -> ItemCatalog:
    """Build and save."""
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    catalog = ItemCatalog.from_items(resolve_folder(options.items), tokenizer=tokenizer)
    catalog.save_pretrained(options.output)
    logger.info("%s: %s", options.output, catalog.collisions())
    return catalog


def load_tokenizer(name_or_path: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a bundle, or one by itself; its text encoder may run code of its own if that is trusted."""
    from recbase_hf.auto import RecBaseTokenizer

    require_folder_if_path(name_or_path)
    tokenizer = RecBaseTokenizer.from_pretrained(name_or_path)
    if trust_remote_code:
        tokenizer.attached_text_encoder = load_text_encoder(
            tokenizer.text_encoder_name, tokenizer.text_encoder_revision, trust_remote_code=True
        )
    return tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and build."""
    options = parse_arguments(
        BuildCatalog, arguments, program="recbase build-catalog", description=BuildCatalog.__doc__ or ""
    )
    log_to_terminal()
    build_catalog(options)
