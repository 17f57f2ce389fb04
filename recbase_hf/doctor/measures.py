"""What can be measured on semantic IDs: plain functions over arrays, which know of no table and pass no verdict.

Codes are zero-based, (items, levels) integer; texts are a sequence of strings, one an item. Rows count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbase_hf.doctor.neighbors import neighbor_recall
from recbase_hf.errors import DataError

__all__ = [
    "FIRST_CODES",
    "BucketSizes",
    "Collisions",
    "DuplicateTexts",
    "LevelOneInformation",
    "LevelUse",
    "RowGroup",
    "TextCollisions",
    "bucket_sizes",
    "code_counts",
    "collisions",
    "conditional_bits",
    "drift",
    "duplicate_texts",
    "empty_texts",
    "entropy_bits",
    "largest_buckets",
    "largest_text_groups",
    "last_level_counts",
    "level_one_information",
    "level_one_overlap",
    "level_use",
    "neighbor_recall",
    "reconstruction_cosines",
    "repeated_vectors",
    "text_collisions",
]

FIRST_CODES = 8
"""How many of the lowest code numbers are looked at for bunching."""


# ---- texts -------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class RowGroup:
    """Items that have something in common.

    Attributes:
        rows: their rows, ascending.
        num_texts: distinct texts among them, None where that was not asked.
        example_rows: the first row of each distinct text; all rows where that was not asked.
    """

    rows: np.ndarray
    num_texts: int | None
    example_rows: np.ndarray

    @property
    def is_one_stretch(self) -> bool:
        """Whether the rows follow one another without a gap, as where an embedding run broke off."""
        return bool(len(self.rows) > 1 and self.rows[-1] - self.rows[0] == len(self.rows) - 1)


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
    sizes = np.bincount(_numbered(texts))
    repeated = int(sizes[sizes > 1].sum())
    return DuplicateTexts(len(texts), len(sizes), repeated, repeated / max(len(texts), 1))


def largest_text_groups(texts: Sequence[str], count: int = 5) -> list[RowGroup]:
    """The texts that the most items have, largest group first; texts of one item are left out.

    >>> [group.rows.tolist() for group in largest_text_groups(["chess", "go", "go", "poker"])]
    [[1, 2]]
    """
    number = _numbered(texts)
    return [_row_group(np.flatnonzero(number == group), None) for group in _largest(np.bincount(number), count)]


# ---- collisions --------------------------------------------------------------------------------------------------


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
    sizes = np.bincount(_prefixes(codes)[:, -1])
    num_items, num_ids = int(sizes.sum()), len(sizes)
    return Collisions(num_items, num_ids, int(sizes[sizes > 1].sum()), (num_items - num_ids) / num_items)


def text_collisions(codes: np.ndarray, texts: Sequence[str]) -> TextCollisions:
    """How many distinct texts share a semantic ID with a different text.

    >>> codes = np.array([[0, 1], [0, 1], [0, 1], [3, 0]])
    >>> text_collisions(codes, ["go", "go", "chess", "poker"])
    TextCollisions(num_texts=3, num_colliding=2, share=0.6666666666666666)
    """
    bucket, text = _prefixes(codes)[:, -1], _numbered(texts)
    is_shared = _texts_per_bucket(bucket, text)[bucket] > 1
    num_texts, colliding = int(text.max()) + 1, len(np.unique(text[is_shared]))
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
    bucket = _prefixes(codes)[:, -1]
    text = None if texts is None else _numbered(texts)
    if by_texts and text is None:
        raise DataError("buckets are to be ordered by their texts, but no texts are given; give `texts`")
    sizes = _texts_per_bucket(bucket, text) if by_texts and text is not None else np.bincount(bucket)
    return [_row_group(np.flatnonzero(bucket == number), text) for number in _largest(sizes, count)]


def last_level_counts(codes: np.ndarray, texts: Sequence[str] | None = None) -> bool:
    """Whether the last code does not describe the item but counts, from 0, those that share the codes before it.

    So it looks where under any earlier codes the last ones are 0, 1, 2, ... without a gap, and no different texts share
    an ID. How evenly such a level is used says nothing about the quantizer.

    >>> last_level_counts(np.array([[4, 0], [4, 1], [7, 0]])), last_level_counts(np.array([[4, 0], [4, 2], [7, 0]]))
    (True, False)
    """
    codes = _checked(codes)
    if codes.shape[1] == 1:
        return False
    prefixes = _prefixes(codes)
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
    sizes = np.bincount(_prefixes(codes)[:, -1])
    classes, smallest, largest = [], 1, 1
    while smallest <= sizes.max():
        chosen = sizes[(sizes >= smallest) & (sizes <= largest)]
        classes.append(BucketSizes(smallest, largest, len(chosen), int(chosen.sum())))
        smallest, largest = largest + 1, largest * 2
    return classes


# ---- levels ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LevelUse:
    """How evenly the codes of one level are used.

    Attributes:
        used: codes with an item.
        perplexity: exp of the entropy of code use, the number of codes that would be as even; 1 to `used`.
        perplexity_share: `perplexity` / codebook size.
        top_share: share of the items that have the most frequent code.
        first_codes_share: share of the items that have one of the 8 lowest code numbers.
        first_codes_expected: 8 / codebook size. Collisions resolved by a balanced assignment of the colliding items
            bunch far more there, since with few items in a group the plan is flat and its arg-max the first codes.
    """

    used: int
    perplexity: float
    perplexity_share: float
    top_share: float
    first_codes_share: float
    first_codes_expected: float


def code_counts(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Items (levels, codebook_size) int64 that have each code of each level.

    Raises:
        DataError: a code is out of range.

    >>> code_counts(np.array([[0, 1], [0, 2], [2, 1]]), codebook_size=3).tolist()
    [[2, 0, 1], [0, 2, 1]]
    """
    codes = _checked(codes)
    if codes.max() >= codebook_size:
        row, level = np.argwhere(codes >= codebook_size)[0]
        raise DataError(
            f"row {row + 1}, level {level + 1}: code {codes[row, level]} is out of range for a codebook of "
            f"{codebook_size} (0 to {codebook_size - 1}); give the codebook size that the codes were made with"
        )
    return np.stack([np.bincount(level, minlength=codebook_size) for level in codes.T])


