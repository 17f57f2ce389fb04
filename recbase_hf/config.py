"""Typed configurations on the command line: a dataclass gives the flags, `--config file.yaml` gives their defaults."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["option", "parse_arguments", "part_of"]

T = TypeVar("T")


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
    parser = argparse.ArgumentParser(program, description=description, allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with values for the options below; flags win over it"
    )
    hints = typing.get_type_hints(kind)
    fields: tuple[dataclasses.Field, ...] = dataclasses.fields(kind)  # type: ignore[arg-type]
    for field in fields:
        _add_flag(parser, field, hints[field.name])
    given = vars(parser.parse_args(arguments))
    path = given.pop("config")
    values = _read_yaml(path, [field.name for field in fields], parser) if path else {}
    values.update({name: value for name, value in given.items() if value is not None})
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in values:
            parser.error(f"--{field.name.replace('_', '-')} is needed: {field.metadata['help']}")
        if field.name in values and typing.get_origin(hints[field.name]) is tuple:
            values[field.name] = tuple(values[field.name])
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        parser.error(str(error))


def part_of(options: Any, kind: type[T]) -> T:
    """The `kind` within an options object that inherits from several dataclasses."""
    return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    flag = "--" + field.name.replace("_", "-")
    shown = "" if field.default in (None, dataclasses.MISSING, ()) else f" (default: {_shown(field.default)})"
    text = (field.metadata["help"] + shown).replace("%", "%%")
    if hint is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif typing.get_origin(hint) is tuple:
        parser.add_argument(flag, nargs="+", type=typing.get_args(hint)[0], help=text, metavar=_metavar(field.name))
    else:
        choices = field.metadata["choices"]
        metavar = None if choices else _metavar(field.name)
        parser.add_argument(flag, type=_plain_type(hint), choices=choices, help=text, metavar=metavar)


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _metavar(name: str) -> str:
    return name.rsplit("_", 1)[-1].upper()


def _plain_type(hint: Any) -> Any:
    """`X` of `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _read_yaml(path: str, names: list[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"--config {path} cannot be read: {error}")
    if not isinstance(values, dict):
        parser.error(f"--config {path} must hold `name: value` lines")
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            parser.error(f"{path}: unknown option {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return values
