"""What all commands have in common: how they are called, how they answer, with which status they end."""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from recbase_hf.config import OptionsParser
from recbase_hf.errors import LaunchError, UnknownItemError
from recbase_hf.progress import is_main_process

__all__ = ["FAILED", "INTERRUPTED", "NO", "Answer", "Command", "Failure", "Group", "fail"]

NO = 1
FAILED = 2
INTERRUPTED = 130


@dataclass(frozen=True)
class Answer:
    """What a command found or made.

    Attributes:
        text: for people; lines without a newline at the end.
        content: the same for programs, made of what JSON has.
        is_yes: False where a gate found what it looks for; the command then ends with status 1.
    """

    text: str
    content: Mapping[str, Any] = field(default_factory=dict)
    is_yes: bool = True


class Failure(SystemExit):
    """The end of a command that failed: a message on standard error, and its status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(status)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as it is typed after `recbase`.
        options: dataclass of its options, whose docstring is its help.
        run: from options to the answer.
        positional: options whose values may stand first, without their flags.
    """

    name: str
    options: type
    run: Callable[[Any], Answer]
    positional: tuple[str, ...] = ()

    def parser(self) -> OptionsParser:
        """Of the options, and of `--json`."""
        made: OptionsParser[Any] = OptionsParser(
            self.options,
            program=f"recbase {self.name}",
            description=self.options.__doc__ or "",
            positional=self.positional,
        )
        text = "print the answer as JSON; messages go to standard error as always"
        made.parser.add_argument("--json", action="store_true", default=None, help=text)
        return made

    def __call__(self, arguments: Sequence[str]) -> None:
        """Parse, run and print."""
        from recbase_hf.commands.options import log_to_terminal

        parser = self.parser()
        options = parser.parse(arguments)
        log_to_terminal()
        answer = self._answer(options)
        if is_main_process():
            print(json.dumps(_plain(answer.content), indent=2) if parser.given.get("json") else answer.text)
        if not answer.is_yes:
            sys.exit(NO)

    def _answer(self, options: Any) -> Answer:
        try:
            return self.run(options)
        except KeyboardInterrupt:
            fail("interrupted; the same command goes on from the last checkpoint, if it has left one", INTERRUPTED)
        except (ValueError, UnknownItemError, LaunchError, OSError, FloatingPointError, ImportError) as error:
            fail(f"recbase {self.name}: {error}")
        except Exception:
            fail(traceback.format_exc())


@dataclass(frozen=True)
class Group:
    """Commands under one name, each with a line of help."""

    name: str
    commands: Mapping[str, tuple[Command, str]]

    def __call__(self, arguments: Sequence[str]) -> None:
        """Run one of them."""
        if not arguments or arguments[0] in ("-h", "--help"):
            print(self.help())
            return
        if arguments[0] not in self.commands:
            fail(f"recbase {self.name}: unknown command {arguments[0]!r}\n\n{self.help()}")
        command, _ = self.commands[arguments[0]]
        command(arguments[1:])

    def help(self) -> str:
        """A line a command."""
        lines = [f"  {name:10} {text}" for name, (_, text) in self.commands.items()]
        return "\n".join(
            [
                f"usage: recbase {self.name} COMMAND [options]",
                "",
                *lines,
                "",
                f"`recbase {self.name} COMMAND --help` shows its options.",
            ]
        )


def _plain(value: Any) -> Any:
    """As JSON has it, which knows no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def fail(message: str, status: int = FAILED) -> NoReturn:
    """End the program with a message on standard error."""
    print(message, file=sys.stderr)
    raise Failure(message, status)
