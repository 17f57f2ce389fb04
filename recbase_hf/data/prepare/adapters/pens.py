"""PENS: `news.tsv`, and `train.tsv` and `valid.tsv` with what was clicked and what was not."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import explode, joined, seconds, words
from recbase_hf.data.prepare.impressions import IMPRESSIONS, histories_and_clicks
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder

__all__ = ["PUBLISHED", "pens"]

NEWS = {
    "News ID": "item_id",
    "Headline": "title",
    "News body": "body",
    "Category": "category",
    "Topic": "topic",
}
TIME = "%m/%d/%Y %I:%M:%S %p"


def pens(raw: RawFolder) -> PreparedTables:
    """The headlines are the published ones; those that people wrote for the test set are not read."""
    files = [raw.find("train.tsv"), raw.find("valid.tsv")]
    return PreparedTables(
        _news(raw.find("news.tsv")),
        histories_and_clicks(table for file in files for table in _impressions(file)),
        (table for file in files for table in _impressions(file)),
    )


def _news(file: RawFile) -> Iterator[pa.Table]:
    quotes = _needs_quotes(file)
    for table in file.csv_tables(dict.fromkeys(NEWS, pa.string()), delimiter="\t", quotes=quotes):
        columns = [table[name] if quotes else _unquoted(table[name]) for name in NEWS]
        yield pa.table(columns, names=list(NEWS.values()))


def _needs_quotes(file: RawFile) -> bool:
    """Whether some line is no row by itself, because quoted texts hold tabs or go on in the next line.

    Quotation marks mean nothing else: a headline of a file without quotes may start with one that is never closed.
    """
    tabs = (line.count("\t") for _, line in file.lines())
    in_header = next(tabs, 0)
    return any(count != in_header for count in tabs)


def _unquoted(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Copies of the file exist with and without quotation marks around texts that hold some."""
    inside = pc.replace_substring(pc.utf8_slice_codeunits(texts, 1, -1), '""', '"')
    return pc.if_else(pc.match_substring_regex(texts, r'^"(?:[^"]|"")*"$'), inside, texts)


def _impressions(file: RawFile) -> Iterator[pa.Table]:
    """The clicked items come first among the candidates, because the file lists them apart."""
    wanted = dict.fromkeys(("UserID", "ClicknewsID", "pos", "neg", "start"), pa.string())
    for table in file.csv_tables(wanted, delimiter="\t", quotes=False):
        candidates = words(joined(table["pos"], table["neg"], " "))
        each = explode(candidates)
        clicked = pc.list_value_length(words(table["pos"])).to_numpy()[each.rows]
        labels = pa.array(each.places < clicked).cast(pa.int8())
        columns = [
            table["UserID"],
            words(table["ClicknewsID"]),
            candidates,
            pa.ListArray.from_arrays(candidates.offsets, labels),
            seconds(table["start"], TIME, f"{file.name}, column 'start'"),
        ]
        yield pa.table(columns, schema=IMPRESSIONS)


PUBLISHED = (
    PublishedData(
        name="pens",
        domain="news",
        license="Microsoft Research License Terms: research use, no redistribution",
        source="https://msnews.github.io/pens.html",
        files=("news.tsv", "train.tsv", "valid.tsv"),
        text_fields=("title", "body", "category", "topic"),
        label_rule="clicked in an impression, or in the history; shown without a click is disliked",
        adapter=pens,
    ),
)
