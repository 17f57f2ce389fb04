"""Scores for all users of a log, into one file: the best items for each, or pairs that somebody names."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recbase_hf.data.histories import Histories
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file, hash_of_json, require_writable
from recbase_hf.progress import progress
from recbase_hf.scoring.adaptation import LEAST_USERS, adapt, model_components
from recbase_hf.scoring.method import checked_method
from recbase_hf.scoring.table import hash_of_catalog, hash_of_model

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["Pairs", "UserScores", "require_writable_table", "score_users"]

logger = logging.getLogger(__name__)

WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {".parquet": pq.write_table, ".csv": pa_csv.write_csv}
USERS_PER_PART = 256
"""That an interruption may cost."""

_USERS_AT_ONCE = 32

Scores = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]
"""From (n,) histories and (n,) candidates, catalog rows both, to (candidates,) scores each."""


@dataclass(frozen=True)
class Pairs:
    """Users and items to be scored.

    Attributes:
        table: a pair a row.
        user: its column of the user, text.
        item: its column of the item, text.
        name: of the table, for messages.
    """

    table: pa.Table
    user: str = "user_id"
    item: str = "item_id"
    name: str = "candidates"


@dataclass(frozen=True)
class UserScores:
    """What was scored.

    Attributes:
        users: how many.
        users_without_history: of them.
        rows: of the file.
        unknown_pairs: pairs that were left out, because the catalog lacks their item.
        method: `adapted`, `calibrated`, `catalog` or `joint`.
        weights: of what `adapted` weighs; None for the others.
    """

    users: int
    users_without_history: int
    rows: int
    unknown_pairs: int
    method: str
    weights: dict[str, float] | None


def require_writable_table(path: str | Path) -> None:
    """Raise unless a table can be written there.

    Raises:
        FileExistsError: there is something.
        ValueError: it is not called `.parquet` or `.csv`.
    """
    if Path(path).suffix.lower() not in WRITERS:
        raise ValueError(f"{path}: the scores of a log go into one file; call it *.parquet or *.csv")
    if Path(path).exists():
        raise FileExistsError(f"{path} is there already; name another file, or delete it")


def score_users(
    scorer: RecBaseScorer,
    catalog: ItemCatalog,
    histories: Histories,
    output: str | Path,
    *,
    seen: Histories | None = None,
    k: int = 10,
    pairs: Pairs | None = None,
    drop_unknown: bool = False,
    method: str | None = None,
) -> UserScores:
    """Score and write a table; the same call goes on where it was interrupted.

    Args:
        scorer: of the model.
        catalog: with vectors, unless the method is `catalog` or `joint`.
        histories: what users liked, in rows of the catalog.
        output: `.parquet` or `.csv`. Without pairs it has the columns `user_id`, `rank` (from 1), `item_id`, `title`
            and `score`, `k` rows a user of `seen`, what they have seen left out; with pairs theirs and `score`, in
            their order.
        seen: all that users had to do with, liked or not; by default the histories.
        k: items a user, or as many as remain.
        pairs: who has no history is scored without one.
        drop_unknown: whether pairs of items that the catalog lacks are left out, or refused.
        method: `adapted` weighs model, texts and popularity by the histories themselves; `calibrated` as the bundle's
            calibration has it; `catalog` and `joint` are the model's own log-probabilities. None is `adapted` where
            50 histories hold two items, else `calibrated` where the bundle can, else `joint`.

    Raises:
        DataError: too few histories for `adapted`, a catalog without vectors, an item of the pairs that it lacks, or
            nothing to score.
        OSError: the folder cannot be written.
        FileExistsError, ValueError: as `require_writable_table` has it; or `calibrated` without a calibration.
    """
    output = Path(output)
    require_writable_table(output)
    require_writable(output.parent)
    seen = histories if seen is None else seen
    if pairs is None:
        asked: _Best | _Pairs = _Best(catalog, histories, seen, k)
    else:
        asked = _Pairs(catalog, histories, seen, pairs, drop_unknown=drop_unknown)
    if not asked.histories:
        raise DataError("there is nobody to score for: the log has no users, or the candidates no item of the catalog")
    method = method or _default_method(scorer, histories)
    scores, weights = _scores(scorer, catalog, histories, method)
    work = output.with_name(f".{output.name}.{_identity(scorer, catalog, histories, asked, method)[:8]}.parts")
    parts = list(_parts(asked, scores, work))
    table = asked.ordered(pa.concat_tables(pq.read_table(part) for part in parts))
    with atomic_file(output) as temporary:
        WRITERS[output.suffix.lower()](table, temporary)
    shutil.rmtree(work)
    without = sum(len(history) == 0 for history in asked.histories)
    return UserScores(len(asked.histories), without, table.num_rows, asked.unknown, method, weights)


def _identity(
    scorer: RecBaseScorer, catalog: ItemCatalog, histories: Histories, asked: _Best | _Pairs, method: str
) -> str:
    """Hash of all that scores depend on: `adapted` ones on everybody's histories."""
    digest = hashlib.sha256()
    for part in (histories.items, histories.offsets, *([] if catalog.vectors is None else [catalog.vectors])):
        digest.update(np.ascontiguousarray(part).data)
    calibration = None if scorer.calibration is None else scorer.calibration.facts()
    parts = [hash_of_model(scorer.model), hash_of_catalog(catalog), catalog.titles, calibration, asked.identity, method]
    return hash_of_json([digest.hexdigest(), *parts])


