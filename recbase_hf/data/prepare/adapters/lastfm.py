"""Last.fm-1K: `userid-timestamp-artid-artname-traid-traname.tsv`, a line for each track played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.columns import seconds
from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder

__all__ = ["PUBLISHED", "lastfm"]

COLUMNS = ["user_id", "time", "artist_id", "artist", "track_id", "title"]
TIME = "%Y-%m-%dT%H:%M:%SZ"


def lastfm(raw: RawFolder) -> PreparedTables:
    """Tracks are told apart by their name and artist, for many have no MusicBrainz id and some have several."""
    file = raw.find("userid-timestamp-artid-artname-traid-traname.tsv*")
    left_out: Counter[str] = Counter()
    return PreparedTables(_tracks(file), _plays(file, left_out), left_out=left_out)


def _tracks(file: RawFile) -> Iterator[pa.Table]:
    """Each once: a table of all plays would count 17 million repeated items."""
    seen: set[str] = set()
    for table in _log(file, Counter()):
        is_new = []
        for item in table["item_id"].to_pylist():
            is_new.append(item not in seen)
            seen.add(item)
        yield table.select(["item_id", "title", "artist"]).filter(pa.array(is_new, pa.bool_()))


def _plays(file: RawFile, left_out: Counter[str]) -> Iterator[pa.Table]:
    for table in _log(file, left_out):
        times = seconds(table["time"], TIME, f"{file.name}, column 'timestamp'")
        yield table.select(["user_id", "item_id"]).append_column("timestamp", times)


def _log(file: RawFile, left_out: Counter[str]) -> Iterator[pa.Table]:
    """All plays of tracks with a name and an artist, and the id that we give these."""
    wanted = dict.fromkeys(("user_id", "time", "artist", "title"), pa.string())
    for table in file.csv_tables(wanted, delimiter="\t", names=COLUMNS, quotes=False):
        item_ids = pc.binary_join_element_wise(table["artist"], table["title"], " / ")
        if item_ids.null_count:
            left_out["plays without artist or title"] += item_ids.null_count
        yield table.append_column("item_id", item_ids).filter(pc.is_valid(item_ids))


PUBLISHED = (
    PublishedData(
        name="lastfm-1k",
        domain="music",
        license="non-commercial use, by permission of Last.fm",
        source="http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html",
        files=("userid-timestamp-artid-artname-traid-traname.tsv",),
        text_fields=("title", "artist"),
        label_rule="implicit: every play counts as liked",
        adapter=lastfm,
    ),
)
