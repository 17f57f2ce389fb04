"""Scores for all users of a log, into one file: the best items for each, or pairs that somebody names."""

from __future__ import annotations

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
from recbase_hf.errors import UnknownItemError
from recbase_hf.files import atomic_file, hash_of_json, require_writable
from recbase_hf.progress import progress
from recbase_hf.scoring.adaptation import LEAST_USERS, adapt, model_components
from recbase_hf.scoring.method import checked_method
from recbase_hf.scoring.table import hash_of_catalog, hash_of_model

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["UserScores", "require_writable_table", "score_users"]

logger = logging.getLogger(__name__)

WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {".parquet": pq.write_table, ".csv": pa_csv.write_csv}
USERS_PER_PART = 256
"""That an interruption may cost."""

_USERS_AT_ONCE = 32

Scores = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]
"""From (n,) histories and (n,) candidates, catalog rows both, to (candidates,) scores each."""


@dataclass(frozen=True)
class UserScores:
    """What was scored.

    Attributes:
        users: how many.
        rows: of the file.
        method: `adapted`, `calibrated`, `catalog` or `joint`.
    """

    users: int
    rows: int
    method: str


def require_writable_table(path: str | Path) -> None:
    """Raise unless a table can be written there.

    Raises:
        FileExistsError: there is something.
        ValueError: it is not called `.parquet` or `.csv`.
    """
    if Path(path).suffix not in WRITERS:
        raise ValueError(f"{path}: the scores of a log go into one file; call it *.parquet or *.csv")
    if Path(path).exists():
        raise FileExistsError(f"{path} is there already; name another file, or delete it")


def score_users(
    scorer: RecBaseScorer,
    catalog: ItemCatalog,
    histories: Histories,
    output: str | Path,
    *,
    k: int = 10,
    pairs: pa.Table | None = None,
    method: str | None = None,
) -> UserScores:
    """Score and write a table; the same call goes on where it was interrupted.

    Args:
        scorer: of the model.
        catalog: with vectors, unless the method is `catalog` or `joint`.
        histories: of the users, in rows of the catalog.
        output: `.parquet` or `.csv`. Without pairs it has the columns `user_id`, `rank` (from 1), `item_id`, `title`
            and `score`, `k` rows a user, items of the history left out; with pairs theirs and `score`, in their order.
        k: items a user, or as many as remain.
        pairs: columns `user_id` and `item_id`, text; who has no history is scored without one.
        method: `adapted` weighs model, texts and popularity by the histories themselves; `calibrated` as the bundle's
            calibration has it; `catalog` and `joint` are the model's own log-probabilities. None is `adapted` where
            50 histories hold two items, else `calibrated` where the bundle can, else `joint`.

    Raises:
        DataError: too few histories for `adapted`, or a catalog without vectors.
        OSError: the folder cannot be written.
        FileExistsError, ValueError: as `require_writable_table` has it; or `calibrated` without a calibration.
        UnknownItemError: an item of the pairs is not in the catalog.
    """
    output = Path(output)
    require_writable_table(output)
    require_writable(output.parent)
    method = method or _default_method(scorer, histories)
    scores = _scores(scorer, catalog, histories, method)
    asked = _Best(catalog, histories, k) if pairs is None else _Pairs(catalog, histories, pairs)
    identity = [hash_of_model(scorer.model), hash_of_catalog(catalog), asked.identity, method]
    work = output.with_name(f".{output.name}.{hash_of_json(identity)[:8]}.parts")
    parts = list(_parts(asked, scores, work))
    table = asked.ordered(pa.concat_tables(pq.read_table(part) for part in parts))
    with atomic_file(output) as temporary:
        WRITERS[output.suffix](table, temporary)
    shutil.rmtree(work)
    return UserScores(len(asked.histories), table.num_rows, method)


def _default_method(scorer: RecBaseScorer, histories: Histories) -> str:
    if int((histories.lengths >= 2).sum()) >= LEAST_USERS:
        return "adapted"
    method = "calibrated" if scorer.calibration is not None and scorer.active_adapter is None else "joint"
    logger.warning("fewer than %d histories hold two items, too few to adapt to; scored by %s", LEAST_USERS, method)
    return method


def _scores(scorer: RecBaseScorer, catalog: ItemCatalog, histories: Histories, method: str) -> Scores:
    if method == "adapted":
        rows = [histories[user] for user in range(len(histories))]
        adaptation = adapt(rows, len(catalog), model_components(scorer, catalog))
        logger.info("weights: %s", ", ".join(f"{name} {value:.2f}" for name, value in adaptation.weights.items()))
        return adaptation.scores
    if method == "calibrated":
        return lambda histories, candidates: scorer.score_calibrated_rows(histories, candidates, catalog=catalog)
    checked = checked_method(method)
    return lambda histories, candidates: scorer.score_rows(histories, candidates, catalog=catalog, method=checked)


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


class _Best:
    """The best items of the whole catalog for each user."""

    def __init__(self, catalog: ItemCatalog, histories: Histories, k: int) -> None:
        self._catalog, self._users, self._k = catalog, histories.users, k
        self._all = np.arange(len(catalog))
        self.histories = [histories[user] for user in range(len(histories))]
        self.identity: Any = [k, hash_of_json([histories.users.tolist(), [rows.tolist() for rows in self.histories]])]

    def candidates(self, _user: int) -> np.ndarray:
        return self._all

    def table(self, user: int, scores: np.ndarray) -> pa.Table:
        history = self.histories[user]
        scores = np.array(scores, dtype=np.float64)
        scores[history] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(self._k, len(scores) - len(np.unique(history)))]
        return pa.table(
            {
                "user_id": pa.array([self._users[user]] * len(best), pa.string()),
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

    def __init__(self, catalog: ItemCatalog, histories: Histories, pairs: pa.Table) -> None:
        self._pairs = pairs
        names = np.array(pairs["user_id"].to_pylist(), dtype=object)
        rows = _rows_of_items(catalog, pairs["item_id"].to_pylist())
        users, self._user_of_row = np.unique(names, return_inverse=True)
        self._by_user = np.argsort(self._user_of_row, kind="stable")
        ends = np.cumsum(np.bincount(self._user_of_row, minlength=len(users)))
        self._candidates = np.split(rows[self._by_user], ends[:-1])
        known = {name: number for number, name in enumerate(histories.users)}
        nothing = np.empty(0, dtype=np.int64)
        self.histories = [histories[known[user]] if user in known else nothing for user in users]
        self.identity: Any = hash_of_json([names.tolist(), rows.tolist(), [rows.tolist() for rows in self.histories]])
        strangers = sum(user not in known for user in users)
        if strangers:
            logger.warning("%s of %s users have no event in the log: scored without a history", strangers, len(users))

    def candidates(self, user: int) -> np.ndarray:
        return self._candidates[user]

    def table(self, _user: int, scores: np.ndarray) -> pa.Table:
        return pa.table({"score": np.asarray(scores, dtype=np.float64)})

    def ordered(self, table: pa.Table) -> pa.Table:
        scores = np.empty(table.num_rows)
        scores[self._by_user] = table["score"].to_numpy()
        return self._pairs.append_column("score", pa.array(scores))


def _rows_of_items(catalog: ItemCatalog, item_ids: Sequence[str]) -> np.ndarray:
    try:
        return catalog.rows(item_ids)
    except UnknownItemError as error:
        row = next(row for row, item_id in enumerate(item_ids) if item_id not in catalog)
        raise UnknownItemError(f"candidates, row {row + 1}: {error}") from None
