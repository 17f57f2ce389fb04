"""HotelRec: reviews of hotels on TripAdvisor; name and place of a hotel are read from its address on the web."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.prepare.prepared import PreparedTables, PublishedData
from recbase_hf.data.prepare.ratings import LABEL_RULE, RatedFields, rated_rows
from recbase_hf.data.prepare.raw_files import RawFile, RawFolder, tables_of_rows

__all__ = ["PUBLISHED", "hotelrec"]

ITEMS = pa.schema(dict.fromkeys(("item_id", "hotel_name", "hotel_location"), pa.string()))
FIELDS = RatedFields("author", "hotel_url", "rating", "date", time="date")


def hotelrec(raw: RawFolder) -> PreparedTables:
    """`HotelRec.txt` holds all; it is read twice, first for the hotels."""
    file = raw.find("HotelRec.txt", "HotelRec.txt.gz")
    return PreparedTables(tables_of_rows(_hotels(file), ITEMS), _reviews(file))


class _HotelIds:
    """Hotels by their address: 6 hexadecimal digits of its MD5.

    Six digits are too few for hundreds of thousands of hotels: where two would share an id, the one that comes later
    in the file gets the full digest.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._taken: set[str] = set()

    def __contains__(self, url: str) -> bool:
        return url in self._ids

    def id_of(self, url: str) -> str:
        if url not in self._ids:
            digest = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
            self._ids[url] = digest if digest[:6] in self._taken else digest[:6]
            self._taken.add(self._ids[url])
        return self._ids[url]


def _hotels(file: RawFile) -> Iterator[dict[str, str | None]]:
    ids = _HotelIds()
    for _, table in file.json_tables({FIELDS.item_id: pa.string()}):
        for url in pc.unique(table[FIELDS.item_id].drop_null()).to_pylist():
            if url not in ids:
                name, location = _name_and_location(url)
                yield {"item_id": ids.id_of(url), "hotel_name": name, "hotel_location": location}


def _name_and_location(url: str) -> tuple[str, str | None]:
    """`Hotel_Review-g1-d2-Reviews-Hotel_Baltic-Giulianova_Abruzzo.html` is Hotel Baltic in Giulianova Abruzzo."""
    title = url.rpartition("-Reviews-")[2].removesuffix(".html").replace("_", " ")
    name, _, location = title.partition("-")
    return name, location or None


def _reviews(file: RawFile) -> Iterator[pa.Table]:
    ids = _HotelIds()
    for table in rated_rows(file, FIELDS):
        urls = pc.dictionary_encode(table["item_id"].combine_chunks())
        hotels = pa.array([ids.id_of(url) for url in urls.dictionary.to_pylist()], pa.string())
        yield table.set_column(1, "item_id", pc.take(hotels, urls.indices))


PUBLISHED = (
    PublishedData(
        name="hotelrec",
        domain="hotels",
        license="academic research only",
        source="https://github.com/Diego999/HotelRec",
        files=("HotelRec.txt",),
        text_fields=("hotel_name", "hotel_location"),
        label_rule=LABEL_RULE,
        adapter=hotelrec,
    ),
)
