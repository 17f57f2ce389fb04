"""Writing without losing: everything is written beside its target and renamed when it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["atomic_file", "atomic_folder", "read_json", "sha256_of_file", "write_json"]


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds, else delete it.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_file(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        _allow_reading(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, replaces: str | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; put it in the place of `path` if the block succeeds.

    All that an existing `path` holds goes. With `replaces`, the name of a file, only a folder that holds this file, or
    nothing, is replaced, so that nobody's other work goes with it.

    A folder cannot be renamed onto a folder that holds files, so the old one is moved aside first and deleted last:
    at every moment the old or the new content exists whole. A crash between the two renames leaves the old content
    as `.NAME.previous`, which the next call puts back.

    Raises:
        FileExistsError: `path` is a file, the current folder, or holds something else than what may be replaced.
    """
    path = Path(os.path.realpath(path))  # a link must go on pointing at its folder
    path.parent.mkdir(parents=True, exist_ok=True)
    previous = path.with_name(f".{path.name}.previous")
    if previous.exists():
        if path.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(path)
    _require_replaceable(path, replaces)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for written in temporary.rglob("*"):
            if written.is_file():
                _allow_reading(written)
        if path.exists():
            path.rename(previous)
        temporary.rename(path)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_replaceable(path: Path, replaces: str | None) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another name for the folder to be written")
    if path in (Path.cwd(), *Path.cwd().parents):
        raise FileExistsError(f"{path} is or holds the current folder and cannot be replaced; name a folder inside it")
    if replaces is not None and not (path / replaces).exists() and any(path.iterdir()):
        raise FileExistsError(
            f"{path} holds other files (there is no {replaces}), which would be lost; choose a new or an empty folder"
        )


def _allow_reading(path: Path) -> None:
    """Give a file the usual permissions; safetensors makes its files readable by their owner only."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a broken one is reported with its path."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); it may be truncated: make or download it again"
        ) from error


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, keys in the order given, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
