"""Data sets for fine-tuning: packed rows to learn from, held-out users to be judged by, and examples for the CTR loss.

A shop fits into memory, so nothing is written: what pretraining reads from token shards is here packed at once, by the
same function, into the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recbase_hf.catalog import ItemCatalog
from recbase_hf.data.domain import Domain, ItemVectors, load_domain
from recbase_hf.data.histories import Histories
from recbase_hf.errors import DataError
from recbase_hf.evaluation.protocols import leave_last_out
from recbase_hf.finetuning.examples import ClickExamples, ClickSource
from recbase_hf.finetuning.impressions import read_shown
from recbase_hf.finetuning.settings import VALIDATION, FineTuning, UserSplit
from recbase_hf.shards.packing import default_row_length, pack_histories, require_fitting
from recbase_hf.shards.token_shards import ShardedRows
from recbase_hf.training.probe import NEGATIVES, Probe

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["Judge", "TuningData", "load_tuning_data"]


class Judge(Probe):
    """A probe on held-out users of the data that is fine-tuned on: `validation_gauc_joint/NAME`, `..._catalog/NAME`."""

    def measure(self, model: Any) -> dict[str, float]:
        """As `Probe.measure`."""
        return {name.replace("probe_gauc", VALIDATION): value for name, value in super().measure(model).items()}


@dataclass(frozen=True)
class TuningData:
    """What fine-tuning reads.

    Attributes:
        train: rows to learn from.
        validation: rows of other users.
        judges: one a data set.
        examples: for the CTR loss; None where it is not learned.
        data: name and hash of each data set.
        items: name and hash of its item table.
        users: how many are learned from, of each data set.
        max_items: items a window.
    """

    train: ShardedRows
    validation: ShardedRows
    judges: list[Judge]
    examples: ClickExamples | None
    data: dict[str, str]
    items: dict[str, str]
    users: dict[str, int]
    max_items: int


@dataclass
class _Parts:
    """What has been read so far; item rows of the sources count through all data sets."""

    train: dict[str, np.ndarray] = field(default_factory=dict)
    validation: dict[str, np.ndarray] = field(default_factory=dict)
    codes: list[np.ndarray] = field(default_factory=list)
    sources: list[ClickSource] = field(default_factory=list)
    judges: list[Judge] = field(default_factory=list)
    users: dict[str, int] = field(default_factory=dict)


def load_tuning_data(
    folders: Sequence[str | Path],
    tokenizer: RecBaseTokenizer,
    source: ItemVectors,
    tuning: FineTuning,
    split: UserSplit,
    *,
    context: int,
) -> TuningData:
    """Read data sets.

    Args:
        folders: with `items.*` and `interactions.*`, and maybe `impressions.*`.
        tokenizer: of the base.
        source: where the items' vectors come from.
        tuning: whether clicks are learned, and how they are drawn.
        split: who is learned from.
        context: items that the base reads.

    Raises:
        DataError: a table cannot be used, or a data set leaves nobody to learn from or to be judged by.
        ValueError: two folders have the same name, or a setting does not fit the base.
    """
    max_items = _max_items(split.max_items, context)
    row_length = split.row_length or default_row_length(tokenizer.layout, max_items)
    require_fitting(tokenizer.layout, row_length=row_length, max_items=max_items)
    parts, data, items = _Parts(), dict[str, str](), dict[str, str]()
    unordered: Literal["error", "drop"] = split.unordered_events  # type: ignore[assignment]
    for folder in folders:
        domain = load_domain(folder, source, unordered_events=unordered, seed=split.seed)
        if domain.name in data:
            raise ValueError(f"two of the data folders have the same name ({domain.name}); rename one")
        data[domain.name], items[domain.name] = domain.hash, domain.items_hash
        _add(parts, Path(folder), domain, tokenizer, tuning, split, max_items=max_items, row_length=row_length)
    examples = None
    if tuning.learns_clicks:
        examples = ClickExamples(parts.sources, np.concatenate(parts.codes), tuning, max_history=max_items - 1)
    return TuningData(
        train=_rows(parts.train, tokenizer),
        validation=_rows(parts.validation, tokenizer),
        judges=parts.judges,
        examples=examples,
        data=data,
        items=items,
        users=parts.users,
        max_items=max_items,
    )


def _max_items(asked: int | None, context: int) -> int:
    if asked is not None and asked > context:
        raise ValueError(f"max_items is {asked}, but the base reads {context} items at most; lower it")
    return asked or min(100, context)


def _add(
    parts: _Parts,
    folder: Path,
    domain: Domain,
    tokenizer: RecBaseTokenizer,
    tuning: FineTuning,
    split: UserSplit,
    *,
    max_items: int,
    row_length: int,
) -> None:
    """Add one data set."""
    layout = tokenizer.layout
    catalog = ItemCatalog.from_items(domain.items, tokenizer=tokenizer, vectors=domain.vectors)
    known = domain.histories.first(np.maximum(0, domain.histories.lengths - split.hold_out_last))
    training, validating = _split_users(known, split, domain.name)
    for name, users, rows in (("train", training, parts.train), ("validation", validating, parts.validation)):
        packed = pack_histories(known.select(users), catalog.codes, layout, row_length=row_length, max_items=max_items)
        if not len(packed):
            raise DataError(f"{domain.name}: no {name} user has two events left; add interactions")
        rows[domain.name] = packed.input_ids
    parts.judges.append(_judge(domain.name, tokenizer, catalog, known.select(validating), split))
    parts.users[domain.name] = len(training)
    if tuning.learns_clicks:
        first = sum(map(len, parts.codes))
        parts.codes.append(catalog.codes)
        parts.sources.append(_source(folder, domain, known, training, first))


def _split_users(known: Histories, split: UserSplit, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions of who trains and who validates, each ascending; the latter are the same for every `max_users`.

    Raises:
        DataError: there are not two users with two events.
    """
    usable = np.flatnonzero(known.lengths >= 2)
    if len(usable) < 2:
        held_out = f" besides the newest {split.hold_out_last}, which are held out" if split.hold_out_last else ""
        raise DataError(
            f"{name}: {len(usable)} user(s) have two events{held_out}; fine-tuning needs one such user to learn from "
            "and one to be judged by: add interactions, or lower hold_out_last"
        )
    order = np.random.default_rng(split.seed).permutation(usable)
    count = min(len(usable) - 1, max(1, round(split.validation_share * len(usable))))
    training = order[count:][: split.max_users or None]
    return np.sort(training), np.sort(order[:count])


