"""The kinds of quantizers, by the `model_type` in their configuration."""

from __future__ import annotations

from typing import Any

from .configuration_clvae import ClVaeConfig
from .configuration_fsq import FsqConfig
from .configuration_product import ProductQuantizerConfig
from .configuration_quantizer import QuantizerConfig
from .configuration_residual_kmeans import ResidualKMeansConfig
from .modeling_clvae import ClVaeModel
from .modeling_fsq import FsqModel
from .modeling_product import ProductQuantizerModel
from .modeling_quantizer import Quantizer
from .modeling_residual_kmeans import ResidualKMeansModel

__all__ = ["QUANTIZERS", "new_quantizer", "quantizer_config"]

QUANTIZERS: dict[str, tuple[type[QuantizerConfig], type[Quantizer]]] = {
    config.model_type: (config, model)
    for config, model in (
        (ClVaeConfig, ClVaeModel),
        (FsqConfig, FsqModel),
        (ProductQuantizerConfig, ProductQuantizerModel),
        (ResidualKMeansConfig, ResidualKMeansModel),
    )
}


def quantizer_config(model_type: str, **settings: Any) -> QuantizerConfig:
    """The configuration of a kind of quantizer.

    Raises:
        ValueError: there is no such kind.

    >>> quantizer_config("residual_kmeans", input_dim=8).num_levels
    4
    """
    if model_type not in QUANTIZERS:
        raise ValueError(f"unknown quantizer {model_type!r}; this version has {', '.join(sorted(QUANTIZERS))}")
    return QUANTIZERS[model_type][0](**settings)


def new_quantizer(config: QuantizerConfig) -> Quantizer:
    """An unfitted quantizer of this configuration."""
    return QUANTIZERS[config.model_type][1](config)
