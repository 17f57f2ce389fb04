"""What can be measured on the texts of items: the empty and the repeated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbase_hf.catalog.measures import numbered_texts
from recbase_hf.doctor.groups import RowGroup, largest, row_group

__all__ = ["DuplicateTexts", "duplicate_texts", "empty_texts", "largest_text_groups"]


@dataclass(frozen=True)
class DuplicateTexts:
    """Items that one text stands for.

    Attributes:
        num_items: items.
        num_texts: distinct texts.
        num_repeated: items whose text another item has too.
        share: `num_repeated` / `num_items`.
    """

    num_items: int
    num_texts: int
    num_repeated: int
    share: float


def empty_texts(texts: Sequence[str]) -> np.ndarray:
    """Rows (n,) int64 of items without text.

    >>> empty_texts(["chess", " ", ""]).tolist()
    [1, 2]
    """
    return np.array([row for row, text in enumerate(texts) if not text.strip()], dtype=np.int64)


def duplicate_texts(texts: Sequence[str]) -> DuplicateTexts:
    """How many items share their text with another item.

    >>> duplicate_texts(["chess", "go", "go", "poker"])
    DuplicateTexts(num_items=4, num_texts=3, num_repeated=2, share=0.5)
    """
    sizes = np.bincount(numbered_texts(texts))
    repeated = int(sizes[sizes > 1].sum())
    return DuplicateTexts(len(texts), len(sizes), repeated, repeated / max(len(texts), 1))


def largest_text_groups(texts: Sequence[str], count: int = 5) -> list[RowGroup]:
    """The texts that the most items have, largest group first; texts of one item are left out.

    >>> [group.rows.tolist() for group in largest_text_groups(["chess", "go", "go", "poker"])]
    [[1, 2]]
    """
    number = numbered_texts(texts)
    return [row_group(np.flatnonzero(number == group), None) for group in largest(np.bincount(number), count)]
