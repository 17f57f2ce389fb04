"""The CL-VAE quantizer: a variational autoencoder whose latent is quantized residually, level by level.

RecBase (arXiv 2509.03131) section 3.1. Item vectors go through an encoder to a Gaussian posterior, the sample (in
training) or the mean (otherwise) is quantized by `num_levels` residual codebooks, and the sum of the chosen code
vectors is decoded back to the item vector. The tuple of chosen codes is the item's semantic ID.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_clvae import ClVaeConfig

__all__ = ["ClVaeModel", "ClVaeOutput"]

# With the noise of a standard normal from the start the deeper codebooks collapse: their residuals drown in it. The
# posterior starts narrow (a standard deviation of e^-2) and the KL term widens it as far as reconstruction allows.
INITIAL_LOG_VARIANCE = -4.0


@dataclass
class ClVaeOutput(ModelOutput):
    """What one training forward gives.

    Attributes:
        loss: scalar, the weighted sum of the parts below.
        reconstruction_loss: scalar, mean over items of the squared distance of input and reconstruction.
        codebook_loss: scalar, mean squared distance of chosen code vectors to the (detached) residuals, mean of levels.
        commitment_loss: scalar, the same with the code vectors detached.
        kl_loss: scalar, nats a latent dimension.
        entropy: scalar in [0, 1], entropy of the batch-mean soft assignment over log K, mean of the active levels.
        codes: (items, active levels) int64.
        reconstruction: (items, input_dim).
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    codebook_loss: Tensor | None = None
    commitment_loss: Tensor | None = None
    kl_loss: Tensor | None = None
    entropy: Tensor | None = None
    codes: Tensor | None = None
    reconstruction: Tensor | None = None


