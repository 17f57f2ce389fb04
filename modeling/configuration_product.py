"""Configuration of the product quantizer."""

from __future__ import annotations

from typing import Any

from .configuration_quantizer import QuantizerConfig

__all__ = ["ProductQuantizerConfig"]


class ProductQuantizerConfig(QuantizerConfig):
    """Shape of a `ProductQuantizerModel`.

    Args:
        level_dim: components that each level quantizes.
        commitment_weight: weight of the commitment loss relative to the codebook loss, where it is trained on.
        neighbor_weight: weight of the neighbor loss (see `neighbor_loss`).

    The other arguments are those of `QuantizerConfig`.

    Raises:
        ValueError: a size is not positive, or the levels together need more components than the vectors are wide.

    >>> ProductQuantizerConfig(input_dim=8, num_levels=2, codebook_size=16, level_dim=3).level_dim
    3
    """

    model_type = "product"

    def __init__(
        self, level_dim: int = 6, commitment_weight: float = 0.25, neighbor_weight: float = 1.0, **kwargs: Any
    ) -> None:
        self.level_dim = level_dim
        self.commitment_weight = commitment_weight
        self.neighbor_weight = neighbor_weight
        super().__init__(**kwargs)
        self.require_positive("level_dim")
        if self.num_levels * level_dim > self.input_dim:
            raise ValueError(
                f"ProductQuantizerConfig: {self.num_levels} levels of {level_dim} components need vectors at least "
                f"{self.num_levels * level_dim} wide, these are {self.input_dim}; lower level_dim"
            )
