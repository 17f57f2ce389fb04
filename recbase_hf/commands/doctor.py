"""`recbase doctor`: is a tokenizer fit for these items, and if not, what is to be done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recbase_hf.catalog import ItemCatalog
from recbase_hf.catalog.index_files import read_codes
from recbase_hf.commands.build_catalog import load_tokenizer
from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import resolve_folder
from recbase_hf.config import option, require_positive
from recbase_hf.data.tables import read_items
from recbase_hf.data.vectors import read_vectors
from recbase_hf.doctor import Diagnosis, diagnose, diagnose_catalogs
from recbase_hf.doctor.measures import empty_texts
from recbase_hf.doctor.tables import NO_TEXT, NO_VECTOR, name_of_source, table_of_catalog, table_of_items
from recbase_hf.doctor.verdicts import SEVERITIES
from recbase_hf.text.template import ItemTemplate

if TYPE_CHECKING:
    import datasets

    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["COMMAND", "Doctor", "doctor"]


@dataclass(frozen=True)
class Doctor:
    """Say what is wrong with the semantic IDs of item tables, or with the tables themselves before there are any.

    The exit status is 0 where no finding is as bad as --fail-on, 1 where one is, and 2 where nothing could be found out
    because of an error, such as a missing file or a wrong option.
    """

    catalog: tuple[str, ...] = option((), help="catalog folders; with --model what their codes decode to is judged too")
    items: tuple[str, ...] = option((), help="item tables or folders with items.*, instead of catalogs")
    model: str | None = option(None, help="bundle or tokenizer (a folder or a Hub id) that made or makes the codes")
    codes: tuple[str, ...] = option(
        (), help="codes published for the --items, in their order: *.index.json, or tables with item_id, c1, c2, ..."
    )
    codebook_size: int = option(1024, help="codes a level, of --codes")
    first_key: int = option(
        0, help="key of the first row in the index files of --codes: 0, or 1 as an older converter wrote them"
    )
    vectors: str | None = option(
        None, help="name of vectors that lie beside the item tables (NAME_f16.npy), instead of encoding"
    )
    item_fields: tuple[str, ...] = option((), help="text columns, without --model; default text, else all of them")
    item_lead: str | None = option(None, help="sentence that opens every item's text, without --model")
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    html: str | None = option(None, help="file for the report with plots and examples")
    fail_on: str = option(
        "fault",
        help="findings from which on the exit status is 1; errors end with 2",
        choices=("fault", "warning", "never"),
    )

    def __post_init__(self) -> None:
        require_positive(self, "codebook_size")
        if bool(self.catalog) == bool(self.items):
            raise ValueError("give --catalog or --items, one of the two")
        _require_distinct("--catalog", self.catalog)
        _require_distinct("--items", self.items)
        if self.catalog and (self.codes or self.vectors):
            raise ValueError("--codes and --vectors belong to --items; a catalog has its own")
        if self.codes and self.vectors:
            raise ValueError("--vectors say nothing about --codes, which nobody can decode; leave them out")
        if self.codes and self.model:
            raise ValueError("--codes are codes made elsewhere; give them or --model, not both")
        if self.codes and len(self.codes) != len(self.items):
            raise ValueError(f"{len(self.codes)} --codes for {len(self.items)} --items; give one for each, in order")
        if self.model and (self.item_fields or self.item_lead):
            raise ValueError("--item-fields and --item-lead are the tokenizer's own; leave them out, or --model")


def doctor(options: Doctor) -> Diagnosis:
    """Diagnose, and write the files that were asked for."""
    tokenizer = _tokenizer(options)
    if options.catalog:
        diagnosis = _of_catalogs(options.catalog, tokenizer)
    elif tokenizer is not None:
        diagnosis = _of_encoded_items(options, tokenizer)
    else:
        diagnosis = _of_bare_items(options)
    if options.html:
        diagnosis.save_html(options.html)
    return diagnosis


def _tokenizer(options: Doctor) -> RecBaseTokenizer | None:
    if options.model is None:
        return None
    return load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)


def _of_catalogs(folders: Sequence[str], tokenizer: RecBaseTokenizer | None) -> Diagnosis:
    names = _names(folders)
    catalogs = (ItemCatalog.from_pretrained(folder, tokenizer=tokenizer) for folder in folders)
    return diagnose_catalogs(dict(zip(names, catalogs, strict=True)), tokenizer)


def _of_encoded_items(options: Doctor, tokenizer: RecBaseTokenizer) -> Diagnosis:
    tables = []
    for source, name in zip(options.items, _names(options.items), strict=True):
        items, vectors, left_out = _read(source, options.vectors)
        if vectors is None:
            items, left_out = _with_texts(items, ItemTemplate.from_dict(tokenizer.item_template or {}))
        catalog = ItemCatalog.from_items(
            items, tokenizer=tokenizer, vectors=vectors, trust_remote_code=options.trust_remote_code
        )
        tables.append(replace(table_of_catalog(catalog, name=name, tokenizer=tokenizer), left_out=left_out))
    return diagnose(
        tables,
        codebook_size=tokenizer.layout.codebook_size,
        fitted_cosines=getattr(tokenizer.quantizer, "fitted_cosines", None),
    )


def _of_bare_items(options: Doctor) -> Diagnosis:
    template = ItemTemplate(fields=options.item_fields or None, lead=options.item_lead)
    tables = []
    for number, (source, name) in enumerate(zip(options.items, _names(options.items), strict=True)):
        items, vectors, left_out = _read(source, options.vectors)
        codes = None
        if options.codes:
            codes = read_codes(
                options.codes[number],
                items["item_id"][:],
                codebook_size=options.codebook_size,
                first_key=options.first_key,
            )
        table = table_of_items(items, vectors, codes=codes, name=name, template=template)
        tables.append(replace(table, left_out=left_out))
    return diagnose(tables, codebook_size=options.codebook_size if options.codes else None)


def _read(source: str, vectors_name: str | None) -> tuple[datasets.Dataset, np.ndarray | None, dict[str, int]]:
    """Items, their vectors if any are named, and how many items were left out for want of one."""
    path = resolve_folder(source)
    items = read_items(path)
    if vectors_name is None:
        return items, None, {}
    rows, vectors = read_vectors(path if path.is_dir() else path.parent, items["item_id"][:], vectors_name)
    without = len(items) - len(rows)
    return items.select(rows), vectors, {NO_VECTOR: without} if without else {}


def _with_texts(items: datasets.Dataset, template: ItemTemplate) -> tuple[datasets.Dataset, dict[str, int]]:
    """The items that can be encoded, and how many were left out for want of a text."""
    empty = set(empty_texts(template.render_all(items)).tolist())
    if not empty or len(empty) == len(items):  # without any text the catalog says what is wrong
        return items, {}
    return items.select([row for row in range(len(items)) if row not in empty]), {NO_TEXT: len(empty)}


def _require_distinct(flag: str, sources: Sequence[str]) -> None:
    places = [os.path.realpath(source) for source in sources]
    for source, place in zip(sources, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{flag} names {source} {places.count(place)} times; give each table once")


def _names(sources: Sequence[str]) -> list[str]:
    """What the report calls each source: a short name, or the path where short names are not unique."""
    names = [name_of_source(source) for source in sources]
    return names if len(set(names)) == len(names) else [os.path.normpath(source) for source in sources]


def run(options: Doctor) -> Answer:
    """Diagnose; the answer is no where a finding is as bad as `fail_on`."""
    diagnosis = doctor(options)
    text = str(diagnosis) + (f"\n\nreport: {options.html}" if options.html else "")
    is_fit = options.fail_on == "never" or SEVERITIES.index(diagnosis.worst) < SEVERITIES.index(options.fail_on)
    return Answer(text, diagnosis.to_dict(), is_yes=is_fit)


COMMAND = Command("doctor", Doctor, run)
