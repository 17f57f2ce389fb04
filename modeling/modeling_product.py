"""Product quantization: each level quantizes features of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .configuration_product import ProductQuantizerConfig
from .configuration_quantizer import QuantizerConfig
from .modeling_quantizer import Quantizer, QuantizerOutput, nearest_codes, neighbor_loss, squared_distances

__all__ = ["ProductQuantizerModel"]


class ProductQuantizerModel(Quantizer):
    """Product quantization: every level quantizes its own linear features of the item vector.

    The features start as principal components, dealt out to the levels so that each has a like share of the variance
    (optimized product quantization, its closed form: Ge et al. 2013, section 3.3), the code vectors as their k-means.
    Both are then trained on reconstruction and neighbor loss. No code depends on another, so a domain that was not
    fitted finds every level as useful as the first.

    >>> config = ProductQuantizerConfig(input_dim=8, num_levels=2, codebook_size=16, level_dim=3)
    >>> model = ProductQuantizerModel(config)
    >>> codes = model.encode(torch.randn(5, 8))
    >>> tuple(codes.shape), tuple(model.decode(codes).shape)
    ((5, 2), (5, 8))
    """

    config_class: type[QuantizerConfig] = ProductQuantizerConfig

    def __init__(self, config: ProductQuantizerConfig) -> None:
        super().__init__(config)
        features = config.num_levels * config.level_dim
        self.linear_encoder = nn.Linear(config.input_dim, features, bias=False)
        self.linear_decoder = nn.Linear(features, config.input_dim, bias=False)
        self.codebooks = nn.Parameter(torch.empty(config.num_levels, config.codebook_size, config.level_dim))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
        elif module is self:
            nn.init.normal_(self.codebooks, std=self.config.input_dim**-0.5)

    def features(self, vectors: Tensor) -> Tensor:
        """What the levels quantize: (items, num_levels, level_dim) of (items, input_dim) vectors."""
        return self.linear_encoder(vectors).unflatten(-1, (self.config.num_levels, -1))

    def forward(self, vectors: Tensor) -> QuantizerOutput:
        """Losses of (items, input_dim) unit vectors (see `QuantizerOutput`)."""
        features = self.features(vectors)
        codes = self._nearest(features)
        # Not `book[code]`, whose gradient several threads add up in any order: training would not repeat.
        levels = zip(codes.unbind(1), self.codebooks, strict=True)
        chosen = torch.stack([nn.functional.embedding(code, book) for code, book in levels], dim=1)
        codebook_loss = (chosen - features.detach()).square().sum(dim=(1, 2)).mean()
        commitment_loss = (features - chosen.detach()).square().sum(dim=(1, 2)).mean()
        straight_through = features + (chosen - features).detach()
        reconstruction = self.linear_decoder(straight_through.flatten(1))
        reconstruction_loss = (reconstruction - vectors).square().sum(dim=-1).mean()
        weight = self.config.neighbor_weight
        neighbors = neighbor_loss(vectors, reconstruction) if weight else vectors.new_zeros(())
        return QuantizerOutput(
            loss=reconstruction_loss
            + codebook_loss
            + self.config.commitment_weight * commitment_loss
            + weight * neighbors,
            reconstruction_loss=reconstruction_loss.detach(),
            codebook_loss=codebook_loss.detach(),
            commitment_loss=commitment_loss.detach(),
            neighbor_loss=neighbors.detach(),
            codes=codes,
            reconstruction=reconstruction,
        )

    def _nearest(self, features: Tensor) -> Tensor:
        levels = zip(features.unbind(1), self.codebooks, strict=True)
        return torch.stack([nearest_codes(points, book) for points, book in levels], dim=1)

    def _encode_batch(self, vectors: Tensor) -> Tensor:
        return self._nearest(self.features(vectors))

    def _decode_batch(self, codes: Tensor) -> Tensor:
        features = [self.codebooks[level][codes[:, level]] for level in range(codes.shape[1])]
        missing = (self.config.num_levels - len(features)) * self.config.level_dim
        return self.linear_decoder(nn.functional.pad(torch.cat(features, dim=1), (0, missing)))

    def _last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        return squared_distances(self.features(vectors)[:, -1], self.codebooks[-1])
