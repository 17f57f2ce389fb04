"""Looks up what a dotted name stands for in a library: a module, class or function, followed through re-exports."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from recbase_hf.data.python_source import ItemText, Source, SourceFile, read_source

__all__ = ["Library", "list_files", "modules_of"]

MAX_REEXPORTS = 5

_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "lib-dynload", "__pycache__", "_vendor"})


def list_files(roots: Iterable[Path], exclude: Collection[str]) -> dict[str, SourceFile]:
    """Source and compiled files below `roots`, without the top-level packages `exclude`.

    Returns:
        Path below its root with "/" -> file; of two files with one relative path, that of the earlier root.
    """
    files: dict[str, SourceFile] = {}
    for root in roots:
        for path in _walk_files(root):
            relative = path.relative_to(root).as_posix()
            file = SourceFile(path, _module_name(relative))
            if file.top_level not in exclude:
                files.setdefault(relative, file)
    return files


def modules_of(files: Iterable[SourceFile]) -> dict[str, SourceFile | None]:
    """Dotted module -> its file, or None where it is a folder without `__init__.py` (a namespace package)."""
    modules: dict[str, SourceFile | None] = {}
    # Source is preferred to a compiled module of the same name (it has docstrings), and both to a bare folder.
    for file in sorted(files, key=lambda file: (_source_rank(file.path), file.path)):
        modules.setdefault(file.module, file)
    for module in list(modules):
        while "." in module:
            module = module.rpartition(".")[0]
            modules.setdefault(module, None)
    return modules


def _walk_files(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - _SKIPPED_FOLDERS)
        yield from (Path(folder, name) for name in sorted(names) if name.endswith((".py", ".so", ".pyd")))


def _source_rank(path: Path) -> int:
    return 0 if path.name == "__init__.py" else 1 if path.suffix == ".py" else 2


def _module_name(relative: str) -> str:
    """The dotted name of a file: "a/b.py" and "a/b/__init__.py" and "a/b.cpython-312.so" are all a.b."""
    folder, _, name = relative.rpartition("/")
    stem = name.removesuffix(".py") if name.endswith(".py") else name.split(".")[0]
    parts = [*folder.split("/"), stem] if folder else [stem]
    return ".".join(parts[:-1] if stem == "__init__" and folder else parts)


@dataclass(frozen=True)
class _Found:
    """A name's text and the module that defines it (for a module: the module itself)."""

    text: ItemText
    home: str


class Library:
    """Looks names up in source. A module that came without its source is parsed when first asked for, and kept.

    Args:
        modules: from `modules_of`.
        packages: top-level packages whose names can be found; those without a file are taken for compiled modules.
        sources: what has been read already, by module; None where a file could not be parsed.
    """

    def __init__(
        self,
        modules: Mapping[str, SourceFile | None],
        packages: Collection[str],
        sources: Mapping[str, Source | None],
    ) -> None:
        self._modules = modules
        self._packages = frozenset(packages)
        self._sources = dict(sources)
        self._members: dict[tuple[str, str, int], _Found | None] = {}
        self._items: dict[str, tuple[str, _Found] | None] = {}

    def history(self, module: str, source: Source) -> dict[str, ItemText]:
        """The public names that `module` uses and does not define, in order of first use, with their texts."""
        used: dict[str, ItemText] = {}
        for reference in source.references:
            if (item := self._item(reference)) and item[1].home != module:
                used.setdefault(item[0], item[1].text)
        return used

    def _item(self, reference: str) -> tuple[str, _Found] | None:
        """The item that a dotted reference stands for: its longest chain of modules, then one member."""
        if reference not in self._items:
            found = self._follow(reference, MAX_REEXPORTS)
            name = ".".join(reference.split(".")[: found[1]]) if found else ""
            public = found and not any(part.startswith("_") for part in name.split("."))
            self._items[reference] = (name, found[0]) if found and public else None
        return self._items[reference]

    def _follow(self, reference: str, reexports: int) -> tuple[_Found, int] | None:
        """What the reference stands for and how many of its parts name it (the rest are attributes of a class)."""
        top, *rest = reference.split(".")
        found = self._module(top) if top in self._packages else None
        for index, part in enumerate(rest, start=1):
            if found is None or found.text.kind != "module":
                return (found, index) if found else None
            found = self._member(found.home, part, reexports)
        return (found, len(rest) + 1) if found else None

    def _module(self, name: str) -> _Found | None:
        if name not in self._modules and name not in self._packages:
            return None
        source = self._source(name)
        return _Found(ItemText("module", source.summary if source else None), name)

    def _source(self, module: str) -> Source | None:
        """The module's source; None if it is compiled or cannot be parsed."""
        if module not in self._sources:
            self._sources[module] = self._read(module)
        return self._sources[module]

    def _read(self, module: str) -> Source | None:
        if module not in self._modules:
            return None  # built into the interpreter
        file = self._modules[module]
        if file is None:
            return Source()  # a namespace package: its members are its submodules
        return read_source(file, with_references=False) if file.path.suffix == ".py" else None

    def _member(self, module: str, name: str, reexports: int) -> _Found | None:
        """A module's member that is a module, class or function; of a compiled module, any name."""
        key = (module, name, reexports)
        if key not in self._members:
            self._members[key] = self._find_member(*key)
        return self._members[key]

    def _find_member(self, module: str, name: str, reexports: int) -> _Found | None:
        source = self._source(module)
        if source is None:
            return self._module(f"{module}.{name}") or _Found(ItemText(), module)
        if name in source.definitions:
            return _Found(source.definitions[name], module)
        if name in source.imports and reexports:
            found = self._follow(source.imports[name], reexports - 1)
            if found and found[1] == source.imports[name].count(".") + 1:
                return found[0]
        submodule = self._module(f"{module}.{name}")
        if submodule or name in source.imports or name in source.others or not reexports:
            return submodule
        stars = (self._member(star, name, reexports - 1) for star in source.stars if self._module(star))
        candidates = [found for found in stars if found]
        return next((found for found in candidates if found.text.kind), candidates[0] if candidates else None)