class ClVaeModel(PreTrainedModel):
    """CL-VAE with `num_levels` residual codebooks of `codebook_size` code vectors.

    >>> model = ClVaeModel(ClVaeConfig(input_dim=8, hidden_dims=[16], latent_dim=4, num_levels=2, codebook_size=16))
    >>> vectors = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    >>> codes = model.encode(vectors)
    >>> tuple(codes.shape), tuple(model.decode(codes).shape)
    ((5, 2), (5, 8))
    """

    config_class = ClVaeConfig
    base_model_prefix = "clvae"
    main_input_name = "vectors"

    def __init__(self, config: ClVaeConfig) -> None:
        super().__init__(config)
        widths = [config.input_dim, *config.hidden_dims]
        self.encoder = _mlp([*widths, 2 * config.latent_dim])
        self.decoder = _mlp([config.latent_dim, *reversed(widths)])
        self.codebooks = nn.Parameter(torch.empty(config.num_levels, config.codebook_size, config.latent_dim))
        self.register_buffer("corpus_mean", torch.zeros(config.input_dim))
        # Levels open one after the other in training (the curriculum); a saved tokenizer has them all open.
        self.active_levels = config.num_levels
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif module is self:
            nn.init.normal_(self.codebooks)
            nn.init.zeros_(self.corpus_mean)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Load strictly: missing, unexpected or misshapen weights are an error, never a warning.

        Raises:
            ValueError: the checkpoint does not hold exactly this model's weights, all finite.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        # A size mismatch is let through, so that it is reported below with its name, as the others are.
        kwargs.update(output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True)
        try:
            model, info = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise ValueError(
                f"the weights in {pretrained_model_name_or_path} are damaged ({error}); restore or download them again"
            ) from error
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if info.get(kind):
                raise ValueError(f"{pretrained_model_name_or_path}: {kind.replace('_', ' ')}: {sorted(info[kind])}")
        not_finite = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
        if not_finite:
            raise ValueError(f"{pretrained_model_name_or_path}: NaN or infinity in {not_finite}")
        return (model, info) if wants_info else model

    def posterior(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x): two (items, latent_dim) tensors from (items, input_dim) vectors."""
        # Unit vectors have elements of about 1/sqrt(width); the layers are initialised for elements of about 1.
        mean, log_variance = self.encoder(vectors * self.config.input_dim**0.5).chunk(2, dim=-1)
        return mean, INITIAL_LOG_VARIANCE + log_variance.clamp(-8.0, 8.0)

    def forward(self, vectors: Tensor) -> ClVaeOutput:
        """Losses for (items, input_dim) unit vectors over the active levels (see `ClVaeOutput`)."""
        config = self.config
        mean, log_variance = self.posterior(vectors)
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)

        residual, quantized, codes = latent, torch.zeros_like(latent), []
        codebook_loss, commitment_loss, entropy = (latent.new_zeros(()) for _ in range(3))
        for level in range(self.active_levels):
            frozen = config.freeze_earlier_levels and level < self.active_levels - 1
            book = self.codebooks[level].detach() if frozen else self.codebooks[level]
            distances = _squared_distances(residual, book)
            code = distances.argmin(dim=-1)
            # Not `book[code]`, whose gradient several threads add up in any order: training would not repeat.
            chosen = nn.functional.embedding(code, book)
            codebook_loss = codebook_loss + nn.functional.mse_loss(chosen, residual.detach())
            commitment_loss = commitment_loss + nn.functional.mse_loss(residual, chosen.detach())
            entropy = entropy + _usage_entropy(distances, config.entropy_temperature)
            quantized = quantized + chosen
            residual = residual - chosen.detach()
            codes.append(code)
        codebook_loss, commitment_loss, entropy = (
            part / self.active_levels for part in (codebook_loss, commitment_loss, entropy)
        )

        straight_through = latent + (quantized - latent).detach()
        reconstruction = self._decode_latent(straight_through)
        reconstruction_loss = (reconstruction - vectors).square().sum(dim=-1).mean()
        kl_loss = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        loss = (
            reconstruction_loss
            + codebook_loss
            + config.commitment_weight * commitment_loss
            + config.kl_weight * kl_loss
            - config.entropy_weight * entropy
        )
        return ClVaeOutput(
            loss=loss,
            reconstruction_loss=reconstruction_loss.detach(),
            codebook_loss=codebook_loss.detach(),
            commitment_loss=commitment_loss.detach(),
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
            residual = residual - book[_squared_distances(residual, book).argmin(dim=-1)]
        return residual

    @torch.no_grad()
    def encode(self, vectors: Tensor, batch_size: int = 8192) -> Tensor:
        """Semantic IDs (items, num_levels) int64 of (items, input_dim) centered unit vectors.

        Raises:
            ValueError: the vectors have another width or hold NaN or infinity.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.config.input_dim:
            raise ValueError(
                f"the quantizer takes vectors of shape (items, {self.config.input_dim}), got {tuple(vectors.shape)}; "
                "were they made with the text encoder that the tokenizer names?"
            )
        bad = ~torch.isfinite(vectors).all(dim=1)
        if bad.any():
            raise ValueError(f"vector {int(bad.nonzero()[0])} holds NaN or infinity; encode its text again")
        codes = [self._encode_batch(batch) for batch in _batches(vectors, batch_size)]
        return torch.cat(codes) if codes else torch.zeros(0, self.config.num_levels, dtype=torch.long)

    def _encode_batch(self, vectors: Tensor) -> Tensor:
        residual = self.posterior(vectors.to(self.codebooks))[0]
        codes = []
        for book in self.codebooks:
            code = _squared_distances(residual, book).argmin(dim=-1)
            residual = residual - book[code]
            codes.append(code)
        return torch.stack(codes, dim=-1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Vectors (items, input_dim) that (items, levels) codes stand for; fewer levels give coarser vectors."""
        levels = range(codes.shape[1])
        quantized = torch.stack([self.codebooks[level][codes[:, level]] for level in levels]).sum(dim=0)
        return self._decode_latent(quantized)

    def _decode_latent(self, latent: Tensor) -> Tensor:
        return self.decoder(latent) / self.config.input_dim**0.5


def _mlp(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _squared_distances(points: Tensor, book: Tensor) -> Tensor:
    """(items, codes) squared Euclidean distances, by one matrix product."""
    return points.square().sum(-1, keepdim=True) - 2.0 * points @ book.T + book.square().sum(-1)


def _usage_entropy(distances: Tensor, temperature: float) -> Tensor:
    """Entropy of the batch-mean soft assignment, over its maximum log K; it has a gradient in codes and encoder."""
    scale = distances.detach().mean().clamp_min(1e-12) * temperature
    usage = torch.softmax(-distances / scale, dim=-1).mean(dim=0)
    return -(usage * usage.clamp_min(1e-12).log()).sum() / torch.tensor(float(usage.numel())).log().clamp_min(1e-12)


def _batches(vectors: Tensor, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(vectors), batch_size):
        yield vectors[start : start + batch_size]