def level_use(codes: np.ndarray, codebook_size: int) -> list[LevelUse]:
    """How evenly the codes are used, level by level.

    Raises:
        DataError: a code is out of range.

    >>> even, single = level_use(np.array([[0, 7], [1, 7], [2, 7], [3, 7]]), codebook_size=16)
    >>> even.used, even.perplexity, even.perplexity_share, even.top_share
    (4, 4.0, 0.25, 0.25)
    >>> single.used, single.perplexity, single.first_codes_share, single.first_codes_expected
    (1, 1.0, 1.0, 0.5)
    """
    uses = []
    for counts in code_counts(codes, codebook_size):
        perplexity = float(2.0 ** entropy_bits(counts))
        uses.append(
            LevelUse(
                used=int((counts > 0).sum()),
                perplexity=perplexity,
                perplexity_share=perplexity / codebook_size,
                top_share=float(counts.max() / counts.sum()),
                first_codes_share=float(counts[:FIRST_CODES].sum() / counts.sum()),
                first_codes_expected=min(FIRST_CODES / codebook_size, 1.0),
            )
        )
    return uses


def conditional_bits(codes: np.ndarray) -> np.ndarray:
    """Bits (levels,) float64 that each level says beyond the levels above: H(c_l | c_1..c_(l-1)).

    They add up to the joint entropy of the semantic IDs, which is at most log2(items).

    >>> conditional_bits(np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).tolist()
    [1.0, 1.0]
    >>> conditional_bits(np.array([[0, 0], [0, 0], [1, 1], [1, 1]])).tolist()
    [1.0, 0.0]
    """
    joint = [entropy_bits(np.bincount(nodes)) for nodes in _prefixes(codes).T]
    return np.maximum(np.diff(joint, prepend=0.0), 0.0)


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy, in bits, of the distribution that counts of any shape describe.

    >>> entropy_bits(np.array([5, 5, 0, 0]))
    1.0
    """
    counts = np.asarray(counts, dtype=np.float64).ravel()
    shares = counts[counts > 0] / counts.sum()
    return float(max(-(shares * np.log2(shares)).sum(), 0.0))


# ---- several data sets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LevelOneInformation:
    """What the first code says about the data set that an item comes from.

    Attributes:
        bits: plug-in mutual information of first code and data set.
        dataset_bits: entropy of the data set, which is the most it can be.
        share: `bits` / `dataset_bits`; 1 where the first code is a label of the data set.
        chance_bits: the same with the data sets shuffled among the items: what few items give by chance.
        chance_share: `chance_bits` / `dataset_bits`.
        share_above_chance: (`share` - `chance_share`) / (1 - `chance_share`), at least 0.
    """

    bits: float
    dataset_bits: float
    share: float
    chance_bits: float
    chance_share: float
    share_above_chance: float


def level_one_information(
    codes_level1: np.ndarray, dataset_of_item: np.ndarray, *, seed: int = 0
) -> LevelOneInformation:
    """What the first code says about the data set.

    Args:
        codes_level1: (items,) integer first codes, of all data sets.
        dataset_of_item: (items,) data set of each item, any labels.
        seed: of the shuffling.

    Raises:
        DataError: there are fewer than two data sets, or the arrays differ in length.

    >>> label = level_one_information(np.repeat([3, 8], 500), np.repeat(["films", "shoes"], 500))
    >>> label.bits, label.share, label.chance_bits < 0.01
    (1.0, 1.0, True)
    """
    table = _joint_counts(codes_level1, dataset_of_item)
    shuffled = np.random.default_rng(seed).permutation(np.asarray(dataset_of_item))
    bits, chance = _mutual_bits(table), _mutual_bits(_joint_counts(codes_level1, shuffled))
    dataset_bits = entropy_bits(table.sum(axis=0))
    share, chance_share = bits / dataset_bits, chance / dataset_bits
    above = max(bits - chance, 0.0) / (dataset_bits - chance) if chance < dataset_bits else 0.0
    return LevelOneInformation(bits, dataset_bits, share, chance, chance_share, above)


def level_one_overlap(codes_level1: np.ndarray, dataset_of_item: np.ndarray) -> np.ndarray:
    """Overlap (data sets, data sets) float64 of first-code use, by sorted data set: the sum over codes of the smaller
    of two shares, 1 for data sets that use the codes alike, 0 for those that share none.

    >>> level_one_overlap(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1])).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    table = _joint_counts(codes_level1, dataset_of_item)
    shares = (table / table.sum(axis=0)).T
    return np.stack([np.minimum(shares, row).sum(axis=1) for row in shares])


