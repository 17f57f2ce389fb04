"""`recbase catalog VERB`: what happens to a catalog after it has been built.

Each verb has a dataclass of options and a function of the same name. A changed catalog goes back into its own folder,
whole or not at all, unless `--output` names another, which must not hold a catalog yet.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import cast

from recbase_hf.catalog import ItemCatalog
from recbase_hf.catalog.index_files import IndexForm
from recbase_hf.commands.build_catalog import answer_of_catalog, load_tokenizer, require_no_catalog
from recbase_hf.commands.command import Answer, Command, Group
from recbase_hf.commands.options import resolve_folder
from recbase_hf.config import option

__all__ = ["COMMAND", "Add", "Diff", "Export", "Import", "Migrate", "Remove"]

_CATALOG = "catalog folder"
_OUTPUT = "folder of the new catalog; default the old one's"
_TRUST = "let the encoder's repository run its own code (NV-Embed-v2 needs it)"


@dataclass(frozen=True)
class Add:
    """Add items to a catalog; the semantic IDs of its own stay."""

    catalog: str = option(help=_CATALOG)
    model: str = option(help="bundle or tokenizer that made the catalog")
    items: str = option(help="table of the new items")
    output: str | None = option(None, help=_OUTPUT)
    trust_remote_code: bool = option(False, help=_TRUST)


@dataclass(frozen=True)
class Remove:
    """Remove items from a catalog."""

    catalog: str = option(help=_CATALOG)
    item_ids: tuple[str, ...] = option(help="what to remove")
    output: str | None = option(None, help=_OUTPUT)


@dataclass(frozen=True)
class Diff:
    """Print what a newer catalog changes."""

    old: str = option(help=_CATALOG)
    new: str = option(help=_CATALOG)


@dataclass(frozen=True)
class Migrate:
    """Bring the items of a catalog under another tokenizer."""

    catalog: str = option(help=_CATALOG)
    model: str = option(help="bundle or tokenizer to go to")
    items: str | None = option(None, help="item table; needed where the tokenizer writes items in another way")
    output: str | None = option(None, help=_OUTPUT)
    trust_remote_code: bool = option(False, help=_TRUST)


@dataclass(frozen=True)
class Import:
    """Make a catalog of published codes. Without --model no model accepts it, but it can be inspected."""

    items: str = option(help="item table, in the rows that the codes were made for")
    codes: str = option(help="index file (.json), or a table with the columns item_id, c1, c2, ...")
    output: str = option("runs/catalog", help="folder of the catalog")
    codebook_size: int | None = option(None, help="codes a level; default that of --model, else 1024")
    first_key: int = option(0, help="key of the first row in an index file: 0, or 1 as an older converter wrote them")
    model: str | None = option(None, help="bundle or tokenizer that made the codes, if you know it")


@dataclass(frozen=True)
class Export:
    """Write the codes of a catalog as an index file, which names items by their row."""

    catalog: str = option(help=_CATALOG)
    output: str = option(help="index file to write, such as shop.index.json")
    form: str = option("offset", help="numbers that are token ids, or tokens", choices=("offset", "tokens"))


def _add(options: Add) -> Answer:
    output = _output(options)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    catalog = ItemCatalog.from_pretrained(options.catalog, tokenizer=tokenizer)
    catalog, report = catalog.add_items(
        resolve_folder(options.items), tokenizer=tokenizer, trust_remote_code=options.trust_remote_code
    )
    saved = _saved(catalog, output)
    return Answer(f"{report}\n{saved.text}", {**saved.content, "added": asdict(report)})


def _remove(options: Remove) -> Answer:
    output = _output(options)
    return _saved(ItemCatalog.from_pretrained(options.catalog).remove(options.item_ids), output)


def _diff(options: Diff) -> Answer:
    found = ItemCatalog.from_pretrained(options.old).diff(ItemCatalog.from_pretrained(options.new))
    return Answer(str(found), asdict(found))


def _migrate(options: Migrate) -> Answer:
    output = _output(options)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    items = None if options.items is None else resolve_folder(options.items)
    catalog = ItemCatalog.from_pretrained(options.catalog)
    catalog = catalog.migrate(tokenizer, items=items, trust_remote_code=options.trust_remote_code)
    return _saved(catalog, output)


def _import(options: Import) -> Answer:
    require_no_catalog(options.output)
    tokenizer = None if options.model is None else load_tokenizer(options.model)
    default_size = 1024 if tokenizer is None else tokenizer.layout.codebook_size
    catalog = ItemCatalog.from_codes(
        resolve_folder(options.items),
        options.codes,
        codebook_size=options.codebook_size or default_size,
        first_key=options.first_key,
        tokenizer=tokenizer,
    )
    return _saved(catalog, options.output)


def _export(options: Export) -> Answer:
    catalog = ItemCatalog.from_pretrained(options.catalog)
    catalog.export_index(options.output, form=cast(IndexForm, options.form))
    content = {"file": options.output, "items": len(catalog), "form": options.form}
    return Answer(f"{options.output}: {len(catalog)} items, form {options.form}", content)


def _output(options: Add | Remove | Migrate) -> str:
    """Where the changed catalog goes: into its own folder, or into another that holds none yet."""
    if options.output is None or os.path.realpath(options.output) == os.path.realpath(options.catalog):
        return options.catalog
    require_no_catalog(options.output)
    return options.output


def _saved(catalog: ItemCatalog, folder: str) -> Answer:
    catalog.save_pretrained(folder)
    return answer_of_catalog(catalog, folder)


COMMAND = Group(
    "catalog",
    {
        "add": (Command("catalog add", Add, _add), "add items; the semantic IDs of the others stay"),
        "remove": (Command("catalog remove", Remove, _remove), "remove items"),
        "diff": (Command("catalog diff", Diff, _diff), "what a newer catalog changes"),
        "migrate": (Command("catalog migrate", Migrate, _migrate), "the same items under another tokenizer"),
        "import": (Command("catalog import", Import, _import), "published codes to a catalog"),
        "export": (Command("catalog export", Export, _export), "the codes of a catalog to an index file"),
    },
)
