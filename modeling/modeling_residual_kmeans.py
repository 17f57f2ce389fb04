"""Residual k-means: each level quantizes what the levels before it left."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .configuration_quantizer import QuantizerConfig
from .configuration_residual_kmeans import ResidualKMeansConfig
from .modeling_quantizer import Quantizer, nearest_codes, squared_distances

__all__ = ["ResidualKMeansModel"]


class ResidualKMeansModel(Quantizer):
    """Residual k-means: the sum of a code vector a level stands for an item.

    >>> model = ResidualKMeansModel(ResidualKMeansConfig(input_dim=8, num_levels=2, codebook_size=16))
    >>> codes = model.encode(torch.randn(5, 8))
    >>> tuple(codes.shape), tuple(model.decode(codes).shape)
    ((5, 2), (5, 8))
    """

    config_class: type[QuantizerConfig] = ResidualKMeansConfig

    def __init__(self, config: ResidualKMeansConfig) -> None:
        super().__init__(config)
        self.codebooks = nn.Parameter(torch.empty(config.num_levels, config.codebook_size, config.input_dim))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            nn.init.normal_(self.codebooks, std=self.config.input_dim**-0.5)

    def _encode_batch(self, vectors: Tensor) -> Tensor:
        residual, codes = vectors, []
        for book in self.codebooks:
            codes.append(nearest_codes(residual, book))
            residual = residual - book[codes[-1]]
        return torch.stack(codes, dim=-1)

    def _decode_batch(self, codes: Tensor) -> Tensor:
        return torch.stack([self.codebooks[level][codes[:, level]] for level in range(codes.shape[1])]).sum(dim=0)

    def _last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        for level, book in enumerate(self.codebooks[:-1]):
            vectors = vectors - book[codes[:, level]]
        return squared_distances(vectors, self.codebooks[-1])
