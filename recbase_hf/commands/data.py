"""`recbase data`: published data sets to the two-table form."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recbase_hf.commands.options import log_to_terminal
from recbase_hf.config import option, parse_arguments
from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.data.prepare.registry import DATA_SETS, published_data

__all__ = ["List", "Prepare", "main"]


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
    unknown_items: str = option(
        "drop",
        help="interactions of items that the item table lacks: leave out and count, or refuse",
        choices=("drop", "error"),
    )


def list_data(options: List) -> None:
    """Print the registry."""
    for name in options.names or sorted(DATA_SETS):
        published = published_data(name)
        print(f"{name} ({published.domain})")
        print(f"  files    {', '.join(published.files)}")
        print(f"  from     {published.source}")
        print(f"  license  {published.license}")
        print(f"  text     {', '.join(published.text_fields)}")
        print(f"  liked    {published.label_rule}")


def prepare_data(options: Prepare) -> None:
    """Prepare and print what came out."""
    facts = prepare(
        published_data(options.name),
        options.raw,
        options.out,
        unknown_items=options.unknown_items,  # type: ignore[arg-type]
    )
    rows = ", ".join(f"{count:,} {name}" for name, count in facts["rows"].items())
    print(f"{options.out}: {rows}; license: {facts['license']}")
    for name, what in (
        ("repeated_items", "rows of items that came before"),
        ("interactions_of_unknown_items", "interactions of items without a row"),
    ):
        if facts[name]:
            print(f"left out: {facts[name]:,} {what}")


COMMANDS: dict[str, tuple[type, Callable[..., None], str]] = {
    "list": (List, list_data, "what there is"),
    "prepare": (Prepare, prepare_data, "raw files to tables"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one sub-command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in COMMANDS:
        lines = [f"  {name:10} {text}" for name, (_, _, text) in COMMANDS.items()]
        usage = "usage: recbase data COMMAND [options]\n\n" + "\n".join(lines)
        if arguments and arguments[0] not in ("-h", "--help"):
            sys.exit(f"recbase data: unknown command {arguments[0]!r}\n\n{usage}")
        print(usage)
        return
    options, run, _ = COMMANDS[arguments[0]]
    if options is Prepare and arguments[1:] and not arguments[1].startswith("-"):
        arguments.insert(1, "--name")  # `prepare NAME`, as everybody would type it
    log_to_terminal()
    run(
        parse_arguments(
            options, arguments[1:], program=f"recbase data {arguments[0]}", description=options.__doc__ or ""
        )
    )
