"""What can be measured on the first codes of several data sets together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbase_hf.doctor.level_measures import entropy_bits
from recbase_hf.errors import DataError

__all__ = ["LevelOneInformation", "level_one_information", "level_one_overlap"]


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
