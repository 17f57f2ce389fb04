"""What can be measured on the levels of semantic IDs: how evenly codes are used, and what each level adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbase_hf.catalog.measures import numbered_texts
from recbase_hf.doctor.groups import checked_codes, prefix_numbers
from recbase_hf.errors import DataError

__all__ = ["FIRST_CODES", "LevelUse", "code_counts", "conditional_bits", "distinct_items", "entropy_bits", "level_use"]

FIRST_CODES = 8
"""How many of the lowest code numbers are looked at for bunching."""


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
    codes = checked_codes(codes)
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
    joint = [entropy_bits(np.bincount(nodes)) for nodes in prefix_numbers(codes).T]
    return np.maximum(np.diff(joint, prepend=0.0), 0.0)


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy, in bits, of the distribution that counts of any shape describe.

    >>> entropy_bits(np.array([5, 5, 0, 0]))
    1.0
    """
    counts = np.asarray(counts, dtype=np.float64).ravel()
    shares = counts[counts > 0] / counts.sum()
    return float(max(-(shares * np.log2(shares)).sum(), 0.0))


def distinct_items(codes: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Rows (n,) int64, ascending: the first item of each text under each semantic ID.

    Items that agree in both are one item to a text model, however often it is listed.

    >>> distinct_items(np.array([[0], [0], [0], [1]]), ["go", "go", "chess", "go"]).tolist()
    [0, 2, 3]
    """
    leaf = prefix_numbers(codes)[:, -1]
    _, first = np.unique(leaf * len(texts) + numbered_texts(texts), return_index=True)
    return np.sort(first)
