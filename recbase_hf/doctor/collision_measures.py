"""What can be measured on items that share a semantic ID, and on different texts that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbase_hf.catalog.measures import is_shared_by_texts, numbered_texts, texts_per_group
from recbase_hf.doctor.groups import RowGroup, checked_codes, largest, prefix_numbers, row_group
from recbase_hf.errors import DataError

__all__ = [
    "BucketSizes",
    "Collisions",
    "TextCollisions",
    "bucket_sizes",
    "collisions",
    "largest_buckets",
    "last_level_counts",
    "text_collisions",
    "text_collisions_in",
]


@dataclass(frozen=True)
class Collisions:
    """Items that share a semantic ID.

    Attributes:
        num_items: items.
        num_ids: distinct semantic IDs.
        num_sharing: items that share their semantic ID with another item.
        duplicate_rate: (`num_items` - `num_ids`) / `num_items`.
    """

    num_items: int
    num_ids: int
    num_sharing: int
    duplicate_rate: float


@dataclass(frozen=True)
class TextCollisions:
    """Different texts that share a semantic ID. Items of one text are one item to a text model and not counted.

    Attributes:
        num_texts: distinct texts.
        num_colliding: distinct texts that share a semantic ID with a different text.
        share: `num_colliding` / `num_texts`.
    """

    num_texts: int
    num_colliding: int
    share: float


@dataclass(frozen=True)
class BucketSizes:
    """Semantic IDs by the number of items that share them.

    Attributes:
        smallest: items in a bucket, at least.
        largest: items in a bucket, at most.
        num_ids: semantic IDs with so many items.
        num_items: items under them.
    """

    smallest: int
    largest: int
    num_ids: int
    num_items: int


def collisions(codes: np.ndarray) -> Collisions:
    """How many items share a semantic ID.

    >>> collisions(np.array([[0, 1], [0, 1], [0, 2], [3, 0]]))
    Collisions(num_items=4, num_ids=3, num_sharing=2, duplicate_rate=0.25)
    """
    sizes = np.bincount(prefix_numbers(codes)[:, -1])
    num_items, num_ids = int(sizes.sum()), len(sizes)
    return Collisions(num_items, num_ids, int(sizes[sizes > 1].sum()), (num_items - num_ids) / num_items)


def text_collisions(codes: np.ndarray, texts: Sequence[str]) -> TextCollisions:
    """How many distinct texts share a semantic ID with a different text.

    >>> codes = np.array([[0, 1], [0, 1], [0, 1], [3, 0]])
    >>> text_collisions(codes, ["go", "go", "chess", "poker"])
    TextCollisions(num_texts=3, num_colliding=2, share=0.6666666666666666)
    """
    return text_collisions_in(prefix_numbers(codes)[:, -1], texts)


def text_collisions_in(group: np.ndarray, texts: Sequence[str]) -> TextCollisions:
    """The same for any (items,) groups that are numbered from 0."""
    text = numbered_texts(texts)
    num_texts, colliding = int(text.max()) + 1, len(np.unique(text[is_shared_by_texts(group, text)]))
    return TextCollisions(num_texts, colliding, colliding / num_texts)


def largest_buckets(
    codes: np.ndarray, texts: Sequence[str] | None = None, count: int = 5, *, by_texts: bool = False
) -> list[RowGroup]:
    """The most crowded semantic IDs, largest bucket first; IDs of one item (or of one text) are left out.

    Args:
        codes: (items, levels) integer.
        texts: of the items, if the distinct ones in a bucket are to be told.
        count: buckets, at most.
        by_texts: whether the size of a bucket is its number of distinct texts, not that of its items.

    >>> codes = np.array([[0, 1], [0, 1], [0, 1], [3, 0]])
    >>> (bucket,) = largest_buckets(codes, ["go", "go", "chess", "poker"])
    >>> bucket.rows.tolist(), bucket.num_texts, bucket.example_rows.tolist()
    ([0, 1, 2], 2, [0, 2])
    """
    bucket = prefix_numbers(codes)[:, -1]
    text = None if texts is None else numbered_texts(texts)
    if by_texts and text is None:
        raise DataError("buckets are to be ordered by their texts, but no texts are given; give `texts`")
    sizes = texts_per_group(bucket, text) if by_texts and text is not None else np.bincount(bucket)
    return [row_group(np.flatnonzero(bucket == number), text) for number in largest(sizes, count)]


def last_level_counts(codes: np.ndarray, texts: Sequence[str] | None = None) -> bool:
    """Whether the last code does not describe the item but counts, from 0, those that share the codes before it.

    So it looks where under any earlier codes the last ones are 0, 1, 2, ... without a gap, and no different texts share
    an ID. How evenly such a level is used says nothing about the quantizer.

    >>> last_level_counts(np.array([[4, 0], [4, 1], [7, 0]])), last_level_counts(np.array([[4, 0], [4, 2], [7, 0]]))
    (True, False)
    """
    codes = checked_codes(codes)
    if codes.shape[1] == 1:
        return False
    prefixes = prefix_numbers(codes)
    _, first = np.unique(prefixes[:, -1], return_index=True)
    parent, last = prefixes[first, -2], codes[first, -1]
    highest = np.zeros(parent.max() + 1, dtype=codes.dtype)
    np.maximum.at(highest, parent, last)
    without_gap = bool((highest + 1 == np.bincount(parent)).all())
    return without_gap and (texts is None or text_collisions(codes, texts).num_colliding == 0)


def bucket_sizes(codes: np.ndarray) -> list[BucketSizes]:
    """Buckets by size, in classes 1, 2, 3-4, 5-8, 9-16 and so on up to the largest bucket.

    >>> bucket_sizes(np.array([[0], [0], [0], [1], [2]]))
    [BucketSizes(smallest=1, largest=1, num_ids=2, num_items=2), BucketSizes(smallest=2, largest=2, num_ids=0, \
num_items=0), BucketSizes(smallest=3, largest=4, num_ids=1, num_items=3)]
    """
    sizes = np.bincount(prefix_numbers(codes)[:, -1])
    classes, smallest, largest = [], 1, 1
    while smallest <= sizes.max():
        chosen = sizes[(sizes >= smallest) & (sizes <= largest)]
        classes.append(BucketSizes(smallest, largest, len(chosen), int(chosen.sum())))
        smallest, largest = largest + 1, largest * 2
    return classes