def _default_method(scorer: RecBaseScorer, histories: Histories) -> str:
    if int((histories.lengths >= 2).sum()) >= LEAST_USERS:
        return "adapted"
    few = f"fewer than {LEAST_USERS} histories hold two items, too few to adapt to"
    if scorer.calibration is not None and scorer.active_adapter is None:
        logger.warning("%s; scored by calibrated", few)
        return "calibrated"
    logger.warning("%s, and no calibration belongs to these weights (recbase calibrate); scored by joint", few)
    return "joint"


def _scores(
    scorer: RecBaseScorer, catalog: ItemCatalog, histories: Histories, method: str
) -> tuple[Scores, dict[str, float] | None]:
    if method == "adapted":
        rows = [histories[user] for user in range(len(histories))]
        adaptation = adapt(rows, len(catalog), model_components(scorer, catalog))
        return adaptation.scores, {name: float(value) for name, value in adaptation.weights.items()}
    if method == "calibrated":
        return lambda histories, candidates: scorer.score_calibrated_rows(histories, candidates, catalog=catalog), None
    own = checked_method(method)
    return lambda histories, candidates: scorer.score_rows(histories, candidates, catalog=catalog, method=own), None


def _parts(asked: _Best | _Pairs, scores: Scores, work: Path) -> Iterator[Path]:
    """Files of `USERS_PER_PART` users each; those that are there are not made again."""
    work.mkdir(parents=True, exist_ok=True)
    with progress(description="scoring", total=len(asked.histories), unit=" users") as bar:
        for start in range(0, len(asked.histories), USERS_PER_PART):
            users = range(start, min(start + USERS_PER_PART, len(asked.histories)))
            path = work / f"{start:012d}.parquet"
            if path.exists():
                bar.update(len(users))
            else:
                tables = []
                for first in range(users.start, users.stop, _USERS_AT_ONCE):
                    batch = range(first, min(first + _USERS_AT_ONCE, users.stop))
                    histories, candidates = [asked.histories[u] for u in batch], [asked.candidates(u) for u in batch]
                    found = scores(histories, candidates)
                    tables += [asked.table(user, part) for user, part in zip(batch, found, strict=True)]
                    bar.update(len(batch))
                with atomic_file(path) as temporary:
                    pq.write_table(pa.concat_tables(tables), temporary)
            yield path


def _history_of(histories: Histories, users: np.ndarray) -> list[np.ndarray]:
    """For each user (items,) int64, empty for those who have none."""
    known = {name: number for number, name in enumerate(histories.users)}
    nothing = np.empty(0, dtype=np.int64)
    return [histories[known[user]] if user in known else nothing for user in users]