# ---- vectors -----------------------------------------------------------------------------------------------------


def repeated_vectors(vectors: np.ndarray, texts: Sequence[str]) -> TextCollisions:
    """How many distinct texts have exactly the vector of a different text.

    An encoder gives different texts different vectors, but for texts that agree up to its length limit. Many repeated
    vectors are the mark of an embedding run that broke.

    Args:
        vectors: (items, width) floating.
        texts: of the items.

    >>> repeated_vectors(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), ["go", "chess", "poker"])
    TextCollisions(num_texts=3, num_colliding=2, share=0.6666666666666666)
    """
    as_bytes = np.ascontiguousarray(vectors + 0).view(np.dtype((np.void, vectors.dtype.itemsize * vectors.shape[1])))
    _, number = np.unique(as_bytes.ravel(), return_inverse=True)
    return text_collisions(number.reshape(-1, 1), texts)


def reconstruction_cosines(vectors: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Cosine (items,) float32 between centered vectors and what the codes decode to; 0 where one of them is zero.

    Args:
        vectors: (items, width) floating.
        decoded: (items, width) floating.

    >>> reconstruction_cosines(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    if np.shape(vectors) != np.shape(decoded):
        raise DataError(
            f"the vectors have shape {np.shape(vectors)}, the decoded ones {np.shape(decoded)}; they must be equal"
        )
    vectors, decoded = (np.asarray(array, dtype=np.float32) for array in (vectors, decoded))
    products = np.einsum("iw,iw->i", vectors, decoded)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(decoded, axis=1)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 1e-12)
    return np.clip(cosines, -1.0, 1.0)


def drift(cosines: np.ndarray, fitted_cosines: np.ndarray) -> float:
    """Share of items that the quantizer reconstructs worse than all but 1 % of the items it was fitted on.

    Args:
        cosines: (items,) reconstruction cosines.
        fitted_cosines: (101,) percentiles 0 to 100 of the reconstruction cosine over the fitted items.

    Returns:
        About 0.01 for items like the fitted ones.

    >>> drift(np.array([0.2, 0.6, 0.7, 0.9]), np.linspace(0.5, 1.0, 101))
    0.25
    """
    return float((np.asarray(cosines) < np.asarray(fitted_cosines)[1]).mean())


# ---- helpers -----------------------------------------------------------------------------------------------------


def _checked(codes: np.ndarray) -> np.ndarray:
    codes = np.asarray(codes)
    if codes.ndim != 2 or 0 in codes.shape or codes.dtype.kind not in "iu":
        raise DataError(
            f"the codes are {codes.dtype} of shape {codes.shape}; give integers (items, levels), at least one item"
        )
    if codes.min() < 0:
        row, level = np.argwhere(codes < 0)[0]
        raise DataError(f"row {row + 1}, level {level + 1}: code {codes[row, level]} is negative; codes count from 0")
    return codes


def _prefixes(codes: np.ndarray) -> np.ndarray:
    """Number (items, levels) int64 of each item's first code, first two codes, ...; equal prefixes have equal numbers.

    The prefixes of a length are numbered from 0, in lexicographic order.
    """
    codes = _checked(codes).astype(np.int64)
    numbers = np.zeros_like(codes)
    above = numbers[:, 0]
    for level in range(codes.shape[1]):
        _, above = np.unique(above * (codes.max() + 1) + codes[:, level], return_inverse=True)
        numbers[:, level] = above
    return numbers


def _numbered(texts: Sequence[str]) -> np.ndarray:
    """Number (items,) int64 of each item's text; equal texts have equal numbers, counted from 0."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int64)


def _texts_per_bucket(bucket: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Distinct texts (buckets,) int64 in each bucket."""
    pairs = np.unique(bucket * (text.max() + 1) + text)
    return np.bincount(pairs // (text.max() + 1))


def _largest(sizes: np.ndarray, count: int) -> np.ndarray:
    """The groups with a size above 1, largest first; the lower number first among equals."""
    order = np.argsort(-sizes, kind="stable")[:count]
    return order[sizes[order] > 1]


def _row_group(rows: np.ndarray, text: np.ndarray | None) -> RowGroup:
    if text is None:
        return RowGroup(rows, None, rows)
    _, first = np.unique(text[rows], return_index=True)
    return RowGroup(rows, len(first), rows[np.sort(first)])


def _joint_counts(codes_level1: np.ndarray, dataset_of_item: np.ndarray) -> np.ndarray:
    """Items (codes, data sets) int64 with each used first code in each data set."""
    if np.shape(codes_level1) != np.shape(dataset_of_item) or np.ndim(codes_level1) != 1:
        raise DataError(
            f"first codes of shape {np.shape(codes_level1)} and data sets of shape {np.shape(dataset_of_item)}; "
            "give one of each for every item"
        )
    _, code = np.unique(codes_level1, return_inverse=True)
    names, dataset = np.unique(dataset_of_item, return_inverse=True)
    if len(names) < 2:
        raise DataError("the items come from one data set; what the first code says about it needs two")
    counts = np.bincount(code * len(names) + dataset, minlength=(code.max() + 1) * len(names))
    return counts.reshape(-1, len(names))


def _mutual_bits(table: np.ndarray) -> float:
    return max(entropy_bits(table.sum(axis=0)) + entropy_bits(table.sum(axis=1)) - entropy_bits(table), 0.0)
