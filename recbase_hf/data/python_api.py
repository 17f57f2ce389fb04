"""The embedded data set `python-api`: which public Python names each source file on this machine uses, in order.

A user is a source file, its history the modules, classes and functions from elsewhere that it imports or uses (first
use of each), and an item such a name with its kind and the first line of its docstring. Source is read with `ast`;
nothing is imported or run. The domain "stdlib" holds the standard library's files and names, the domain "packages"
those of the installed third-party packages; a use that crosses the border counts in neither, so the two domains share
neither users nor items.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
import sysconfig
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recbase_hf.data.python_library import Library, list_files, modules_of
from recbase_hf.data.python_source import ItemText, SourceFile, read_sources
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_folder, read_json, write_json

__all__ = ["Extraction", "build_python_api", "extract_domain", "filter_histories"]

BUILDER_VERSION = 1
MIN_USER_EVENTS = 5
MIN_ITEM_USERS = 3
MAX_ITEMS = 6000
# These two bound the time spent on packages. The sample is by hash of the path: it reaches every folder of a large
# package evenly, keeps that package from filling the data set, and stays put when other files come or go.
MAX_FILE_BYTES = 300_000
MAX_FILES_PER_PACKAGE = 1500

_OWN_PACKAGE = "recbase_hf"


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
    files = list_files(map(Path, roots), exclude)
    modules = modules_of(files.values())
    readable = {user: file for user, file in sorted(files.items()) if file.path.suffix == ".py"}
    small = {
        user: file
        for user, file in readable.items()
        if not max_file_bytes or file.path.stat().st_size <= max_file_bytes
    }
    sample = _sample_files(small, max_files_per_package)
    read = dict(zip(sample, read_sources(list(sample.values()), workers, description), strict=True))

    known_packages = packages if packages is not None else {name for name in modules if "." not in name}
    own = {file.module: read[user] for user, file in sample.items() if modules[file.module] is file}
    library = Library(modules, known_packages, own)
    histories: dict[str, list[str]] = {}
    items: dict[str, ItemText] = {}
    for user, source in read.items():
        if source is not None and (history := library.history(sample[user].module, source)):
            histories[user] = list(history)
            items.update(history)
    counts = {
        "files_read": sum(source is not None for source in read.values()),
        "files_unparsable": sum(source is None for source in read.values()),
        "files_too_large": len(readable) - len(small),
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


def _sample_files(files: Mapping[str, SourceFile], limit: int | None) -> dict[str, SourceFile]:
    """At most `limit` files of each top-level package, those whose path has the smallest hash."""
    if limit is None:
        return dict(files)
    taken: Counter[str] = Counter()
    chosen = set()
    for user in sorted(files, key=lambda user: hashlib.sha256(user.encode()).digest()):
        package = files[user].top_level
        if taken[package] < limit:
            taken[package] += 1
            chosen.add(user)
    return {user: file for user, file in files.items() if user in chosen}


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
