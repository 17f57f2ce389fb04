"""How RecBench makes candidates of each of its data sets, as far as its papers and its code tell: one table."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.table_sources import TableSource, arrow_table
from recbase_hf.data.tables import read_interactions

__all__ = ["RECBENCH", "RecBenchRules", "recbench_rules", "rules_by_columns"]


@dataclass(frozen=True)
class RecBenchRules:
    """Every switch of the protocol; `dataclasses.replace` changes one.

    Attributes:
        data_set: RecBench's name, or `custom`.
        kind: `rated` takes a user's last liked items against the disliked ones; `implicit` takes the last items against
            random ones; `impressions` takes what was clicked against what was shown.
        label_from: column that says what is liked in `rated` data.
        neutral_rating: above is liked, below is disliked, exactly this is left out.
        positives: last liked items that become candidates (`rated`, `implicit`).
        negatives: random candidates outside all of the user's items (`implicit`).
        per_label_cap: liked, and disliked, candidates of a user at most, drawn at random.
        rows: users are walked in random order until they have this many candidates together.
        max_history: newest liked items before the candidates that a user is described by.
        history_kept: items that are kept of a history at all; matters where `max_history` is higher.
        keep_repeats: whether an item that a user had again stays in the sequence, so that a candidate may stand in the
            history; else its first event counts.
        negatives_of_any_time: whether disliked items may be older than the history (`rated`).
        compress_catalog: whether random negatives have an event of somebody; RecBench drops items without one too, but
            only after it has drawn (`implicit`).
        keep_users_without_history: whether they stay in `impressions`, where only some rankers can do something for
            them.
        tested: whether RecBench tests on this data set; on the others it only trains.
    """

    data_set: str = "custom"
    kind: Literal["rated", "implicit", "impressions"] = "rated"
    label_from: Literal["rating", "label"] = "rating"
    neutral_rating: float = 3.0
    positives: int = 2
    negatives: int = 2
    per_label_cap: int = 10
    rows: int = 20_000
    max_history: int = 20
    history_kept: int = 100
    keep_repeats: bool = True
    negatives_of_any_time: bool = True
    compress_catalog: bool = False
    keep_users_without_history: bool = False
    tested: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("rated", "implicit", "impressions"):
            raise ValueError(f"kind is {self.kind!r}; give rated, implicit or impressions")
        if self.label_from not in ("rating", "label"):
            raise ValueError(f"label_from is {self.label_from!r}; give rating or label")
        for name in ("positives", "negatives", "per_label_cap", "rows", "max_history", "history_kept"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


RECBENCH = {
    rules.data_set: rules
    for rules in (
        RecBenchRules("MIND", kind="impressions"),
        RecBenchRules("MicroLens", kind="implicit"),
        RecBenchRules("Goodreads", label_from="label"),
        RecBenchRules("CDs"),
        RecBenchRules("Electronics"),
        RecBenchRules("H&M", kind="implicit"),
        RecBenchRules("MovieLens"),
        RecBenchRules("Yelp"),
        RecBenchRules("Steam", kind="implicit"),
        RecBenchRules("HotelRec", per_label_cap=25),
        RecBenchRules("EB-NeRD", kind="impressions"),
        RecBenchRules("Digital Music", positives=1),
        RecBenchRules("PENS", kind="impressions", tested=False),
        RecBenchRules("Netflix", tested=False),
        RecBenchRules("Books", tested=False),
        RecBenchRules("Last.fm-1K", kind="implicit", positives=10, negatives=100, per_label_cap=100, tested=False),
        RecBenchRules("POG", kind="implicit", positives=1, negatives=100, tested=False),
    )
}
"""The rules by data set."""


def recbench_rules(data_set: str) -> RecBenchRules:
    """The rules of one of RecBench's data sets, whatever the case of its name.

    Raises:
        ValueError: there is no such data set; the message names the nearest.

    >>> recbench_rules("digital music").positives
    1
    """
    names = {name.casefold(): name for name in RECBENCH}
    if data_set.casefold() in names:
        return RECBENCH[names[data_set.casefold()]]
    near = difflib.get_close_matches(data_set.casefold(), names, n=1, cutoff=0.5)
    hint = f"did you mean {names[near[0]]!r}? " if near else ""
    raise ValueError(f"RecBench has no data set {data_set!r}; {hint}Its data sets are {', '.join(RECBENCH)}")


def rules_by_columns(interactions: TableSource, *, has_impressions: bool = False) -> RecBenchRules:
    """The rules for data that is not RecBench's: by whether somebody was shown, rated or only had items.

    Args:
        interactions: what `read_interactions` reads.
        has_impressions: whether there is a table of impressions.

    >>> log = [{"user_id": "ann", "item_id": item, "rating": rating} for item, rating in [("x", 5), ("y", 1)]]
    >>> rules_by_columns(log).kind, rules_by_columns(log[:1]).kind
    ('rated', 'implicit')
    """
    if has_impressions:
        return RecBenchRules(kind="impressions")
    table = arrow_table(read_interactions(interactions))
    lowest, highest = _range(table, "rating")
    if lowest < RecBenchRules.neutral_rating < highest:
        return RecBenchRules(kind="rated")
    if _range(table, "label") == (0, 1):
        return RecBenchRules(kind="rated", label_from="label")
    return RecBenchRules(kind="implicit")


def _range(table: pa.Table, name: str) -> tuple[float, float]:
    """The lowest and the highest value of a column; nan without any."""
    if name not in table.column_names or table[name].null_count == table.num_rows:
        return math.nan, math.nan
    lowest, highest = pc.min_max(table[name]).as_py().values()
    return float(lowest), float(highest)
