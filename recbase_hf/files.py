"""Writing without losing: everything is written beside its target and renamed when it is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "atomic_file",
    "atomic_folder",
    "explained_full_disk",
    "hash_of_json",
    "read_json",
    "require_writable",
    "sha256_of_file",
    "write_json",
]


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
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; put it in the place of `path` if the block succeeds.

    Files of an existing `path` that the new content does not replace stay: a `.git` folder, a card, other work.

    A folder cannot be renamed onto a folder that holds files, so the old one is moved aside first: at every moment the
    old or the new content exists whole. What a crash leaves as `.NAME.previous` is put back by the next call.

    Raises:
        FileExistsError: `path` is a file, or is or holds the current folder.
    """
    path = Path(os.path.realpath(path))  # a link must go on pointing at its folder
    path.parent.mkdir(parents=True, exist_ok=True)
    previous = path.with_name(f".{path.name}.previous")
    _put_back(previous, path)
    _require_replaceable(path)
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
        _put_back(previous, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_back(previous: Path, path: Path) -> None:
    """Move what `path` lacks of the content that was moved aside back into it, and drop the rest."""
    if not previous.exists():
        return
    if not path.exists():
        previous.rename(path)
        return
    for entry in previous.iterdir():
        if not (path / entry.name).exists():
            entry.rename(path / entry.name)
    shutil.rmtree(previous)


def _require_replaceable(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another name for the folder to be written")
    if path in (Path.cwd(), *Path.cwd().parents):
        raise FileExistsError(f"{path} is or holds the current folder and cannot be replaced; name a folder inside it")


def _allow_reading(path: Path) -> None:
    """Give a file the usual permissions; safetensors makes its files readable by their owner only."""
    if path.stat().st_nlink > 1:  # a link to somebody's file
        return
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def require_writable(folder: str | Path) -> None:
    """Make a folder and check that a file can be written there, before hours of work for it.

    Raises:
        OSError: it cannot; names the folder.
    """
    folder = Path(folder)
    trial = folder / f".trial-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"something")
        trial.unlink()
    except OSError as error:
        raise OSError(
            f"the output folder {folder} cannot be written ({error}); choose another, or change its permissions"
        ) from error


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


@contextmanager
def explained_full_disk(folder: str | Path) -> Iterator[None]:
    """A full disk as an error that names the folder and what to do.

    Raises:
        OSError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"the disk is full while {folder} is written ({error.strerror or error}); make room and give the same "
            "command again, which goes on where this one stopped",
        ) from error


def hash_of_json(content: Any) -> str:
    """Hexadecimal sha256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
