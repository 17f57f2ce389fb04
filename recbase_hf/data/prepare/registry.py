"""The published data sets that can be prepared, by name."""

from __future__ import annotations

from recbase_hf.data.prepare.adapters import (
    amazon,
    amazon_m2,
    ebnerd,
    goodreads,
    google_local,
    hm,
    hotelrec,
    lastfm,
    microlens,
    mind,
    movielens,
    netflix,
    ninerec,
    pens,
    pixelrec,
    pog,
    recbench,
    steam,
    yelp,
)
from recbase_hf.data.prepare.prepared import PublishedData
from recbase_hf.errors import DataError

__all__ = ["DATA_SETS", "published_data"]

_MODULES = (
    amazon,
    amazon_m2,
    ebnerd,
    goodreads,
    google_local,
    hm,
    hotelrec,
    lastfm,
    microlens,
    mind,
    movielens,
    netflix,
    ninerec,
    pens,
    pixelrec,
    pog,
    recbench,
    steam,
    yelp,
)

DATA_SETS: dict[str, PublishedData] = {
    published.name: published for module in _MODULES for published in module.PUBLISHED
}


def published_data(name: str) -> PublishedData:
    """The data set of that name.

    Raises:
        DataError: there is none; says which there are.
    """
    if name not in DATA_SETS:
        raise DataError(f"there is no data set {name!r}; there are {', '.join(sorted(DATA_SETS))}")
    return DATA_SETS[name]
