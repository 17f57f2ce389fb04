"""`recbase completion`: a script that lets the shell complete commands, options and files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import shtab

from recbase_hf.commands.command import Answer, Command, Group
from recbase_hf.config import option

__all__ = ["COMMAND", "Completion"]


@dataclass(frozen=True)
class Completion:
    """Print a script that completes commands, options and files, to be read by the shell when it starts.

    For bash: recbase completion bash > ~/.local/share/bash-completion/completions/recbase
    """

    shell: str = option(help="which one", choices=tuple(shtab.SUPPORTED_SHELLS))


def run(options: Completion) -> Answer:
    """The script."""
    script = shtab.complete(_whole_parser(), shell=options.shell)
    return Answer(script.rstrip("\n"), {"shell": options.shell, "script": script})


def _whole_parser() -> argparse.ArgumentParser:
    """All commands as sub-parsers of one, as the library for completion reads them."""
    from recbase_hf.cli import COMMANDS, command_of

    whole = argparse.ArgumentParser("recbase")
    whole.add_argument("--version", action="store_true", help="print the version")
    parsers = whole.add_subparsers()
    for name, text in COMMANDS.items():
        command = command_of(name)
        if isinstance(command, Group):
            members = parsers.add_parser(name, help=text).add_subparsers()
            for member, (part, about) in command.commands.items():
                _add(members, member, about, part)
        else:
            _add(parsers, name, text, command)
    return whole


def _add(parsers: argparse._SubParsersAction, name: str, text: str, command: Command) -> None:
    options = command.parser()
    added = parsers.add_parser(name, help=text, parents=[options.parser], add_help=False)
    for action in added._actions:
        if action.option_strings and action.type is str and action.choices is None:
            action.complete = shtab.FILE


COMMAND = Command("completion", Completion, run, positional=("shell",))