class _Best:
    """The best items of the whole catalog for each user."""

    unknown = 0

    def __init__(self, catalog: ItemCatalog, histories: Histories, seen: Histories, k: int) -> None:
        self._catalog, self._seen, self._k = catalog, seen, k
        self._all = np.arange(len(catalog))
        self.histories = _history_of(histories, seen.users)
        self.identity: Any = [
            k,
            histories.users.tolist(),
            seen.users.tolist(),
            [rows.tolist() for rows in self._rows()],
        ]

    def _rows(self) -> list[np.ndarray]:
        return [self._seen[user] for user in range(len(self._seen))]

    def candidates(self, _user: int) -> np.ndarray:
        return self._all

    def table(self, user: int, scores: np.ndarray) -> pa.Table:
        seen = self._seen[user]
        scores = np.array(scores, dtype=np.float64)
        scores[seen] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(self._k, len(scores) - len(np.unique(seen)))]
        return pa.table(
            {
                "user_id": pa.array([self._seen.users[user]] * len(best), pa.string()),
                "rank": np.arange(1, len(best) + 1, dtype=np.int32),
                "item_id": pa.array([self._catalog.item_ids[row] for row in best], pa.string()),
                "title": pa.array([self._catalog.titles[row] for row in best], pa.string()),
                "score": scores[best],
            }
        )

    def ordered(self, table: pa.Table) -> pa.Table:
        return table


class _Pairs:
    """The items that are named with each user."""

    def __init__(
        self, catalog: ItemCatalog, histories: Histories, seen: Histories, pairs: Pairs, *, drop_unknown: bool
    ) -> None:
        if "score" in pairs.table.column_names:
            raise DataError(f"{pairs.name}: there is a column 'score' already; rename or drop it")
        self._pairs, self.unknown = _with_known_items(catalog, pairs, drop=drop_unknown)
        names = np.array(self._pairs[pairs.user].to_pylist(), dtype=object)
        rows = catalog.rows(self._pairs[pairs.item].to_pylist())
        users, user_of_row = np.unique(names, return_inverse=True)
        _require_known_users(pairs, users, seen)
        self._by_user = np.argsort(user_of_row, kind="stable")
        ends = np.cumsum(np.bincount(user_of_row, minlength=len(users)))
        self._candidates = np.split(rows[self._by_user], ends[:-1])
        self.histories = _history_of(histories, users)
        self.identity: Any = [histories.users.tolist(), names.tolist(), rows.tolist()]

    def candidates(self, user: int) -> np.ndarray:
        return self._candidates[user]

    def table(self, _user: int, scores: np.ndarray) -> pa.Table:
        return pa.table({"score": np.asarray(scores, dtype=np.float64)})

    def ordered(self, table: pa.Table) -> pa.Table:
        scores = np.empty(table.num_rows)
        scores[self._by_user] = table["score"].to_numpy()
        return self._pairs.append_column("score", pa.array(scores))


def _with_known_items(catalog: ItemCatalog, pairs: Pairs, *, drop: bool) -> tuple[pa.Table, int]:
    is_known = [item_id in catalog for item_id in pairs.table[pairs.item].to_pylist()]
    if not all(is_known) and not drop:
        row = is_known.index(False)
        raise DataError(
            f"{pairs.name}, row {row + 1}: item {pairs.table[pairs.item][row].as_py()!r} is not in the file of the "
            f"items ({is_known.count(False):,} rows have such items); add it there, or leave these rows out"
        )
    return pairs.table.filter(pa.array(is_known, pa.bool_())), is_known.count(False)


def _require_known_users(pairs: Pairs, users: np.ndarray, seen: Histories) -> None:
    known = set(seen.users)
    strangers = [user for user in users if user not in known]
    if len(users) and len(strangers) == len(users):
        raise DataError(
            f"{pairs.name}: none of its users is in the log: it has {', '.join(map(repr, strangers[:3]))}, the log "
            f"{', '.join(map(repr, seen.users[:3]))}; are the ids written alike?"
        )
    if strangers:
        logger.warning(
            "%s: %d of %d users are not in the log, such as %r: scored without a history",
            pairs.name, len(strangers), len(users), strangers[0],
        )  # fmt: skip
