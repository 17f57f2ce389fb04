"""Which token id stands for which code: fixed, because checkpoints depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["TokenLayout"]


@dataclass(frozen=True)
class TokenLayout:
    """Id 0 is padding, code `c` of level `l` is `1 + c + codebook_size * l`, the special tokens follow.

    With four levels of 1024 codes, the ids of the RecBase authors' published index files.

    >>> layout = TokenLayout(num_levels=2, codebook_size=16)
    >>> layout.codes_to_ids([[3, 0]]).tolist(), layout.level_ids(1), layout.bos
    ([[4, 17]], slice(17, 33, None), 33)
    """

    num_levels: int
    codebook_size: int
    pad: int = 0

    @property
    def num_codes(self) -> int:
        """Codes of all levels together; the ids 1 to this one."""
        return self.num_levels * self.codebook_size

    @property
    def bos(self) -> int:
        """Id of `<bos>`, the first special token."""
        return self.num_codes + 1

    @property
    def num_tokens(self) -> int:
        """Padding, codes, and the four special tokens `<bos>`, `<eos>`, `<unk>`, `<mask>`."""
        return self.num_codes + 5

    def level_ids(self, level: int) -> slice:
        """The ids of one level's codes."""
        return slice(1 + self.codebook_size * level, 1 + self.codebook_size * (level + 1))

    def codes_to_ids(self, codes: Any) -> np.ndarray:
        """Token ids (items, levels) int64 of (items, levels) codes.

        Raises:
            ValueError: a code is no whole number or out of range (the message names item and level), or an item does
                not have one code a level.
        """
        return 1 + self.checked(codes) + self.codebook_size * np.arange(self.num_levels)

    def ids_to_codes(self, ids: Any) -> np.ndarray:
        """Codes (items, levels) int64 of (items, levels) token ids; an id of another level is an error."""
        return self.checked(self._one_row_an_item(ids) - 1 - self.codebook_size * np.arange(self.num_levels))

    def history_ids(self, codes: Any) -> np.ndarray:
        """`<bos>` and the ids of (items, levels) codes, oldest item first: (1 + items * levels,) int64."""
        return np.concatenate([[self.bos], self.codes_to_ids(codes).ravel()])

    def checked(self, codes: Any) -> np.ndarray:
        """The codes as (items, levels) int64, each in range."""
        codes = self._one_row_an_item(codes)
        wrong = np.argwhere((codes < 0) | (codes >= self.codebook_size))
        if len(wrong):
            row, level = wrong[0]
            raise ValueError(
                f"item {row}, level {level}: code {codes[row, level]} is not between 0 and {self.codebook_size - 1}"
            )
        return codes

    def _one_row_an_item(self, numbers: Any) -> np.ndarray:
        """(items, levels) int64; a flat row of several items is cut into them."""
        try:
            numbers = np.asarray(numbers)
        except ValueError as error:
            raise ValueError(f"an item has {self.num_levels} codes, got items of different lengths") from error
        if numbers.size == 0:
            return np.zeros((0, self.num_levels), dtype=np.int64)
        if numbers.dtype.kind not in "iu":
            raise ValueError(
                f"codes and ids are whole numbers, got {numbers.dtype}; encode_items turns vectors into codes"
            )
        if numbers.shape[-1] != self.num_levels and (numbers.ndim > 1 or numbers.size % self.num_levels):
            raise ValueError(f"an item has {self.num_levels} codes, got an array of shape {numbers.shape}")
        return numbers.astype(np.int64).reshape(-1, self.num_levels)
