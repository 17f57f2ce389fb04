"""`recbase data`: everybody's data to the two-table form, and that to parts, vectors and token shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbase_hf.commands.command import Answer, Command, Group
from recbase_hf.commands.csv_options import CsvOptions, told_columns, told_losses
from recbase_hf.commands.data_pack import Encode, Pack, run_encode, run_pack
from recbase_hf.commands.data_split import LeakageOptions, Split, leakage, split
from recbase_hf.config import option
from recbase_hf.data.checks import check_tables
from recbase_hf.data.prepare.own_csv import own_data
from recbase_hf.data.prepare.prepared import PublishedData, prepare
from recbase_hf.data.prepare.registry import DATA_SETS, published_data

__all__ = ["COMMAND", "Check", "FromCsv", "List", "Prepare"]

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
    output: str = option(help="folder for the tables")
    unknown_items: str = option("drop", help=_UNKNOWN, choices=("drop", "error"))


@dataclass(frozen=True)
class Check:
    """Look over a folder in the two-table form; the exit code is 1 if something in it is an error."""

    folder: str = option(help="folder with items.* and interactions.*")


@dataclass(frozen=True, kw_only=True)
class FromCsv(CsvOptions):
    """Turn an ordinary log, a delimited file with a header, into the two-table form.

    Columns that nobody names are recognized by usual names, such as customer_id, sku, date.
    """

    log: str = option(help="the file, an event a row")
    output: str = option(help="folder for the tables")
    unknown_items: str = option("drop", help=_UNKNOWN, choices=("drop", "error"))


def list_data(options: List) -> Answer:
    """The registry."""
    found = [published_data(name) for name in options.names or sorted(DATA_SETS)]
    lines = []
    for published in found:
        if not options.names:  # one line each; there are many
            lines.append(f"{published.name:45} {published.domain:20} {published.source}")
            continue
        lines += [
            f"{published.name} ({published.domain})",
            f"  files    {', '.join(published.files)}",
            f"  from     {published.source}",
            f"  license  {published.license}",
            f"  text     {', '.join(published.text_fields)}",
            f"  liked    {published.label_rule}",
        ]
    names = ("domain", "files", "source", "license", "text_fields", "label_rule")
    content = {published.name: {name: getattr(published, name) for name in names} for published in found}
    return Answer("\n".join(lines), content)


def prepare_data(options: Prepare) -> Answer:
    """Prepare, and say what came out."""
    return _prepare(published_data(options.name), options.raw, options)


def from_csv(options: FromCsv) -> Answer:
    """Map, and say what came out."""
    columns = options.columns_of(options.log)
    answer = _prepare(own_data(columns, Path(options.output).resolve().name), str(Path(options.log).parent), options)
    text = "\n".join([*told_columns(columns), answer.text])
    return Answer(text, {**answer.content, "columns": columns.event_columns()})


def _prepare(published: PublishedData, raw: str, options: Prepare | FromCsv) -> Answer:
    facts = prepare(published, raw, options.output, unknown_items=options.unknown_items)  # type: ignore[arg-type]
    rows = ", ".join(f"{count:,} {name}" for name, count in facts["rows"].items())
    lines = [f"{options.output}: {rows}; license: {facts['license']}"]
    # Every event of an item repeats its texts, where these stand in the log.
    lines += told_losses(facts, repeats=not isinstance(options, FromCsv) or options.items is not None)
    return Answer("\n".join(lines), facts)


def check(options: Check) -> Answer:
    """The findings; the answer is no where one is an error."""
    findings = check_tables(options.folder)
    levels = {finding.level for finding in findings}
    lines = [f"{finding.level:8} {finding.message}" for finding in findings]
    if "error" not in levels:
        fit = "usable, see the warnings" if "warning" in levels else "fit for training and evaluation"
        lines.append(f"{options.folder}: {fit}")
    content = {"findings": [{"level": finding.level, "message": finding.message} for finding in findings]}
    return Answer("\n".join(lines), content, is_yes="error" not in levels)


COMMAND = Group(
    "data",
    {
        "list": (Command("data list", List, list_data, positional=("names",)), "what there is"),
        "prepare": (Command("data prepare", Prepare, prepare_data, positional=("name",)), "raw files to tables"),
        "from-csv": (Command("data from-csv", FromCsv, from_csv, positional=("log",)), "an ordinary log to tables"),
        "check": (
            Command("data check", Check, check, positional=("folder",)),
            "what is wrong with tables, and the fix",
        ),
        "split": (Command("data split", Split, split), "training, validation and test parts, by user or by time"),
        "leakage": (
            Command("data leakage", LeakageOptions, leakage),
            "whether what is to be predicted was there to learn from",
        ),
        "encode": (Command("data encode", Encode, run_encode), "item texts to a file of vectors, at any size"),
        "pack": (
            Command("data pack", Pack, run_pack),
            "histories to token shards, at any size; also accelerate launch examples/pack.py",
        ),
    },
)
