"""MIND: `news.tsv` and `behaviors.tsv`, of the training split alone or of several splits in folders of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode, one_array, seconds, words
from recbase_hf.data.prepare.impressions import IMPRESSIONS, histories_and_clicks, split_files
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder
from recbase_hf.errors import DataError

__all__ = ["PUBLISHED", "mind"]

NEWS = ["item_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
BEHAVIORS = ["impression_id", "user_id", "time", "history", "impressions"]
TIME = "%m/%d/%Y %I:%M:%S %p"


def mind(raw: RawFolder) -> PreparedTables:
    """MIND-small or MIND-large; the test split of the latter has no labels and is refused."""
    news, behaviors = split_files(raw, "news.tsv"), split_files(raw, "behaviors.tsv")
    return PreparedTables(
        (table for file in news.values() for table in _news(file)),
        histories_and_clicks(table for file in behaviors.values() for table in _impressions(file)),
        (table for file in behaviors.values() for table in _impressions(file)),
    )


def _news(file: RawFile) -> Iterator[pa.Table]:
    wanted = ("item_id", "title", "abstract", "category", "subcategory")
    return file.csv_tables(dict.fromkeys(wanted, pa.string()), delimiter="\t", names=NEWS, quotes=False)


def _impressions(file: RawFile) -> Iterator[pa.Table]:
    """Impressions are written `N1-0 N2-1`: ids with labels."""
    wanted = dict.fromkeys(BEHAVIORS[1:], pa.string())
    before = 0
    for table in file.csv_tables(wanted, delimiter="\t", names=BEHAVIORS, quotes=False):
        shown = words(table["impressions"])
        each = explode(shown)
        parsed = pc.extract_regex(each.values, r"^(?P<item>.+)-(?P<label>[01])$")
        wrong = np.flatnonzero(pc.is_null(parsed).to_numpy(zero_copy_only=False))
        if len(wrong):
            raise DataError(
                f"{file.name}, row {before + each.rows[wrong[0]] + 1}: {each.values[wrong[0]].as_py()!r} is not an "
                "item and its label, such as N12-0; is it the test split, which has no labels?"
            )
        columns = [
            table["user_id"],
            words(table["history"]),
            pa.ListArray.from_arrays(_offsets(shown), parsed.field("item")),
            pa.ListArray.from_arrays(_offsets(shown), pc.cast(parsed.field("label"), pa.int8())),
            seconds(table["time"], TIME, f"{file.name}, column 'time'"),
        ]
        yield pa.table(columns, schema=IMPRESSIONS)
        before += table.num_rows


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Where each list starts among the elements of all."""
    return pa.array(np.concatenate([[0], np.cumsum(pc.list_value_length(one_array(lists)))]), pa.int32())


PUBLISHED = (
    PublishedData(
        name="mind",
        domain="news",
        license="Microsoft Research License Terms: research use, no redistribution",
        source="https://msnews.github.io/",
        files=("news.tsv", "behaviors.tsv"),
        text_fields=("title", "abstract", "category", "subcategory"),
        label_rule="clicked in an impression, or in the history; shown without a click is disliked",
        adapter=mind,
    ),
)
