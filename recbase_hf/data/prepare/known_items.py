"""Which items the item table has, and what the others were."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbase_hf.data.id_index import IdIndex

__all__ = ["KnownItems"]

_LISTED = 20
"""Unknown item ids that are written down."""


class KnownItems:
    """Tells known items from others, and counts the others.

    Attributes:
        index: of the item table.
        unknown: how often an item was asked for that is not there.
        examples: the first of these, each once.

    >>> known = KnownItems(IdIndex(["a", "b"]))
    >>> known.are_known(pa.array(["b", "x", "x"])).tolist(), known.unknown, known.examples
    ([True, False, False], 2, ['x'])
    """

    def __init__(self, index: IdIndex) -> None:
        self.index = index
        self.unknown = 0
        self.examples: list[str] = []

    def are_known(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """(ids,) bool."""
        known: np.ndarray = self.index.find(ids) >= 0
        lost = len(known) - int(np.count_nonzero(known))
        if lost and len(self.examples) < _LISTED:
            distinct = pc.unique(ids.filter(pa.array(~known))).to_pylist()
            self.examples += [item_id for item_id in distinct if item_id not in self.examples]
            del self.examples[_LISTED:]
        self.unknown += lost
        return known
