"""Markdown to its code blocks and their commands: as much of Markdown and of the shell as the documentation uses."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FENCE = "```"
OPERATORS = "();<>|&"


@dataclass(frozen=True)
class Block:
    """What stands between two fences; without a language it is output or a picture."""

    document: Path
    line: int
    """Of the document, where the block's text begins."""
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of the shell, in one line, or a statement of Python."""

    line: int
    text: str


def blocks_of(document: Path) -> list[Block]:
    """All blocks, in order.

    Raises:
        ValueError: a fence belongs to none.
    """
    text = document.read_text(encoding="utf-8")
    found = list(re.finditer(rf"^{FENCE}(\w*)\n(.*?)^{FENCE}$", text, re.MULTILINE | re.DOTALL))
    if 2 * len(found) != text.count(FENCE):
        raise ValueError(f"{document.name} has {text.count(FENCE)} fences, of which {len(found)} blocks were read")
    return [Block(document, text.count("\n", 0, block.start(2)) + 1, block[1], block[2]) for block in found]


def commands_of(block: Block) -> Iterator[Command]:
    """What is to be done one after the other: commands, statements, or in other languages the whole block."""
    if block.language == "bash":
        return _shell_commands(block)
    if block.language == "python":
        return _statements(block)
    return iter([Command(block.line, block.text)])


def _shell_commands(block: Block) -> Iterator[Command]:
    """A line each, and those that a backslash joins."""
    lines = enumerate(block.text.splitlines(), start=block.line)
    for number, line in lines:
        while line.endswith("\\"):
            line = f"{line[:-1].rstrip()} {next(lines)[1].lstrip()}"
        if line.strip() and not line.startswith("#"):
            yield Command(number, line)


def _statements(block: Block) -> Iterator[Command]:
    source = "\n" * (block.line - 1) + block.text
    for statement in ast.parse(source, str(block.document)).body:
        yield Command(statement.lineno, ast.get_source_segment(source, statement) or "")


def words_of(command: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a shell command, without its comment; variables and patterns of file names are spelled out.

    Raises:
        KeyError: a variable has no value.
        ValueError: there is more shell in it than that.
    """
    text = re.sub(r"\$(\w+)", lambda name: variables[name[1]], command)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=OPERATORS)
    lexer.whitespace_split = True
    words = list(lexer)
    if operators := [word for word in words if set(word) <= set(OPERATORS)]:
        raise ValueError(f"the shell's {operators[0]} is not known here")
    return [name for word in words for name in _file_names(word)]


def _file_names(word: str) -> list[str]:
    return (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]
