"""What can be published, and how a folder or a repository is recognized as one of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from recbase_hf.catalog import storage
from recbase_hf.data.table_sources import find_table
from recbase_hf.errors import PublishingError
from recbase_hf.files import read_json
from recbase_hf.publishing.refusals import Refusal

__all__ = ["KINDS", "Kind", "files_of_folder", "identity_of", "kind_of", "kind_of_folder", "missing_files"]

TABLES = tuple(f"{table}.*" for table in ("items", "interactions"))


@dataclass(frozen=True)
class Kind:
    """One sort of thing that is published.

    Attributes:
        name: in messages and in the card's metadata.
        repo_type: of its repository on the Hub.
        marks: patterns of file names, all of which only this kind has (among those further down in `KINDS`).
        needs: patterns of further files without which it cannot be loaded.
        identity: file and path of keys to what tells one of the kind from another.
        template: of its card.
        derived: patterns of files that are out of date where a later folder lacks them.
    """

    name: str
    repo_type: str
    marks: tuple[str, ...]
    needs: tuple[str, ...]
    identity: tuple[str, ...]
    template: str
    derived: tuple[str, ...] = ()


KINDS = (
    Kind(
        name="adapter",
        repo_type="model",
        marks=("adapter_config.json",),
        needs=("adapter_model.safetensors",),
        identity=("adapter_config.json", "base_model_name_or_path"),
        template="adapter_card.md",
        derived=("*.safetensors", "training.json", "receipts/*"),
    ),
    Kind(
        name="catalog",
        repo_type=storage.REPO_TYPE,
        marks=(storage.FACTS,),
        needs=(storage.ITEMS, storage.VECTORS),
        identity=(storage.FACTS, "fingerprint"),
        template="catalog_card.md",
        derived=("*.safetensors",),
    ),
    Kind(
        name="bundle",
        repo_type="model",
        marks=("quantizer_config.json", "config.json"),
        needs=("model*.safetensors", "tokenizer_config.json", "tokenizer.json", "quantizer.safetensors"),
        identity=("config.json", "recbase", "fingerprint"),
        template="model_card.md",
        derived=("*.safetensors", "*.safetensors.index.json", "calibration.json", "training.json", "receipts/*"),
    ),
    Kind(
        name="tokenizer",
        repo_type="model",
        marks=("quantizer_config.json",),
        needs=("tokenizer_config.json", "tokenizer.json", "quantizer.safetensors"),
        identity=("tokenizer_config.json", "fingerprint"),
        template="tokenizer_card.md",
        derived=("training.json",),
    ),
    Kind(
        name="data set",
        repo_type="dataset",
        marks=TABLES,
        needs=(),
        identity=("dataset.json", "name"),
        template="dataset_card.md",
        derived=(*TABLES, "impressions.*", "dataset.json"),
    ),
)


def kind_of(names: Collection[str]) -> Kind | None:
    """The kind that files of these names are, if any.

    >>> kind_of(["README.md", "catalog.json", "items.parquet"]).name
    'catalog'
    """
    return next((kind for kind in KINDS if not _lacking(kind.marks, names)), None)


def kind_of_folder(folder: str | Path) -> Kind:
    """The kind of a folder.

    Raises:
        FileNotFoundError: there is no such folder.
        PublishingError: it holds nothing that can be published.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; name the one that save_pretrained or a command wrote")
    kind = kind_of(files_of_folder(folder))
    if kind is not None:
        return kind
    inside = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and kind_of(files_of_folder(child))]
    meant = f"; did you mean {folder / inside[0]}?" if inside else ""
    raise PublishingError(
        f"{folder} is none of {', '.join(kind.name for kind in KINDS)}: it has neither a model's config.json with "
        f"quantizer_config.json, nor adapter_config.json, catalog.json, or items.* with interactions.*{meant}"
    )


def files_of_folder(folder: str | Path) -> dict[str, Path]:
    """The files that would be published, by their path in the repository; hidden ones and caches stay at home."""
    folder = Path(folder)
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            found["/".join(parts)] = path
    return found


def missing_files(kind: Kind, folder: Path) -> list[Refusal]:
    """What the folder lacks to be loaded again."""
    names = files_of_folder(folder)
    lacking = _lacking(kind.needs, names)
    index = folder / "model.safetensors.index.json"
    if kind.name == "bundle" and index.is_file():
        lacking += sorted(set(read_json(index)["weight_map"].values()) - set(names))
    if kind.name == "data set":
        for table in ("items", "interactions"):
            find_table(folder, table)  # two tables of one name are refused there, with their names
    return [
        Refusal(name, f"missing, and without it the {kind.name} cannot be loaded", "save or make it again")
        for name in lacking
    ]


def identity_of(kind: Kind, read: Callable[[str], Any], names: Collection[str]) -> str | None:
    """What tells this bundle, catalog, ... from another: its fingerprint, base or name; None where it does not say.

    Args:
        read: JSON of a file.
        names: of the files that are there.
    """
    file, *keys = kind.identity
    if file not in names:
        return None
    value = read(file)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else str(value)


def _lacking(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    return [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)]
