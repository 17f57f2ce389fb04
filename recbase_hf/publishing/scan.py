"""What must not leave with a folder: pickles, paths of somebody's machine, secrets."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from recbase_hf.publishing.refusals import Refusal

__all__ = ["scan_file", "scan_files"]

PICKLE_SUFFIXES = {".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pt2", ".pth"}
TEXT_SUFFIXES = {
    *("", ".cfg", ".csv", ".html", ".ini", ".ipynb", ".jinja", ".json", ".jsonl", ".log", ".md", ".ndjson", ".py"),
    *(".sh", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
}
WITH_PATHS = {".cfg", ".ini", ".ipynb", ".json", ".jsonl", ".log", ".md", ".ndjson", ".toml", ".txt", ".yaml", ".yml"}
"""Suffixes of files in which an absolute path can only be a slip; code and item tables may speak of any."""
VOCABULARIES = {"tokenizer.json", "vocab.json"}

_ROOTS = (
    "Users|Volumes|cluster|content|data|datasets|etc|gpfs|home|kaggle|lustre|media|mnt|nfs|opt|private|root|scratch|"
    "srv|tmp|usr|var|work|workspace"
)
_LOCAL_PATH = re.compile(
    rf"file:///?[\w.]\S*"  # a link to a file
    rf"|(?<![\w.~:/\\<-])/(?:{_ROOTS})/[\w.@+-][\w./@+-]*"  # below a root that machines have
    rf"|(?<=[\"'])/[\w.@+-][^\"'\s]*(?=[\"'])"  # a whole string of JSON or YAML
    rf"|(?<!\w)[A-Za-z]:(?:\\\\|\\(?![bfnrtu]))[\w.][^\"'\s]*"  # with a drive; one backslash may be an escape in JSON
)
_SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": r"\b(?:gh[opsur]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "an API key": r"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": r"\bAIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password or key": r"(?i)\b[a-z_]*(?:api_?key|secret|password|passwd|access_?token|auth_?token)[\"']?\s*[:=]\s*"
    r"[\"'][^\"'\s<>{}]{12,}[\"']",
}
_SECRET = re.compile("|".join(f"({pattern.replace('(?i)', '')})" for pattern in _SECRETS.values()))
_ANY_CASE = re.compile(_SECRETS["a password or key"])
_HEAD = 1 << 12
"""Bytes that tell what a file is."""


def scan_files(files: Mapping[str, Path | bytes]) -> list[Refusal]:
    """All that is against these files, by their path in the repository."""
    return [refusal for name, content in files.items() for refusal in scan_file(name, content)]


def scan_file(name: str, content: Path | bytes) -> Iterator[Refusal]:
    """What is against one file.

    Args:
        name: its path in the repository.
        content: where it lies, or what it holds.

    >>> [str(refusal) for refusal in scan_file("config.json", b'{"data": "/home/ann/shop"}')]
    ['config.json, line 1: the local path /home/ann/shop; name the file or a Hub id without the folder']
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".safetensors":
        if not _is_safetensors(_head(content, 1 << 16), content):
            yield Refusal(name, "not readable as safetensors", "save it again")
    elif suffix in PICKLE_SUFFIXES or _is_pickle(content):
        yield Refusal(
            name,
            "a pickle, which can run code when it is read",
            "save it as safetensors, Parquet or JSON, or delete it",
        )
    elif suffix in TEXT_SUFFIXES:
        yield from _scan_text(name, suffix, content)


# ---- text ------------------------------------------------------------------------------------------------------------


def _scan_text(name: str, suffix: str, content: Path | bytes) -> Iterator[Refusal]:
    may_have_paths = suffix not in WITH_PATHS or Path(name).name in VOCABULARIES
    for number, line in enumerate(_lines(content), start=1):
        found = None if may_have_paths else _LOCAL_PATH.search(line)
        if found:
            yield Refusal(
                name,
                f"the local path {found[0][:100]}",
                "name the file or a Hub id without the folder",
                f"line {number}",
            )
        secret = _SECRET.search(line) or _ANY_CASE.search(line)
        if secret:
            kind = list(_SECRETS)[(secret.lastindex or len(_SECRETS)) - 1]
            yield Refusal(
                name, f"{kind} ({secret[0][:8]}…)", "take it out, and revoke it where it was made", f"line {number}"
            )


def _lines(content: Path | bytes) -> Iterator[str]:
    if isinstance(content, bytes):
        yield from content.decode("utf-8", errors="replace").splitlines()
    else:
        with open(content, encoding="utf-8", errors="replace") as file:
            yield from file


# ---- pickles ---------------------------------------------------------------------------------------------------------


def _head(content: Path | bytes, size: int) -> bytes:
    if isinstance(content, bytes):
        return content[:size]
    with open(content, "rb") as file:
        return file.read(size)


def _is_safetensors(head: bytes, content: Path | bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    if not 2 <= length <= 100_000_000:
        return False
    try:
        json.loads(_head(content, 8 + length)[8:])
    except ValueError:
        return False
    return True


def _is_pickle(content: Path | bytes) -> bool:
    """By the first bytes, whatever the name: a pickle or NumPy objects, also compressed (joblib) or zipped (torch)."""
    head = _head(content, _HEAD)
    return _has_pickle_inside(content) if head.startswith(b"PK\x03\x04") else _starts_as_pickle(head)


def _has_pickle_inside(archive: Path | bytes) -> bool:
    file = io.BytesIO(archive) if isinstance(archive, bytes) else archive
    # What is no zip after all, is encrypted or damaged, no reader takes for weights or arrays.
    with suppress(zipfile.BadZipFile, RuntimeError, EOFError, zlib.error), zipfile.ZipFile(file) as opened:
        names = opened.namelist()
        if any(Path(name).suffix in PICKLE_SUFFIXES for name in names):
            return True
        return any(_starts_as_pickle(_head_of_member(opened, name)) for name in names)
    return False


def _head_of_member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        return member.read(_HEAD)


def _starts_as_pickle(head: bytes) -> bool:
    if head.startswith(b"\x1f\x8b"):
        with suppress(zlib.error):
            head = zlib.decompressobj(wbits=31).decompress(head, 16)
    elif head[:1] == b"\x78":
        with suppress(zlib.error):
            head = zlib.decompressobj().decompress(head, 16)
    if head.startswith(b"\x93NUMPY"):
        return re.search(rb"'\|O\d*'", head) is not None
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
