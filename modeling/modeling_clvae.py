"""The CL-VAE quantizer: a variational autoencoder whose latent is quantized residually, level by level.

RecBase (arXiv 2509.03131) section 3.1. Item vectors go through an encoder to a Gaussian posterior, the sample (in
training) or the mean (otherwise) is quantized by `num_levels` residual codebooks, and the sum of the chosen code
vectors is decoded back to the item vector. The tuple of chosen codes is the item's semantic ID.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .configuration_clvae import ClVaeConfig
from .configuration_quantizer import QuantizerConfig
from .modeling_quantizer import Quantizer, QuantizerOutput, nearest_codes, neighbor_loss, squared_distances

__all__ = ["ClVaeModel", "mlp"]

# With the noise of a standard normal from the start the deeper codebooks collapse: their residuals drown in it. The
# posterior starts narrow (a standard deviation of e^-2) and the KL term widens it as far as reconstruction allows.
INITIAL_LOG_VARIANCE = -4.0


class ClVaeModel(Quantizer):
    """CL-VAE with `num_levels` residual codebooks of `codebook_size` code vectors.

    >>> model = ClVaeModel(ClVaeConfig(input_dim=8, hidden_dims=[16], latent_dim=4, num_levels=2, codebook_size=16))
    >>> vectors = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    >>> codes = model.encode(vectors)
    >>> tuple(codes.shape), tuple(model.decode(codes).shape)
    ((5, 2), (5, 8))
    """

    config_class: type[QuantizerConfig] = ClVaeConfig

    def __init__(self, config: ClVaeConfig) -> None:
        super().__init__(config)
        widths = [config.input_dim, *config.hidden_dims]
        self.encoder = mlp([*widths, 2 * config.latent_dim])
        self.decoder = mlp([config.latent_dim, *reversed(widths)])
        if config.linear_path:
            self.linear_encoder = nn.Linear(config.input_dim, config.latent_dim)
            self.linear_decoder = nn.Linear(config.latent_dim, config.input_dim)
        self.codebooks = nn.Parameter(torch.empty(config.num_levels, config.codebook_size, config.latent_dim))
        # Levels open one after the other in training (the curriculum); a saved tokenizer has them all open.
        self.active_levels = config.num_levels
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif module is self:
            nn.init.normal_(self.codebooks)

    def posterior(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x): two (items, latent_dim) tensors from (items, input_dim) vectors."""
        # Unit vectors have elements of about 1/sqrt(width); the layers are initialised for elements of about 1.
        vectors = vectors * self.config.input_dim**0.5
        mean, log_variance = self.encoder(vectors).chunk(2, dim=-1)
        if self.config.linear_path:
            mean = mean + self.linear_encoder(vectors)
        return mean, INITIAL_LOG_VARIANCE + log_variance.clamp(-8.0, 8.0)

    def forward(self, vectors: Tensor) -> QuantizerOutput:
        """Losses for (items, input_dim) unit vectors over the active levels (see `QuantizerOutput`)."""
        config = self.config
        mean, log_variance = self.posterior(vectors)
        latent = mean
        if self.training and config.kl_weight:
            latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)

        residual, quantized, codes = latent, torch.zeros_like(latent), []
        codebook_loss, commitment_loss, entropy = (latent.new_zeros(()) for _ in range(3))
        for level in range(self.active_levels):
            frozen = config.freeze_earlier_levels and level < self.active_levels - 1
            book = self.codebooks[level].detach() if frozen else self.codebooks[level]
            if config.entropy_weight:
                distances = squared_distances(residual, book)
                code = distances.argmin(dim=-1)
                entropy = entropy + _usage_entropy(distances, config.entropy_temperature)
            else:
                code = nearest_codes(residual, book)
            # Not `book[code]`, whose gradient several threads add up in any order: training would not repeat.
            chosen = nn.functional.embedding(code, book)
            codebook_loss = codebook_loss + nn.functional.mse_loss(chosen, residual.detach())
            commitment_loss = commitment_loss + nn.functional.mse_loss(residual, chosen.detach())
            quantized = quantized + chosen
            residual = residual - chosen.detach()
            codes.append(code)
        codebook_loss, commitment_loss, entropy = (
            part / self.active_levels for part in (codebook_loss, commitment_loss, entropy)
        )

        straight_through = latent + (quantized - latent).detach()
        reconstruction = self._decode_latent(straight_through)
        reconstruction_loss = (reconstruction - vectors).square().sum(dim=-1).mean()
        neighbors = neighbor_loss(vectors, reconstruction) if config.neighbor_weight else latent.new_zeros(())
        kl_loss = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        loss = (
            reconstruction_loss
            + codebook_loss
            + config.commitment_weight * commitment_loss
            + config.neighbor_weight * neighbors
            + config.kl_weight * kl_loss
            - config.entropy_weight * entropy
        )
        return QuantizerOutput(
            loss=loss,
            reconstruction_loss=reconstruction_loss.detach(),
            codebook_loss=codebook_loss.detach(),
            commitment_loss=commitment_loss.detach(),
            neighbor_loss=neighbors.detach(),
            kl_loss=kl_loss.detach(),
            entropy=entropy.detach(),
            codes=torch.stack(codes, dim=-1),
            reconstruction=reconstruction,
        )

    @torch.no_grad()
    def residuals(self, vectors: Tensor, level: int) -> Tensor:
        """What level `level` has to quantize: (items, latent_dim) posterior means less the codes above."""
        residual = self.posterior(vectors)[0]
        for book in self.codebooks[:level]:
            residual = residual - book[nearest_codes(residual, book)]
        return residual

    def _encode_batch(self, vectors: Tensor) -> Tensor:
        residual = self.posterior(vectors)[0]
        codes = []
        for book in self.codebooks:
            codes.append(nearest_codes(residual, book))
            residual = residual - book[codes[-1]]
        return torch.stack(codes, dim=-1)

    def _decode_batch(self, codes: Tensor) -> Tensor:
        levels = range(codes.shape[1])
        return self._decode_latent(torch.stack([self.codebooks[level][codes[:, level]] for level in levels]).sum(dim=0))

    def _last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        residual = self.posterior(vectors)[0]
        for level, book in enumerate(self.codebooks[:-1]):
            residual = residual - book[codes[:, level]]
        return squared_distances(residual, self.codebooks[-1])

    def _decode_latent(self, latent: Tensor) -> Tensor:
        vectors = self.decoder(latent)
        if self.config.linear_path:
            vectors = vectors + self.linear_decoder(latent)
        return vectors / self.config.input_dim**0.5


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _usage_entropy(distances: Tensor, temperature: float) -> Tensor:
    """Entropy of the batch-mean soft assignment, over its maximum log K; it has a gradient in codes and encoder."""
    scale = distances.detach().mean().clamp_min(1e-12) * temperature
    usage = torch.softmax(-distances / scale, dim=-1).mean(dim=0)
    return -(usage * usage.clamp_min(1e-12).log()).sum() / torch.tensor(float(usage.numel())).log().clamp_min(1e-12)
