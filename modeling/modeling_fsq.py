"""Finite scalar quantization (Mentzer et al. 2023; RecGPT section 2.1.2): codes are points of a fixed grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .configuration_fsq import FsqConfig
from .configuration_quantizer import QuantizerConfig
from .modeling_clvae import mlp
from .modeling_quantizer import Quantizer, QuantizerOutput, neighbor_loss, squared_distances

__all__ = ["FsqModel"]


class FsqModel(Quantizer):
    """Each level maps the vector to a few bounded scalars and rounds them; the point of the grid is the code.

    There is no codebook to learn, and none to collapse. What is learned, through the rounding by the straight-through
    estimator, are the linear map in front (of the whole vector, or of the level's own part of it) and a decoder behind.

    >>> model = FsqModel(FsqConfig(input_dim=8, num_levels=2, grid=[4, 4]))
    >>> codes = model.encode(torch.randn(5, 8))
    >>> tuple(codes.shape), int(codes.max()) < 16, tuple(model.decode(codes).shape)
    ((5, 2), True, (5, 8))
    """

    config_class: type[QuantizerConfig] = FsqConfig

    def __init__(self, config: FsqConfig) -> None:
        super().__init__(config)
        scalars = config.num_levels * len(config.grid)
        self.project = nn.Linear(config.input_dim, scalars)
        self.linear_decoder = nn.Linear(scalars, config.input_dim)
        if config.hidden_dims:
            self.decoder = mlp([scalars, *config.hidden_dims, config.input_dim])
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, vectors: Tensor) -> QuantizerOutput:
        """Losses of (items, input_dim) unit vectors (see `QuantizerOutput`)."""
        bounded = self._bounded(vectors)
        rounded = bounded + (bounded.round() - bounded).detach()
        reconstruction = self._reconstruct(self._values(rounded))
        reconstruction_loss = (reconstruction - vectors).square().sum(dim=-1).mean()
        weight = self.config.neighbor_weight
        neighbors = neighbor_loss(vectors, reconstruction) if weight else vectors.new_zeros(())
        return QuantizerOutput(
            loss=reconstruction_loss + weight * neighbors,
            reconstruction_loss=reconstruction_loss.detach(),
            neighbor_loss=neighbors.detach(),
            codes=self._codes(rounded),
            reconstruction=reconstruction,
        )

    def _encode_batch(self, vectors: Tensor) -> Tensor:
        return self._codes(self._bounded(vectors))

    def _decode_batch(self, codes: Tensor) -> Tensor:
        steps = self._steps()
        strides = self._strides()
        points = (codes[..., None] // strides) % steps - steps // 2
        missing = self.config.num_levels - codes.shape[1]  # a level that is not given stands in the middle of its grid
        return self._reconstruct(nn.functional.pad(self._values(points.to(self.corpus_mean)), (0, 0, 0, missing)))

    def _last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        every_code = torch.arange(self.config.codebook_size, device=codes.device)
        points = (every_code[:, None] // self._strides()) % self._steps() - self._steps() // 2
        return squared_distances(self._bounded(vectors)[:, -1], points.to(vectors))

    def _bounded(self, vectors: Tensor) -> Tensor:
        """(items, num_levels, scalars) real numbers whose rounding is a point of the grid."""
        weight = self.project.weight * self._own_part() if self.config.split_input else self.project.weight
        scalars = nn.functional.linear(vectors * self.config.input_dim**0.5, weight, self.project.bias)
        steps = self._steps().to(scalars)
        # A scalar of an even number of steps is shifted by half of one, so that one of them is at zero; but not of two
        # steps, which zero has to divide: a shift that far would leave the lower one to nobody.
        offset = (steps % 2 == 0).to(scalars) * 0.5
        half = (steps - 1) * 0.5 * (1 + 1e-3)  # a little more, so that the outermost points can be reached
        shift = torch.atanh(offset / half) * (steps > 2)
        return torch.tanh(scalars.unflatten(-1, (self.config.num_levels, -1)) + shift) * half - offset

    def _codes(self, points: Tensor) -> Tensor:
        return ((points.round().long() + self._steps() // 2) * self._strides()).sum(dim=-1)

    def _reconstruct(self, points: Tensor) -> Tensor:
        points = points.flatten(-2)
        vectors = self.linear_decoder(points)
        if self.config.hidden_dims:
            vectors = vectors + self.decoder(points)
        return vectors / self.config.input_dim**0.5

    def _own_part(self) -> Tensor:
        """(scalars, input_dim) of zeros and ones: which numbers of the vector each scalar sees."""
        levels, scalars = self.config.num_levels, len(self.config.grid)
        parts = torch.ones(scalars, self.config.input_dim // levels, device=self.corpus_mean.device)
        return torch.block_diag(*[parts] * levels)

    def _steps(self) -> Tensor:
        return torch.tensor(self.config.grid, device=self.corpus_mean.device)

    def _values(self, points: Tensor) -> Tensor:
        """The numbers between -1 and 1 that points of the grid stand for."""
        steps = self._steps()
        return points / (steps // 2) + 0.5 * (steps == 2)

    def _strides(self) -> Tensor:
        grid = self.config.grid
        strides = [math.prod(grid[:place]) for place in range(len(grid))]
        return torch.tensor(strides, device=self.corpus_mean.device)
