"""Reads Python source files with `ast`: what each one says of itself, defines, imports and refers to.

Nothing is imported or run, and no name is looked up in another file.
"""

from __future__ import annotations

import ast
import gc
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from recbase_hf.progress import progress

__all__ = ["ItemText", "Source", "SourceFile", "read_source", "read_sources"]

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class ItemText:
    """What the source says about a name: `kind` is "module", "class", "function" or None (compiled, so unknown)."""

    kind: str | None = None
    summary: str | None = None


@dataclass(frozen=True)
class SourceFile:
    """A file and the dotted name of the module that it is."""

    path: Path
    module: str

    @property
    def top_level(self) -> str:
        """The top-level package or module that the file belongs to."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """What one file says, every name absolute and dotted.

    `imports` are the top-level imports (bound name -> what it stands for), `stars` the modules imported with a star,
    `others` the top-level names that are assigned, and `references` all names used, in order, before any is looked up.
    """

    summary: str | None = None
    definitions: dict[str, ItemText] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    stars: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    references: tuple[str, ...] = ()


def read_sources(files: Sequence[SourceFile], workers: int | None, description: str) -> list[Source | None]:
    """Read many files, in order; see `read_source`.

    Args:
        files: what to read.
        workers: processes that read; None takes 2, or 1 where there is one core or little to read.
        description: the label of the progress bar.
    """
    if workers is None:
        workers = min(2, os.cpu_count() or 1) if len(files) >= 200 else 1
    if workers > 1:
        try:
            with ProcessPoolExecutor(workers) as pool:
                results = pool.map(read_source, files, chunksize=8)
                return list(progress(results, description=description, total=len(files)))
        except BrokenProcessPool:
            # Where processes are spawned, a script without `if __name__ == "__main__"` cannot have any.
            warnings.warn("worker processes did not start; reading in this process", RuntimeWarning, stacklevel=4)
    return [read_source(file) for file in progress(files, description=description, total=len(files))]


def read_source(file: SourceFile, with_references: bool = True) -> Source | None:
    """Parse one file; None if it cannot be read, is not UTF-8, not valid Python, or nested too deeply.

    `with_references=False` leaves `references` empty, which is enough for a file that names are only looked up in.
    """
    try:
        tree = _parse(file.path.read_bytes().decode("utf-8-sig"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    package = file.module if file.path.name == "__init__.py" else file.module.rpartition(".")[0]
    definitions: dict[str, ItemText] = {}
    imports: dict[str, str] = {}
    stars: list[str] = []
    others: set[str] = set()
    for node in _top_level(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            if node.name not in definitions or definitions[node.name].summary is None:  # overloads come without one
                definitions[node.name] = ItemText(kind, _summary(node))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for bound, target, imported in _imported(node, package):
                if bound == "*":
                    stars.append(imported)
                elif target != f"{file.module}.{bound}":  # `from . import x` says no more than that x.py is there
                    imports.setdefault(bound, target)
        else:
            others.update(_assigned(node))
    references = _references(tree, package) if with_references else ()
    return Source(_summary(tree), definitions, imports, tuple(stars), frozenset(others), references)


def _parse(text: str) -> ast.Module:
    """`ast.parse` without warnings about the source, which is not ours to mend."""
    collecting = gc.isenabled()
    gc.disable()  # a tree has no cycles: looking for them while it grows takes a third of the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    finally:
        if collecting:
            gc.enable()


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module, also those under `if`, `try`, `with` and loops, in order."""
    stack: list[ast.AST] = [*reversed(tree.body)]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _assigned(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.For):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
        yield from (name.id for name in names if isinstance(name.ctx, ast.Store))


def _summary(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    lines = (ast.get_docstring(node, clean=False) or "").strip().splitlines()
    # A lone surrogate may stand in a docstring, but not in a Parquet string.
    return lines[0].strip().encode("utf-8", "replace").decode() or None if lines else None


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, str, str]]:
    """(name bound, what it stands for, what was imported) for each alias; a star binds "*"."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.split(".")[0]
            yield (alias.asname, alias.name, alias.name) if alias.asname else (top, top, alias.name)
        return
    parts = package.split(".") if package else []
    if node.level > len(parts):
        return  # reaches above the library's root
    base = parts[: len(parts) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    for alias in node.names:
        name = module if alias.name == "*" else f"{module}.{alias.name}"
        yield alias.asname or alias.name, name, name


def _references(tree: ast.Module, package: str) -> tuple[str, ...]:
    """The dotted names that the file imports or uses, each once, in order of first use."""
    # Sorted by position alone: the names of one import statement share theirs, and are in order already.
    found = sorted(_uses(tree, package), key=lambda use: use[:2])
    return tuple(dict.fromkeys(name for _, _, name in found))


def _uses(tree: ast.Module, package: str) -> Iterator[tuple[int, int, str]]:
    """(line, column, dotted name) of every import and of every attribute of an imported name.

    Scopes are functions. A name that a function binds hides an import outside it; within one scope an import wins,
    because of `try: import x` / `except ImportError: x = None`.
    """
    pending: list[tuple[Sequence[ast.AST], Collection[str], Mapping[str, str]]] = [(tree.body, (), {})]
    while pending:
        body, parameters, outer = pending.pop()
        scope = _read_scope(body)
        statements = sorted(scope.imports, key=lambda node: (node.lineno, node.col_offset))
        imports = [(node, *names) for node in statements for names in _imported(node, package)]
        hidden = scope.stored.union(parameters)
        bindings = {name: target for name, target in outer.items() if name not in hidden} if hidden else dict(outer)
        for _, bound, target, _ in reversed(imports):  # reversed: of several, the first one stays
            bindings[bound] = target
        yield from ((node.lineno, node.col_offset, imported) for node, _, _, imported in imports)
        for line, column, base, attributes in scope.chains:
            if base in bindings:
                yield line, column, f"{bindings[base]}.{attributes}"
        for function in scope.functions:
            inner = function.body if isinstance(function.body, list) else [function.body]
            pending.append((inner, _parameters(function.args), bindings))


@dataclass
class _Scope:
    imports: list[ast.Import | ast.ImportFrom] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)
    chains: list[tuple[int, int, str, str]] = field(default_factory=list)
    functions: list[_Function] = field(default_factory=list)


def _read_scope(body: Sequence[ast.AST]) -> _Scope:
    """Collect what stands in one scope, without entering the functions in it."""
    scope = _Scope()
    stack = list(body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Attribute):
            base, names = _chain(node)
            if isinstance(base, ast.Name):
                scope.chains.append((base.lineno, base.col_offset, base.id, names))
            else:
                stack.append(base)
        elif isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                scope.stored.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            scope.imports.append(node)
        elif isinstance(node, ast.Lambda):
            scope.functions.append(node)
            stack.append(node.args)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            scope.functions.append(node)
            scope.stored.add(node.name)
            stack.extend([node.args, *node.decorator_list, *([node.returns] if node.returns else [])])
        elif not isinstance(node, ast.Constant):
            stack.extend(ast.iter_child_nodes(node))
    return scope


def _chain(node: ast.Attribute) -> tuple[ast.expr, str]:
    """The expression before the first dot, and the names after it joined with dots."""
    names = [node.attr]
    base = node.value
    while isinstance(base, ast.Attribute):
        names.append(base.attr)
        base = base.value
    return base, ".".join(reversed(names))


def _parameters(arguments: ast.arguments) -> set[str]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in named if argument}
