"""Typed configurations on the command line: a dataclass gives the flags, `--config file.yaml` gives their defaults."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import itertools
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

__all__ = ["OptionsParser", "option", "parse_arguments", "part_of", "require_positive"]

T = TypeVar("T")
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT"}
_ALSO = {"output": ("--out",)}
"""Other names of flags, for those who know them from elsewhere."""


def option(default: Any = dataclasses.MISSING, *, help: str, choices: Sequence[str] | None = None) -> Any:
    """A dataclass field with its help text; a tuple-typed field takes several values."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def parse_arguments(kind: type[T], arguments: Sequence[str] | None, *, program: str, description: str) -> T:
    """Build the dataclass `kind` from flags; see `OptionsParser`.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Greeting:
    ...     name: str = option("world", help="whom to greet")
    ...     loud: bool = option(False, help="with an exclamation mark")
    >>> parse_arguments(Greeting, ["--loud"], program="greet", description="")
    Greeting(name='world', loud=True)
    """
    return OptionsParser(kind, program=program, description=description).parse(arguments)


class OptionsParser(Generic[T]):
    """Builds a dataclass from flags, over the values of `--config file.yaml`, over its defaults.

    Flags and YAML keys are the field names (with `-` for `_` in flags); a boolean field gives `--name` and `--no-name`,
    the field `output` also `--out`. A misspelt flag or key ends the program with the nearest right one.

    Args:
        kind: the dataclass, of fields made by `option`.
        program: what the user types before the flags.
        description: for the help.
        positional: fields whose values may stand first, without their flags.

    Attributes:
        parser: with all flags; others may be added.
        given: of the last `parse`, the values of flags that are no fields.
    """

    def __init__(self, kind: type[T], *, program: str, description: str, positional: Sequence[str] = ()) -> None:
        self._kind, self._positional = kind, positional
        self._hints = typing.get_type_hints(kind)
        self._fields: dict[str, dataclasses.Field] = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        self.given: dict[str, Any] = {}
        self.parser = _Parser(program, description=description, allow_abbrev=False, usage=self._usage(program))
        self.parser.add_argument(
            "--config", metavar="FILE", help="YAML file with values for the options below; flags win over it"
        )
        for name, field in self._fields.items():
            _add_flag(self.parser, field, self._hints[name])

    def parse(self, arguments: Sequence[str] | None) -> T:
        """The dataclass; ends the program where the arguments do not make one. None takes those of the process."""
        parser = self.parser
        given = list(sys.argv[1:] if arguments is None else arguments)
        values = _parse(parser, self._with_flags(given))
        path = values.pop("config", None)
        if path:
            parser.place = f"{path}: "
            flags, empty = _read_yaml(path, self._hints, parser)
            values = {**empty, **_parse(parser, flags), **values}
            parser.place = ""
        self.given = {name: values.pop(name) for name in values.keys() - self._fields.keys()}
        for name, field in self._fields.items():
            if field.default is dataclasses.MISSING and values.get(name, []) == []:
                parser.error(f"{_flag(name)} is needed: {field.metadata['help']}")
            if name in values and typing.get_origin(self._hints[name]) is tuple:
                values[name] = tuple(values[name])
        try:
            return self._kind(**values)
        except (TypeError, ValueError) as error:
            parser.error(str(error))

    def _usage(self, program: str) -> str:
        """Short: what may stand first, and what must be given."""
        needed = {name for name, field in self._fields.items() if field.default is dataclasses.MISSING}
        first = [name.upper() if name in needed else f"[{name.upper()}]" for name in self._positional]
        flags = [
            f"{_flag(name)} {_METAVARS[_value_type(self._hints[name])]}"
            for name in self._fields
            if name in needed and name not in self._positional
        ]
        return " ".join([program, *first, *flags, "[options]"])

    def _with_flags(self, arguments: list[str]) -> list[str]:
        """The same with a flag before each value that stands first."""
        flagged: list[str] = []
        for name in self._positional:
            words = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
            count = len(words) if typing.get_origin(self._hints[name]) is tuple else min(1, len(words))
            flagged += [_flag(name), *words[:count]] if count else []
            arguments = arguments[count:]
        return flagged + arguments


def require_positive(options: Any, *names: str) -> None:
    """Raise unless these fields are above zero.

    Raises:
        ValueError: names the field and its value.
    """
    for name in names:
        if not getattr(options, name) > 0:
            raise ValueError(f"{name} is {getattr(options, name)}; it must be above 0")


def part_of(options: Any, kind: type[T]) -> T:
    """The `kind` within an options object that inherits from several dataclasses."""
    return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


class _Parser(argparse.ArgumentParser):
    place = ""
    """What error messages start with: the file that is being read."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {self.place}{message}\n`{self.prog} --help` shows its options.\n")


def _parse(parser: _Parser, arguments: Sequence[str] | None) -> dict[str, Any]:
    """The options that were given; an unknown one is reported with the nearest right one."""
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        parser.error(f"unknown option {unknown[0]}" + _suggestion(unknown[0].split("=")[0], flags))
    return {name: value for name, value in vars(given).items() if value is not None}


def _suggestion(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    flags = [_flag(field.name), *_ALSO.get(field.name, ())]
    shown = "" if field.default in (None, dataclasses.MISSING, ()) else f" (default: {_shown(field.default)})"
    text = (field.metadata["help"] + shown).replace("%", "%%")
    if _plain_type(hint) is bool:
        parser.add_argument(*flags, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif typing.get_origin(hint) is tuple:
        kind = _value_type(hint)
        parser.add_argument(*flags, nargs="+", type=kind, help=text, metavar=_METAVARS[kind])
    else:
        choices = field.metadata["choices"]
        metavar = None if choices else _METAVARS[_plain_type(hint)]
        parser.add_argument(*flags, type=_plain_type(hint), choices=choices, help=text, metavar=metavar)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _plain_type(hint: Any) -> Any:
    """`X` of `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _value_type(hint: Any) -> type:
    """Of one value: `X` of `tuple[X, ...]` and of `X | None`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else _plain_type(hint)


def _read_yaml(path: str, hints: dict[str, Any], parser: _Parser) -> tuple[list[str], dict[str, Any]]:
    """The values of a YAML file as flags, so that they go through the same conversions and checks.

    Empty lists come beside them, by name: no flag says that there are no values.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"cannot be read: {error}")
    if not isinstance(values, dict):
        parser.error("a configuration must hold `name: value` lines")
    flags: list[str] = []
    empty: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            parser.error(f"unknown option {name}" + _suggestion(str(name), hints))
        flag = _flag(str(name))
        if _plain_type(hints[name]) is bool and value is not None:
            if not isinstance(value, bool):
                parser.error(f"{name} is {value!r}; it must be true or false")
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list) and typing.get_origin(hints[name]) is not tuple:
            parser.error(f"{name} is the list {value}; it takes one value")
        elif value == []:
            empty[name] = value
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        elif value is not None:
            flags.append(f"{flag}={value}")
    return flags, empty
