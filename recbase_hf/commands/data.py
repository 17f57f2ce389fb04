"""`recbase data`: everybody's data to the two-table form, and that to parts, vectors and token shards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbase_hf.commands.data_pack import Encode, Pack, encode, pack
from recbase_hf.commands.data_split import LeakageOptions, Split, leakage, split
from recbase_hf.commands.options import log_to_terminal
from recbase_hf.config import option, parse_arguments
from recbase_hf.data.checks import check_tables
from recbase_hf.data.prepare.own_csv import CsvColumns, own_data
from recbase_hf.data.prepare.prepared import PublishedData, prepare
from recbase_hf.data.prepare.registry import DATA_SETS, published_data

__all__ = ["Check", "FromCsv", "List", "Prepare", "main"]

_UNKNOWN = "what names items that the item table lacks: leave out and count, or refuse"


@dataclass(frozen=True)
class List:
    """What data sets can be prepared, where to get them, and on what terms."""

    names: tuple[str, ...] = option((), help="only these")


@dataclass(frozen=True)
class Prepare:
    """Turn the raw files of a published data set into the two-table form."""

    name: str = option(help="as recbase data list says")
    raw: str = option(help="folder with the raw files, as published")
    out: str = option(help="folder for the tables")
    unknown_items: str = option("drop", help=_UNKNOWN, choices=("drop", "error"))


@dataclass(frozen=True)
class Check:
    """Look over a folder in the two-table form; the exit code is 1 if something in it is an error."""

    folder: str = option(help="folder with items.* and interactions.*")


@dataclass(frozen=True)
class FromCsv:
    """Turn an ordinary log, a delimited file with a header, into the two-table form."""

    log: str = option(help="the file, an event a row")
    user_id: str = option(help="its column of the user")
    item_id: str = option(help="its column of the item")
    out: str = option(help="folder for the tables")
    timestamp: str | None = option(None, help="its column of the time, numbers since 1970 or ISO 8601")
    order: str | None = option(None, help="its column of the place in the user's history")
    rating: str | None = option(None, help="its column of the grade")
    label: str | None = option(None, help="its column of liked (1) or not (0)")
    items: str | None = option(None, help="file of the items; default: the texts stand in the log")
    items_id: str | None = option(None, help="its column of the item; default as in the log")
    texts: tuple[str, ...] = option((), help="columns that make an item's text; default all of the file of the items")
    delimiter: str = option(",", help="between cells; `tab` is one too")
    encoding: str = option("utf-8", help="of the files")
    unknown_items: str = option("drop", help=_UNKNOWN, choices=("drop", "error"))


def list_data(options: List) -> None:
    """Print the registry."""
    for name in options.names or sorted(DATA_SETS):
        published = published_data(name)
        if not options.names:  # one line each; there are many
            print(f"{name:45} {published.domain:20} {published.source}")
            continue
        print(f"{name} ({published.domain})")
        print(f"  files    {', '.join(published.files)}")
        print(f"  from     {published.source}")
        print(f"  license  {published.license}")
        print(f"  text     {', '.join(published.text_fields)}")
        print(f"  liked    {published.label_rule}")


def prepare_data(options: Prepare) -> None:
    """Prepare and print what came out."""
    _prepare(published_data(options.name), options.raw, options)


def from_csv(options: FromCsv) -> None:
    """Map and print what came out."""
    log = Path(options.log)
    columns = CsvColumns(
        log=log,
        user_id=options.user_id,
        item_id=options.item_id,
        timestamp=options.timestamp,
        order=options.order,
        rating=options.rating,
        label=options.label,
        items=None if options.items is None else Path(options.items),
        items_id=options.items_id,
        texts=options.texts,
        delimiter="\t" if options.delimiter == "tab" else options.delimiter,
        encoding=options.encoding,
    )
    _prepare(own_data(columns), str(log.parent), options)


def _prepare(published: PublishedData, raw: str, options: Prepare | FromCsv) -> None:
    facts = prepare(published, raw, options.out, unknown_items=options.unknown_items)  # type: ignore[arg-type]
    rows = ", ".join(f"{count:,} {name}" for name, count in facts["rows"].items())
    print(f"{options.out}: {rows}; license: {facts['license']}")
    left_out = {
        "repeated_items": "rows of items that came before",
        "interactions_of_unknown_items": "interactions of items without a row",
        "unknown_history_items": "items without a row in the histories of impressions",
        "unknown_candidates": "candidates without a row in impressions",
        "impressions_left_out": "impressions that lost all candidates, or all that were liked",
    }
    if isinstance(options, FromCsv) and options.items is None:
        del left_out["repeated_items"]  # every event of an item repeats its texts
    counts = {what: facts.get(name, 0) for name, what in left_out.items()}
    for what, count in {**counts, **facts["left_out_of_raw_files"]}.items():
        if count:
            print(f"left out: {count:,} {what}")


def check(options: Check) -> None:
    """Print the findings."""
    findings = check_tables(options.folder)
    for finding in findings:
        print(f"{finding.level:8} {finding.message}")
    if any(finding.level == "error" for finding in findings):
        sys.exit(1)
    warned = any(finding.level == "warning" for finding in findings)
    print(f"{options.folder}: {'usable, see the warnings' if warned else 'fit for training and evaluation'}")


COMMANDS: dict[str, tuple[type, Callable[..., object], str]] = {
    "list": (List, list_data, "what there is"),
    "prepare": (Prepare, prepare_data, "raw files to tables"),
    "from-csv": (FromCsv, from_csv, "an ordinary log to tables"),
    "check": (Check, check, "what is wrong with tables, and the fix"),
    "split": (Split, split, "training, validation and test parts, by user or by time"),
    "leakage": (LeakageOptions, leakage, "whether what is to be predicted was there to learn from"),
    "encode": (Encode, encode, "item texts to a file of vectors, at any size"),
    "pack": (Pack, pack, "histories to token shards, at any size; also accelerate launch examples/pack.py"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one sub-command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in COMMANDS:
        lines = [f"  {name:10} {text}" for name, (_, _, text) in COMMANDS.items()]
        usage = "usage: recbase data COMMAND [--config FILE] [options]\n\n" + "\n".join(lines)
        if arguments and arguments[0] not in ("-h", "--help"):
            sys.exit(f"recbase data: unknown command {arguments[0]!r}\n\n{usage}")
        print(usage)
        sys.exit(0)
    options, run, _ = COMMANDS[arguments[0]]
    first = {Prepare: "--name", Check: "--folder"}.get(options)
    if first and arguments[1:] and not arguments[1].startswith("-"):
        arguments.insert(1, first)  # `prepare NAME`, `check FOLDER`, as everybody would type it
    log_to_terminal()
    run(
        parse_arguments(
            options, arguments[1:], program=f"recbase data {arguments[0]}", description=options.__doc__ or ""
        )
    )
