"""Scores a table of any size into Parquet shards, on one process or several, and goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbase_hf.catalog import ItemCatalog
from recbase_hf.errors import DataError, UnknownItemError
from recbase_hf.files import atomic_file, read_json, write_json
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.progress import progress
from recbase_hf.scoring.engine import adapters_of
from recbase_hf.scoring.method import ScoreMethod, checked_alpha, checked_method
from recbase_hf.scoring.table_rows import LongTable, LongTableSource, as_schema, open_table

if TYPE_CHECKING:
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["hash_of_catalog", "hash_of_model", "score_table"]

_DIGITS = "[0-9]" * 5


def score_table(
    scorer: RecBaseScorer,
    table: LongTableSource,
    output: str | Path,
    *,
    catalog: ItemCatalog,
    method: ScoreMethod = "catalog",
    alpha: float = 0.0,
    rows_per_part: int = 4096,
) -> list[Path]:
    """Score the candidates of every row of a table; for tables that no memory holds.

    Every item id is looked up before the first row is scored. Then each `rows_per_part` rows are scored and written
    into `output/_parts`, so that after an interruption the same call goes on behind the last whole part, also on
    another number of processes. Under `accelerate launch` each process takes a contiguous share of the parts; all must
    see the same `output`, and each needs its scorer on its own device. A process that fails is for the launcher to
    notice, which ends the others.

    Args:
        scorer: what `RecBaseScorer.score` is called on.
        table: a Parquet or JSON-lines file, a folder of such files, a `datasets.Dataset` or `IterableDataset`, a
            DataFrame, an Arrow table or a list of dictionaries. Columns `history` (item ids, oldest first; empty or
            missing where there is none) and `candidates` (item ids), lists of text or whole numbers.
        output: folder for the scores. Another table, model, catalog or option needs another folder.
        catalog: holds all these items.
        method: as in `RecBaseScorer.score`.
        alpha: as in `RecBaseScorer.score`.
        rows_per_part: rows that are in memory, and that an interruption may cost.

    Returns:
        The Parquet files `output/scores-00000-of-00001.parquet`, ..., one a process: in the order of their names the
        rows in the table's order, with all columns but `history`, and `scores`, list<float32>, the natural-log
        probability of each candidate. What is there already by the same call is returned as it is.

    Raises:
        DataError: a column is missing or of another type, an id is missing, or the table changed meanwhile.
        FileExistsError: `output` is a file.
        FileNotFoundError: there is no such table.
        FingerprintMismatchError: the catalog was made with another tokenizer.
        UnknownItemError: an item is not in the catalog; the message has row, column and id.
        ValueError: `output` holds other scores, or an option is out of range.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file; name a folder for the scores")
    if rows_per_part < 1:
        raise ValueError(f"rows_per_part is {rows_per_part}; it must be at least 1")
    require_same_fingerprint(tokenizer=scorer.tokenizer.fingerprint, catalog=catalog.fingerprint)
    options = {"method": checked_method(method), "alpha": checked_alpha(alpha)}
    rows = open_table(table)
    _require_columns(rows)
    settings = {
        "tokenizer": scorer.tokenizer.fingerprint,
        "model": hash_of_model(scorer.model),
        "catalog": hash_of_catalog(catalog),
        **options,
        "table": rows.identity,
        "rows": rows.num_rows,
        "rows_per_part": rows_per_part,
    }
    return _Run(scorer, rows, catalog, options, output, rows_per_part).finish(settings, _processes())


def _processes() -> Any:
    """Which of how many processes this is."""
    import torch
    from accelerate import PartialState

    # The first to be done waits for the last, maybe longer than the usual ten minutes.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(hours=24))


