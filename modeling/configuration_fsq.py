"""Configuration of finite scalar quantization (RecGPT section 2.1.2)."""

from __future__ import annotations

import math
from typing import Any

from .configuration_quantizer import QuantizerConfig

__all__ = ["FsqConfig"]


class FsqConfig(QuantizerConfig):
    """Shape of an `FsqModel`: each level's code is a point of a small grid, so no codebook can collapse.

    Args:
        grid: how many steps each of a level's scalars has; their product is `codebook_size`. RecGPT has 8·8·8·6·5.
        split_input: whether a level sees only its own part of the vector, as in RecGPT, or all of it.
        hidden_dims: widths of hidden layers beside the decoder's linear map; none by default, because they fit the
            domains that are trained on at the expense of others.
        neighbor_weight: weight of the neighbor loss (see `neighbor_loss`).

    The other arguments are those of `QuantizerConfig`; `codebook_size` follows from the grid.

    Raises:
        ValueError: a size is not positive, a scalar has fewer than 2 steps, `codebook_size` is given and is not the
            product of the grid, or the vectors cannot be split evenly.

    >>> FsqConfig(input_dim=8, num_levels=2, grid=[4, 4]).codebook_size
    16
    """

    model_type = "fsq"

    def __init__(
        self,
        grid: tuple[int, ...] | list[int] = (4, 4, 4, 4, 4),
        split_input: bool = False,
        hidden_dims: tuple[int, ...] | list[int] = (),
        neighbor_weight: float = 1.0,
        codebook_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.grid = list(grid)
        self.split_input = split_input
        self.hidden_dims = list(hidden_dims)
        self.neighbor_weight = neighbor_weight
        size = math.prod(self.grid)
        if not self.grid or min(self.grid) < 2:
            raise ValueError(f"FsqConfig: grid is {self.grid}; every scalar needs at least 2 steps")
        if codebook_size not in (None, size):
            raise ValueError(
                f"FsqConfig: the grid {self.grid} has {size} points, codebook_size says {codebook_size}; leave it out"
            )
        super().__init__(codebook_size=size, **kwargs)
        self.require_positive("hidden_dims")
        if split_input and self.input_dim % self.num_levels:
            raise ValueError(
                f"FsqConfig: vectors {self.input_dim} wide cannot be split into {self.num_levels} equal parts; "
                "leave split_input off"
            )
