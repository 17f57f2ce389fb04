"""Typed configurations on the command line: a dataclass gives the flags, `--config file.yaml` gives their defaults."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

__all__ = ["option", "parse_arguments", "part_of", "require_positive"]

T = TypeVar("T")
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT"}


def option(default: Any = dataclasses.MISSING, *, help: str, choices: Sequence[str] | None = None) -> Any:
    """A dataclass field with its help text; a tuple-typed field takes several values."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def parse_arguments(kind: type[T], arguments: Sequence[str] | None, *, program: str, description: str) -> T:
    """Build the dataclass `kind` from flags, over the values of `--config file.yaml`, over its defaults.

    Flags and YAML keys are the field names (with `-` for `_` in flags); a boolean field gives `--name` and `--no-name`.
    A misspelt flag or key ends the program with the nearest right one.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Greeting:
    ...     name: str = option("world", help="whom to greet")
    ...     loud: bool = option(False, help="with an exclamation mark")
    >>> parse_arguments(Greeting, ["--loud"], program="greet", description="")
    Greeting(name='world', loud=True)
    """
    parser = _Parser(program, description=description, allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with values for the options below; flags win over it"
    )
    hints = typing.get_type_hints(kind)
    fields: tuple[dataclasses.Field, ...] = dataclasses.fields(kind)  # type: ignore[arg-type]
    for field in fields:
        _add_flag(parser, field, hints[field.name])
    values = _parse(parser, arguments)
    path = values.pop("config", None)
    if path:
        parser.place = f"{path}: "
        values = {**_parse(parser, _read_yaml(path, hints, parser)), **values}
        parser.place = ""
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in values:
            parser.error(f"--{field.name.replace('_', '-')} is needed: {field.metadata['help']}")
        if field.name in values and typing.get_origin(hints[field.name]) is tuple:
            values[field.name] = tuple(values[field.name])
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        parser.error(str(error))


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
        super().error(self.place + message)


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
    flag = "--" + field.name.replace("_", "-")
    shown = "" if field.default in (None, dataclasses.MISSING, ()) else f" (default: {_shown(field.default)})"
    text = (field.metadata["help"] + shown).replace("%", "%%")
    if _plain_type(hint) is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif typing.get_origin(hint) is tuple:
        parser.add_argument(
            flag, nargs="+", type=typing.get_args(hint)[0], help=text, metavar=_METAVARS[typing.get_args(hint)[0]]
        )
    else:
        choices = field.metadata["choices"]
        metavar = None if choices else _METAVARS[_plain_type(hint)]
        parser.add_argument(flag, type=_plain_type(hint), choices=choices, help=text, metavar=metavar)


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _plain_type(hint: Any) -> Any:
    """`X` of `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _read_yaml(path: str, hints: dict[str, Any], parser: _Parser) -> list[str]:
    """The values of a YAML file as flags, so that they go through the same conversions and checks."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"cannot be read: {error}")
    if not isinstance(values, dict):
        parser.error("a configuration must hold `name: value` lines")
    flags = []
    for name, value in values.items():
        if name not in hints:
            parser.error(f"unknown option {name}" + _suggestion(str(name), hints))
        flag = str(name).replace("_", "-")
        if _plain_type(hints[name]) is bool and value is not None:
            if not isinstance(value, bool):
                parser.error(f"{name} is {value!r}; it must be true or false")
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            flags += [f"--{flag}", *map(str, value)]
        elif value is not None:
            flags.append(f"--{flag}={value}")
    return flags
