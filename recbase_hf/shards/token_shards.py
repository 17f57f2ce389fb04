"""Packed token shards on disk: Arrow files of rows, memory-mapped, and `shards.json`, which says what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file, read_json, sha256_of_file
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.shards.packing import PackedRows

__all__ = ["FACTS", "ShardedRows", "TokenShards", "files_of", "rows_a_pass", "write_shard"]

FACTS = "shards.json"


@dataclass(frozen=True)
class TokenShards:
    """A folder of packed token shards.

    Attributes:
        facts: what `shards.json` says: settings, and of each domain its hash, users, events, rows, targets and files.
        layout: of the tokens.
        train: rows to learn from.
        validation: rows of other users.
    """

    facts: dict[str, Any]
    layout: TokenLayout
    train: ShardedRows
    validation: ShardedRows

    @classmethod
    def open(cls, folder: str | Path, *, tokenizer: Any = None) -> TokenShards:
        """Memory-map a folder that `pack_domains` wrote.

        Args:
            tokenizer: if given, checked to be the one that made the semantic IDs.

        Raises:
            DataError: a file is missing or of another size than `shards.json` says.
            FileNotFoundError: there are no finished shards.
            FingerprintMismatchError: the tokenizer is another.
        """
        folder = Path(folder)
        if not (folder / FACTS).exists():
            raise FileNotFoundError(
                f"{folder} holds no finished token shards ({FACTS} is missing); make them with recbase data pack, or "
                "give the same command again if it was interrupted"
            )
        facts = read_json(folder / FACTS)
        if tokenizer is not None:
            require_same_fingerprint(tokenizer=tokenizer.fingerprint, shards=facts["settings"]["tokenizer"])
        layout = TokenLayout(**facts["settings"]["layout"])
        return cls(
            facts, layout, *(ShardedRows.open(folder, facts, layout, split) for split in ("train", "validation"))
        )


class ShardedRows:
    """The rows of all domains, one after the other.

    Attributes:
        sizes: rows of each domain.
        passes: of each domain, how many of these rows every pass over its histories has, one pass after the other.
        layout: of the tokens.
        hash: of all rows.
    """

    def __init__(
        self,
        parts: list[np.ndarray],
        sizes: dict[str, int],
        layout: TokenLayout,
        hash_of_rows: str,
        passes: dict[str, list[int]] | None = None,
    ) -> None:
        self.sizes, self.layout, self.hash = sizes, layout, hash_of_rows
        self.passes = passes or {name: [size] for name, size in sizes.items()}
        self._parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)

    @classmethod
    def open(cls, folder: Path, facts: dict[str, Any], layout: TokenLayout, split: str) -> ShardedRows:
        """Memory-map the files of one split."""
        digest = hashlib.sha256()
        parts, sizes, passes = [], {}, {}
        for name, domain in facts["domains"].items():
            files = files_of(domain, split)
            parts += [part for file in files for part in _read_shard(folder / file["name"], file["rows"], facts)]
            rows: dict[int, int] = {}
            for file in files:
                number = file.get("pass", 0)
                rows[number] = rows.get(number, 0) + file["rows"]
            passes[name] = [rows[number] for number in sorted(rows)]
            sizes[name] = sum(passes[name])
            digest.update("".join(file["sha256"] for file in files).encode())
        return cls(parts, sizes, layout, digest.hexdigest(), passes)

    @classmethod
    def in_memory(cls, rows: PackedRows, name: str = "rows") -> ShardedRows:
        """Rows of one domain that are there already."""
        ids = rows.input_ids
        return cls([ids], {name: len(ids)}, rows.layout, hashlib.sha256(np.ascontiguousarray(ids).data).hexdigest())

    def __len__(self) -> int:
        """Rows of all domains."""
        return sum(self.sizes.values())

    @property
    def an_epoch(self) -> int:
        """Rows in which every history comes once: those of one pass."""
        return sum(map(rows_a_pass, self.passes.values()))

    def __getitem__(self, row: int) -> np.ndarray:
        """The tokens of a row, (row_length,)."""
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[part][row - self._ends[part]]

    def read(self, rows: Any) -> PackedRows:
        """Some rows, (n,) integers."""
        return PackedRows(np.stack([self[int(row)] for row in rows]), self.layout)


def files_of(domain: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """The files of `train` or `validation` in one domain's facts."""
    return [file for file in domain["files"] if Path(file["name"]).name.startswith(split)]


def rows_a_pass(passes: Sequence[int]) -> int:
    """The mean, since another cut may need a row more or less; at least one where there is any.

    >>> rows_a_pass([10, 11]), rows_a_pass([0, 0])
    (11, 0)
    """
    return -(-sum(passes) // max(1, len(passes)))


def write_shard(path: Path, rows: PackedRows) -> dict[str, Any]:
    """Write rows as an Arrow stream with one column, `input_ids`, whole or not at all; returns what `shards.json` says.

    `datasets.Dataset.from_file` opens it too.
    """
    row_length = rows.input_ids.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.input_ids.ravel()), row_length)
    table = pa.table({"input_ids": column})
    with atomic_file(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        digest = sha256_of_file(temporary)
    return {"rows": len(rows), "tokens": rows.num_tokens, "targets": rows.num_targets, "sha256": digest}


def _read_shard(path: Path, rows: int, facts: dict[str, Any]) -> list[np.ndarray]:
    """(rows, row_length) in all, memory-mapped."""
    if not path.exists():
        raise DataError(f"{path} is missing, though {FACTS} names it; pack the data again into a new folder")
    try:
        with pa.memory_map(str(path)) as file:
            column = pa.ipc.open_stream(file).read_all()["input_ids"]
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); pack the data again into a new folder") from error
    if len(column) != rows:
        raise DataError(f"{path} holds {len(column)} rows, {FACTS} says {rows}; pack the data again into a new folder")
    row_length = facts["settings"]["packing"]["row_length"]
    return [chunk.flatten().to_numpy().reshape(-1, row_length) for chunk in column.chunks]
