"""The reference pages, from the code: `make reference` writes docs/commands.md and docs/python.md."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import recbase_hf
from recbase_hf.cli import COMMANDS, command_of
from recbase_hf.commands.command import Command, Group

HERE = Path(__file__).parent
STATUSES = """All commands take `--config FILE`, a YAML file with values for the options, over which flags win, and
`--json`, which prints the answer as JSON. Messages and progress go to standard error. The exit status is 0 where the
command did what it was asked, 1 where the answer of a gate is no, 2 on an error, 130 after Ctrl-C. On several devices
the scripts in `examples/` and `-m recbase_hf` take the same options under `accelerate launch`."""

_METHODS = (classmethod, staticmethod)


def commands_page() -> str:
    """A section a command: what it does, and a row an option."""
    sections = ["# Commands", STATUSES]
    for name, text in COMMANDS.items():
        command = command_of(name)
        members = [member for member, _ in command.commands.values()] if isinstance(command, Group) else [command]
        for member in members:
            sections += [f"## recbase {member.name}", *_of_command(member, text)]
    return "\n\n".join(sections) + "\n"


def _of_command(command: Command, text: str) -> Iterator[str]:
    parser = command.parser().parser
    described = inspect.cleandoc(command.options.__doc__ or text)
    yield _escaped(described)
    yield f"`{parser.usage}`"
    actions = [action for action in parser._actions if not {"-h", "--config", "--json"} & {*action.option_strings}]
    if actions:
        yield "\n".join(["| option | | |", "|---|---|---|", *map(_row, actions)])


def _row(action: argparse.Action) -> str:
    flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
    values = ", ".join(f"`{choice}`" for choice in action.choices) if action.choices else (action.metavar or "")
    if action.nargs == "+":
        values += " ..."
    return f"| {flags} | {values} | {_escaped((action.help or '').replace('%%', '%'))} |"


def python_page() -> str:
    """A section a public name: signature, what it is, and a row a public method."""
    sections = [
        "# Python names",
        "What `import recbase_hf` offers; `help(recbase_hf.RecBaseScorer)` says all, with shapes, dtypes and errors.",
    ]
    for name in recbase_hf.__all__:
        found = getattr(recbase_hf, name)
        if callable(found):
            sections += [f"## {name}", *_of_name(name, found)]
    return "\n\n".join(sections) + "\n"


def _of_name(name: str, found: object) -> Iterator[str]:
    kind = f" from `{found.__module__}`" if hasattr(found, "__module__") else ""
    yield f"`{name}{_signature(found)}`{kind}"
    yield _escaped(inspect.cleandoc(found.__doc__ or "").split("\n\n")[0])
    if inspect.isclass(found):
        rows = [
            f"| `{method}{_signature(getattr(found, method))}` | {_escaped(_first_line(getattr(found, method)))} |"
            for method, part in vars(found).items()
            if not method.startswith("_") and (inspect.isfunction(part) or isinstance(part, _METHODS))
        ]
        if rows:
            yield "\n".join(["| method | |", "|---|---|", *rows])


def _signature(found: object) -> str:
    """Names and defaults alone; the types stand in the docstrings."""
    try:
        parameters = inspect.signature(found).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    plain = [parameter.replace(annotation=parameter.empty) for parameter in parameters if parameter.name != "self"]
    text = str(inspect.Signature(plain))
    return re.sub(r"<[\w.]*?(\w+)[ '][^>]*>", r"\1", text)


def _first_line(found: object) -> str:
    return inspect.cleandoc(found.__doc__ or "").split("\n\n")[0]


def _escaped(text: str) -> str:
    """In one line of a table, where a bar would end a cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


PAGES = {"commands.md": commands_page, "python.md": python_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
