"""Tables that are finished while others are not wait beside the target, so that an interrupted run goes on."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from recbase_hf.files import atomic_folder, read_json, write_json

__all__ = ["UnfinishedTables", "unfinished_tables", "writing"]

logger = logging.getLogger(__name__)

_RECORD = "finished.json"


class UnfinishedTables:
    """A hidden folder beside the target, with the tables that are whole and what is to be said about each.

    Args:
        out: the target.
        made_of: all that the tables depend on; tables that were made of anything else are made anew.

    Raises:
        FileExistsError: the target is a file, or is or holds the current folder.
    """

    def __init__(self, out: Path, made_of: dict[str, Any]) -> None:
        self.out = Path(os.path.realpath(out))
        if self.out.is_file() or self.out in (Path.cwd(), *Path.cwd().parents):
            raise FileExistsError(f"{out} is a file, or holds the current folder; name a folder that can be written")
        self.folder = self.out.with_name(f".{self.out.name}.unfinished")
        self.made_of = json.loads(json.dumps(made_of))  # as it comes back from a file
        self.facts: dict[str, dict[str, Any]] = self._taken_up()
        if not self.facts:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _taken_up(self) -> dict[str, dict[str, Any]]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = read_json(self.folder / _RECORD)
            if record["made_of"] == self.made_of:
                facts: dict[str, dict[str, Any]] = record["facts"]
                return dict(takewhile(lambda fact: not fact[1]["rows"] or self.path(fact[0]).exists(), facts.items()))
        return {}

    def path(self, name: str) -> Path:
        """Of a table."""
        return self.folder / f"{name}.parquet"

    def table(self, name: str, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """What is to be said about a table, after it was written unless it was finished already.

        Args:
            write: writes the table to a path and returns what is to be said about it, with its `rows`. A table without
                rows leaves no file.
        """
        if name in self.facts:
            logger.info("%s: %s were finished already", self.out, name)
            return self.facts[name]
        partial = self.folder / f".{name}.{os.getpid()}.partial"
        try:
            facts = write(partial)
            if facts["rows"]:
                os.replace(partial, self.path(name))
        finally:
            partial.unlink(missing_ok=True)
        self.facts[name] = facts
        with writing(self.out, "the record of what is finished"):
            write_json(self.folder / _RECORD, {"made_of": self.made_of, "facts": self.facts})
        return facts

    def publish(self, facts: dict[str, Any]) -> None:
        """Put all tables and `dataset.json` in the place of the target, at once."""
        with writing(self.out, "dataset.json"), atomic_folder(self.out) as folder:
            for name in self.facts:
                if self.path(name).exists():
                    self.path(name).rename(folder / f"{name}.parquet")
            write_json(folder / "dataset.json", facts)
        shutil.rmtree(self.folder)


@contextmanager
def unfinished_tables(out: Path, made_of: dict[str, Any]) -> Iterator[UnfinishedTables]:
    """`UnfinishedTables` that stay where the next run can go on (after a kill, or where the disk was full).

    Errors in the raw files end it for good: they have to be mended or fetched again, and nothing is left behind.
    """
    tables = UnfinishedTables(out, made_of)
    try:
        yield tables
    except (OSError, MemoryError):
        if not tables.facts:
            shutil.rmtree(tables.folder, ignore_errors=True)
        raise
    except Exception:
        shutil.rmtree(tables.folder, ignore_errors=True)
        raise


@contextmanager
def writing(out: Path, what: str) -> Iterator[None]:
    """Errors of the disk, with the folder, what was being written, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{out}: {what} could not be written ({error.strerror or error}); make room on the disk, or name another "
            "folder; the same command then goes on where this one stopped",
        ) from error