def _judge(
    name: str, tokenizer: RecBaseTokenizer, catalog: ItemCatalog, histories: Histories, split: UserSplit
) -> Judge:
    try:
        task = leave_last_out(
            histories, len(catalog), num_negatives=NEGATIVES, max_users=split.judged_users, seed=split.seed
        )
    except ValueError as error:
        raise DataError(f"{name}: the held-out users cannot be judged by: {error}") from error
    return Judge(name, tokenizer, catalog, task)


def _source(folder: Path, domain: Domain, known: Histories, training: np.ndarray, first: int) -> ClickSource:
    """Of one data set, its item rows moved behind those of the data sets before."""
    kept = known.lengths
    held_out = {str(known.users[user]): domain.histories[user][kept[user] :] for user in training.tolist()}
    shown = read_shown(folder, list(domain.items["item_id"][:]), held_out)
    if shown is not None:
        shown = shown._replace(
            histories=[rows + first for rows in shown.histories], candidates=[rows + first for rows in shown.candidates]
        )
    histories = known.select(training)
    histories = Histories(histories.users, histories.offsets, histories.items + first)
    return ClickSource((first, first + len(domain.items)), histories, shown)


def _rows(parts: dict[str, np.ndarray], tokenizer: RecBaseTokenizer) -> ShardedRows:
    """Packed rows of all data sets."""
    digest = hashlib.sha256()
    for name, rows in parts.items():
        digest.update(f"{name} {rows.shape} ".encode())
        digest.update(np.ascontiguousarray(rows).data)
    sizes = {name: len(rows) for name, rows in parts.items()}
    return ShardedRows(list(parts.values()), sizes, tokenizer.layout, digest.hexdigest())
