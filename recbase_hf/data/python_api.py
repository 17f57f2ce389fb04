"""The embedded data set `python-api`: which public Python names each source file on this machine uses, in order.

A user is a source file, its history the modules, classes and functions from elsewhere that it imports or uses (first
use of each), and an item such a name with its kind and the first line of its docstring. Source is read with `ast`;
nothing is imported or run. The domain "stdlib" holds the standard library's files and names, the domain "packages"
those of the installed third-party packages; a use that crosses the border counts in neither, so the two domains share
neither users nor items.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.metadata
import os
import platform
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from recbase_hf.errors import DataError
from recbase_hf.files import atomic_folder, read_json, write_json
from recbase_hf.progress import progress

__all__ = ["Extraction", "ItemText", "build_python_api", "extract_domain", "filter_histories"]

BUILDER_VERSION = 1
MIN_USER_EVENTS = 5
MIN_ITEM_USERS = 3
MAX_ITEMS = 6000
MAX_REEXPORTS = 5
# These two bound the time spent on packages. The sample is by hash of the path: it reaches every folder of a large
# package evenly, keeps that package from filling the data set, and stays put when other files come or go.
MAX_FILE_BYTES = 300_000
MAX_FILES_PER_PACKAGE = 1500

_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "lib-dynload", "__pycache__", "_vendor"})
_OWN_PACKAGE = "recbase_hf"

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class ItemText:
    """What the source says about a name: `kind` is "module", "class", "function" or None (compiled, so unknown)."""

    kind: str | None = None
    summary: str | None = None


@dataclass(frozen=True)
class Extraction:
    """What one domain's files use.

    Attributes:
        histories: file, as its path below the library's root with "/" -> names it uses, in order of first use.
        items: every name in `histories` -> its text.
        counts: files read, and files left out for each reason.
    """

    histories: dict[str, list[str]]
    items: dict[str, ItemText]
    counts: dict[str, int]


def build_python_api(
    output: str | Path, domain: Literal["stdlib", "packages"], *, min_item_users: int = MIN_ITEM_USERS
) -> Path:
    """Write one domain of this machine's Python source as `items.parquet` and `interactions.parquet`.

    Items are kept when at least `min_item_users` kept files use them (of "packages" the 6,000 most used), files when
    they use at least 5 kept items; both rules are repeated until neither removes anything. A folder that was made
    before from the same environment with the same rules is left as it is.

    Args:
        output: the folder to write. `items.parquet` has the columns item_id, name, kind, summary (string; kind and
            summary are null when unknown), `interactions.parquet` has user_id, item_id (string) and order (int32, from
            0 for each user), and `dataset.json` says from what they were made.
        domain: "stdlib" for the standard library of this Python, "packages" for its site-packages.
        min_item_users: in how many files an item has to be used.

    Returns:
        `output` as a path.

    Raises:
        ValueError: `domain` is neither name.
        DataError: too little source was found to make a data set.
    """
    if domain not in ("stdlib", "packages"):
        raise ValueError(f"domain {domain!r} is not known: use 'stdlib' or 'packages'")
    output = Path(output)
    max_items = MAX_ITEMS if domain == "packages" else None
    key = {
        "name": "python-api",
        "domain": domain,
        "builder_version": BUILDER_VERSION,
        "python_version": platform.python_version(),
        "environment_sha256": _environment_hash(domain),
        "min_item_users": min_item_users,
        "min_user_events": MIN_USER_EVENTS,
        "max_items": max_items,
    }
    if _is_built(output, key):
        return output
    extraction = _extract_installed(domain)
    histories = filter_histories(
        extraction.histories, min_item_users=min_item_users, min_user_events=MIN_USER_EVENTS, max_items=max_items
    )
    if not histories:
        raise DataError(
            f"domain {domain!r}: no file of {', '.join(map(str, _roots(domain)))} uses {MIN_USER_EVENTS} names that "
            f"{min_item_users} files share ({extraction.counts['files_read']} files read): use an environment with "
            "more Python source, the other domain, or a smaller min_item_users"
        )
    _write_tables(output, key, histories, extraction)
    return output


def extract_domain(
    roots: Sequence[str | Path],
    *,
    packages: Collection[str] | None = None,
    exclude: Collection[str] = (),
    max_file_bytes: int | None = None,
    max_files_per_package: int | None = None,
    workers: int | None = None,
    description: str = "Reading Python source",
) -> Extraction:
    """Read every Python file below `roots` and list the public names of `packages` that each one uses.

    Args:
        roots: library folders; of two files with one relative path, the one of the earlier root counts.
        packages: top-level packages whose names are items; one that has no file here is taken for a compiled module,
            whose names are kept with unknown kind. None takes every top-level package found.
        exclude: top-level packages that are neither users nor items.
        max_file_bytes: larger files are no users (names that others use from them are still looked up).
        max_files_per_package: how many files of one top-level package become users, chosen by hash of their path.
        workers: processes that read files; None takes 2, or 1 where there is one core or little to read.
        description: the label of the progress bar.

    Returns:
        The histories (of files with any event) and the texts of their items, both sorted by name.
    """
    modules = _list_modules([Path(root) for root in roots], exclude)
    files = {user: file for user, file in sorted(modules.files.items()) if file.path.suffix == ".py"}
    small = {user: file for user, file in files.items() if not max_file_bytes or file.size() <= max_file_bytes}
    sample = _sample_files(small, max_files_per_package)
    read = dict(zip(sample, _read_all(list(sample.values()), workers, description), strict=True))

    known_packages = packages if packages is not None else {name for name in modules.paths if "." not in name}
    own = {file.module: read[user] for user, file in sample.items() if file.path == modules.paths[file.module]}
    library = _Library(modules.paths, known_packages, own)
    histories: dict[str, list[str]] = {}
    items: dict[str, ItemText] = {}
    for user, source in read.items():
        if source is not None and (history := library.history(sample[user].module, source)):
            histories[user] = list(history)
            items.update(history)
    counts = {
        "files_read": sum(source is not None for source in read.values()),
        "files_unparsable": sum(source is None for source in read.values()),
        "files_too_large": len(files) - len(small),
        "files_not_sampled": len(small) - len(sample),
    }
    return Extraction(histories, dict(sorted(items.items())), counts)


def filter_histories(
    histories: Mapping[str, Sequence[str]], *, min_item_users: int, min_user_events: int, max_items: int | None = None
) -> dict[str, list[str]]:
    """Drop rare items and short histories in turn until neither rule drops anything.

    Args:
        histories: user -> items, none twice.
        min_item_users: how many of the kept users have an item that is kept.
        min_user_events: how many kept items a kept user has.
        max_items: of the items that pass, keep this many, the most used first, ties by name.

    >>> filter_histories({"u": ["a", "b", "z"], "v": ["b", "a"], "w": ["a"]}, min_item_users=2, min_user_events=2)
    {'u': ['a', 'b'], 'v': ['b', 'a']}
    """
    previous: dict[str, list[str]] = {}
    kept = {user: list(history) for user, history in histories.items()}
    while kept != previous:
        users = Counter(item for history in kept.values() for item in history)
        frequent = [item for item in users if users[item] >= min_item_users]
        items = set(sorted(frequent, key=lambda item: (-users[item], item))[:max_items])
        shortened = {user: [item for item in history if item in items] for user, history in kept.items()}
        previous, kept = kept, {user: items for user, items in shortened.items() if len(items) >= min_user_events}
    return kept


# --- the installed libraries -----------------------------------------------------------------------------------------


def _roots(domain: str) -> list[Path]:
    keys = ["stdlib"] if domain == "stdlib" else ["purelib", "platlib"]
    return [Path(path) for path in dict.fromkeys(sysconfig.get_path(key) for key in keys)]


def _extract_installed(domain: str) -> Extraction:
    if domain == "stdlib":
        return extract_domain(_roots(domain), packages=sys.stdlib_module_names, description="Reading stdlib source")
    # `test` is no standard-library name by sys.stdlib_module_names, and some distributions install a folder so called.
    return extract_domain(
        _roots(domain),
        exclude={*sys.stdlib_module_names, "test", _OWN_PACKAGE},
        max_file_bytes=MAX_FILE_BYTES,
        max_files_per_package=MAX_FILES_PER_PACKAGE,
        description="Reading package source",
    )


def _environment_hash(domain: str) -> str:
    """Hash of what decides the source: the Python version, or every installed (distribution, version) but our own."""
    if domain == "stdlib":
        lines = [platform.python_version()]
    else:
        found = importlib.metadata.distributions(path=[str(root) for root in _roots(domain)])
        pairs = {(str(distribution.metadata["Name"]), distribution.version) for distribution in found}
        lines = sorted(f"{name}=={version}" for name, version in pairs if name.replace("-", "_") != _OWN_PACKAGE)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_built(output: Path, key: Mapping[str, Any]) -> bool:
    description = output / "dataset.json"
    if not description.is_file():
        return False
    found = read_json(description)
    return all(found.get(name) == value for name, value in key.items())


def _write_tables(
    output: Path, key: Mapping[str, Any], histories: Mapping[str, Sequence[str]], extraction: Extraction
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = sorted({item for history in histories.values() for item in history})
    events = [(user, item, order) for user in sorted(histories) for order, item in enumerate(histories[user])]
    users, used, orders = zip(*events, strict=True)
    texts = [extraction.items[item] for item in ids]
    items = {"item_id": ids, "name": ids, "kind": [t.kind for t in texts], "summary": [t.summary for t in texts]}
    counts = {"users": len(histories), "items": len(ids), "interactions": len(events), **extraction.counts}
    with atomic_folder(output) as folder:
        schema = pa.schema([(name, pa.string()) for name in items])
        pq.write_table(pa.table(items, schema=schema), folder / "items.parquet")
        schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("order", pa.int32())])
        table = pa.table({"user_id": users, "item_id": used, "order": orders}, schema=schema)
        pq.write_table(table, folder / "interactions.parquet")
        write_json(folder / "dataset.json", {**key, "counts": counts})


# --- finding files ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    path: Path
    module: str

    def size(self) -> int:
        return self.path.stat().st_size


@dataclass
class _Modules:
    """`files`: relative path -> file; `paths`: dotted module -> .py file, folder (namespace), or compiled file."""

    files: dict[str, _File] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)


def _list_modules(roots: Iterable[Path], exclude: Collection[str]) -> _Modules:
    modules = _Modules()
    for root in roots:
        found = {path.relative_to(root).as_posix(): path for path in _walk_files(root)}
        found = {user: path for user, path in found.items() if user.split("/")[0].split(".")[0] not in exclude}
        for user, path in found.items():
            modules.files.setdefault(user, _File(path, _module_name(user)))
    # Source is preferred to a compiled module of the same name (it has docstrings), and both to a bare folder.
    for file in sorted(modules.files.values(), key=lambda file: (_source_rank(file.path), file.path)):
        modules.paths.setdefault(file.module, file.path)
    for file in list(modules.files.values()):
        module, folder = file.module, file.path.parent
        if file.path.name == "__init__.py":
            folder = folder.parent
        while "." in module:
            module = module.rpartition(".")[0]
            modules.paths.setdefault(module, folder)
            folder = folder.parent
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


def _sample_files(files: Mapping[str, _File], limit: int | None) -> dict[str, _File]:
    """At most `limit` files of each top-level package, those whose path has the smallest hash."""
    if limit is None:
        return dict(files)
    taken: Counter[str] = Counter()
    chosen = set()
    for user in sorted(files, key=lambda user: hashlib.sha256(user.encode()).digest()):
        package = files[user].module.split(".")[0]
        if taken[package] < limit:
            taken[package] += 1
            chosen.add(user)
    return {user: file for user, file in files.items() if user in chosen}


# --- reading one file ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """What one file says, every name absolute and dotted.

    `imports` are the top-level imports (bound name -> what it stands for), `stars` the modules imported with a star,
    `others` the top-level names that are assigned, and `references` all names used, in order, before any resolution.
    """

    summary: str | None = None
    definitions: dict[str, ItemText] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    stars: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    references: tuple[str, ...] = ()


def _read_all(files: Sequence[_File], workers: int | None, description: str) -> list[_Source | None]:
    if workers is None:
        workers = min(2, os.cpu_count() or 1) if len(files) >= 200 else 1
    if workers > 1:
        try:
            with ProcessPoolExecutor(workers) as pool:
                results = pool.map(_read_source, files, chunksize=8)
                return list(progress(results, description=description, total=len(files)))
        except BrokenProcessPool:
            # Where processes are spawned, a script without `if __name__ == "__main__"` cannot have any.
            warnings.warn("worker processes did not start; reading in this process", RuntimeWarning, stacklevel=4)
    return [_read_source(file) for file in progress(files, description=description, total=len(files))]


def _read_source(file: _File, with_references: bool = True) -> _Source | None:
    """Parse one file; None if it cannot be read, is not UTF-8, not valid Python, or nested too deeply."""
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
    # Sorted by position alone: the names of one import statement share theirs, and are in order already.
    references = sorted(_references(tree, package), key=lambda reference: reference[:2]) if with_references else []
    names = tuple(dict.fromkeys(name for _, _, name in references))
    return _Source(_summary(tree), definitions, imports, tuple(stars), frozenset(others), names)


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


def _references(tree: ast.Module, package: str) -> Iterator[tuple[int, int, str]]:
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


# --- resolving names -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A name's text and the module that defines it (for a module: the module itself)."""

    text: ItemText
    home: str


class _Library:
    """Looks names up in source. A module that no user file brought along is parsed when first asked for, and kept."""

    def __init__(
        self, paths: Mapping[str, Path], packages: Collection[str], sources: Mapping[str, _Source | None]
    ) -> None:
        self._packages = frozenset(packages)
        self._paths = paths
        self._sources = dict(sources)
        self._members: dict[tuple[str, str, int], _Found | None] = {}
        self._items: dict[str, tuple[str, _Found] | None] = {}

    def history(self, module: str, source: _Source) -> dict[str, ItemText]:
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
        if name not in self._paths and name not in self._packages:
            return None
        source = self._source(name)
        return _Found(ItemText("module", source.summary if source else None), name)

    def _source(self, module: str) -> _Source | None:
        """The module's source; None if it is compiled or cannot be parsed."""
        if module not in self._sources:
            path = self._paths.get(module)
            if path is None or path.suffix in (".so", ".pyd"):
                self._sources[module] = None
            elif path.suffix == ".py":
                self._sources[module] = _read_source(_File(path, module), with_references=False)
            else:
                self._sources[module] = _Source()  # a namespace package: its members are its submodules
        return self._sources[module]

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
