"""Configuration of residual k-means."""

from __future__ import annotations

from typing import Any

from .configuration_quantizer import QuantizerConfig

__all__ = ["ResidualKMeansConfig"]


class ResidualKMeansConfig(QuantizerConfig):
    """Shape of a `ResidualKMeansModel`.

    >>> ResidualKMeansConfig(input_dim=8, num_levels=2, codebook_size=16).num_levels
    2
    """

    model_type = "residual_kmeans"

    # Without an `__init__` of its own, transformers gives a configuration class one that forgets its base's defaults.
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