@dataclass(frozen=True)
class _Run:
    scorer: RecBaseScorer
    rows: LongTable
    catalog: ItemCatalog
    options: dict[str, Any]
    output: Path
    rows_per_part: int

    def finish(self, settings: dict[str, Any], processes: Any) -> list[Path]:
        """Do this process's share of what is left, and wait for the others."""
        if _has_results(self.output):
            _require_settings(self.output, settings)
        shards = _whole_shards(self.output)
        if shards is None:
            shards = _shards(self.output, processes.num_processes)
            mine = self._share(processes.process_index, processes.num_processes)
            missing = [] if shards[processes.process_index].exists() else self._missing(mine)
            self._look_up_all(missing)
            if processes.is_main_process:
                write_json(self.output / "_settings.json", settings)
            processes.wait_for_everyone()
            _require_settings(self.output, settings)
            self._score_all(missing, of=mine)
            self._merge(mine, shards[processes.process_index])
            processes.wait_for_everyone()
        if processes.is_main_process:
            _drop_all_but(shards, self.output)
        return shards

    def _share(self, index: int, count: int) -> list[range]:
        """The parts of one of `count` processes, each the rows that it covers."""
        size, end = self.rows_per_part, self.rows.num_rows
        parts = range(0, end, size)
        mine = parts[len(parts) * index // count : len(parts) * (index + 1) // count]
        return [range(start, min(start + size, end)) for start in mine]

    def _missing(self, parts: Sequence[range]) -> list[range]:
        return [part for part in parts if not self._path(part).exists()]

    def _path(self, part: range) -> Path:
        return self.output / "_parts" / f"{part.start:012d}-{part.stop:012d}.parquet"

    def _read(self, parts: Sequence[range]) -> Iterator[tuple[range, pa.Table]]:
        """The rows of these parts, ascending; neighbors are read in one go."""
        reader: Iterator[pa.Table] = iter(())
        position = None
        for part in parts:
            if part.start != position:
                reader = self.rows.parts(part.start, self.rows_per_part)
            table = next(reader, None)
            if table is None or table.num_rows != len(part):
                raise DataError(f"{self.rows.name} has lost rows since it was opened; let no one write to it meanwhile")
            position = part.stop
            yield part, table

    def _look_up_all(self, parts: Sequence[range]) -> None:
        """An id that nobody knows must not end a night's work at its last row."""
        with progress(description="looking up items", total=sum(map(len, parts)), unit=" rows") as bar:
            for part, table in self._read(parts):
                for column in ("history", "candidates"):
                    self._catalog_rows(table, column, part.start)
                bar.update(len(part))

    def _score_all(self, parts: Sequence[range], *, of: Sequence[range]) -> None:
        total = sum(map(len, of))
        done = total - sum(map(len, parts))
        with progress(description="scoring", total=total, initial=done, unit=" rows") as bar:
            for part, table in self._read(parts):
                with atomic_file(self._path(part)) as temporary:
                    pq.write_table(self._score(table, part.start), temporary)
                bar.update(len(part))

    def _score(self, table: pa.Table, first_row: int) -> pa.Table:
        histories, candidates = (self._catalog_rows(table, name, first_row) for name in ("history", "candidates"))
        scores = self.scorer.score_rows(histories, candidates, catalog=self.catalog, **self.options)
        offsets = np.cumsum([0, *map(len, scores)]).astype(np.int32)
        column = pa.ListArray.from_arrays(offsets, np.concatenate(scores).astype(np.float32))
        return table.append_column("scores", column).select(self._schema.names)

    @property
    def _schema(self) -> pa.Schema:
        fields = [field for field in self.rows.schema if field.name != "history"]
        return pa.schema([*fields, pa.field("scores", pa.list_(pa.float32()))])

    def _catalog_rows(self, table: pa.Table, column: str, first_row: int) -> list[np.ndarray]:
        """Catalog rows, for each row of the table one (items,) int64 array."""
        if pa.types.is_null(table.schema.field(column).type):
            return [np.zeros(0, dtype=np.int64)] * table.num_rows
        lists = table[column].combine_chunks()
        ends = np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
        ids = pc.list_flatten(lists)

        def place(position: int) -> str:
            return self.rows.cell(first_row + int(np.searchsorted(ends, position, side="right")), column)

        if ids.null_count:
            position = pc.index(pc.is_null(ids), True).as_py()
            raise DataError(f"{place(position)}: an item id is missing; fill it in or take it out of the list")
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary_decode()
        encoded = ids.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        try:
            found = self.catalog.rows(distinct)
        except UnknownItemError as error:
            unknown = next(number for number, item_id in enumerate(distinct) if item_id not in self.catalog)
            raise UnknownItemError(f"{place(pc.index(encoded.indices, unknown).as_py())}: {error}") from None
        return np.split(found[encoded.indices.to_numpy()], ends[:-1])

    def _merge(self, parts: Sequence[range], shard: Path) -> None:
        """Join the parts of a process, one in memory at a time."""
        if shard.exists():
            return
        with atomic_file(shard) as temporary, pq.ParquetWriter(temporary, self._schema) as writer:
            for part in parts:
                # Not `pq.read_table`, which takes folders called `name=value` for further columns.
                with pq.ParquetFile(self._path(part)) as file:
                    writer.write_table(as_schema(file.read(), self._schema))


# ---- what must hold before anything is scored ------------------------------------------------------------------------


def _require_columns(rows: LongTable) -> None:
    names = rows.schema.names
    if not names and rows.num_rows == 0:  # a file without lines says nothing about its columns
        return
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{rows.name}: two columns are called {repeated!r}; rename one")
    for name in ("history", "candidates"):
        if name not in names:
            raise DataError(f"{rows.name}: no column {name!r}; the columns are {names}")
        kind = rows.schema.field(name).type
        if not _is_list_of_ids(kind):
            raise DataError(
                f"{rows.name}, column {name!r}: holds {kind}; it must hold lists of item ids, text or whole numbers"
            )
    if "scores" in names:
        raise DataError(f"{rows.name}: there is a column 'scores' already; rename or drop it")


def _is_list_of_ids(kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    value = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    is_text = pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)
    return is_text or pa.types.is_integer(value) or pa.types.is_null(value)


def hash_of_model(model: Any) -> str:
    """Hash of all weights, of how they are put together, and of which adapters are active."""
    import torch

    digest = hashlib.sha256(model.config.to_json_string().encode())
    digest.update(repr(adapters_of(model)).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_of_catalog(catalog: ItemCatalog) -> str:
    digest = hashlib.sha256(f"{catalog.fingerprint} {catalog.codebook_size} {catalog.codes.shape}".encode())
    digest.update(np.ascontiguousarray(catalog.codes, dtype="<i8").data)
    digest.update(json.dumps(catalog.item_ids).encode())
    return digest.hexdigest()


# ---- the folder of the scores ----------------------------------------------------------------------------------------


def _has_results(output: Path) -> bool:
    return any(any(output.glob(pattern)) for pattern in ("_parts/*.parquet", f"scores-{_DIGITS}-of-{_DIGITS}.parquet"))


def _require_settings(output: Path, settings: dict[str, Any]) -> None:
    path = output / "_settings.json"
    before = read_json(path) if path.exists() else {}
    differing = [
        _shown(name, before.get(name), settings.get(name))
        for name in {**settings, **before}
        if before.get(name) != settings.get(name)
    ]
    if differing:
        raise ValueError(
            f"{output} holds scores that were made otherwise ({', '.join(differing)}); "
            "name another output folder, or delete this one"
        )


def _shown(name: str, before: Any, now: Any) -> str:
    """What differs: hashes by their name alone, what people chose with both values."""
    return name if max(len(str(before)), len(str(now))) > 30 else f"{name}: {before}, now {now}"


def _shards(output: Path, count: int) -> list[Path]:
    return [output / f"scores-{index:05d}-of-{count:05d}.parquet" for index in range(count)]


def _whole_shards(output: Path) -> list[Path] | None:
    """The shards of a run that has come to its end."""
    counts = {int(path.stem[-5:]) for path in output.glob(f"scores-{_DIGITS}-of-{_DIGITS}.parquet")}
    complete = (_shards(output, count) for count in sorted(counts))
    return next((shards for shards in complete if all(shard.exists() for shard in shards)), None)


def _drop_all_but(shards: Sequence[Path], output: Path) -> None:
    """Drop the parts, shards of another number of processes, and what killed processes left half written."""
    shutil.rmtree(output / "_parts", ignore_errors=True)
    for pattern in (f"scores-{_DIGITS}-of-{_DIGITS}.parquet", ".scores-*.partial", "._settings.json.*.partial"):
        for path in output.glob(pattern):
            if path not in shards:
                path.unlink(missing_ok=True)
