"""Where quantizers start, in closed form: principal components and k-means of the items that are fitted on."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from recbase_hf.auto import ClVaeModel, FsqModel, ProductQuantizerModel, Quantizer, ResidualKMeansModel
from recbase_hf.quantizers.kmeans import assign, kmeans
from recbase_hf.quantizers.training import QuantizerTraining

__all__ = ["new_codebook", "start_quantizer"]


@torch.no_grad()
def start_quantizer(
    quantizer: Quantizer, vectors: Tensor, weights: Tensor, training: QuantizerTraining, accelerator: Accelerator
) -> None:
    """Set the parameters of `quantizer` from (items, input_dim) centered vectors and their (items,) weights.

    The codebooks of a CL-VAE are not set where it is trained: each starts when its level opens.
    """
    if isinstance(quantizer, ResidualKMeansModel):
        residual = vectors
        for level in range(quantizer.config.num_levels):
            quantizer.codebooks[level] = new_codebook(residual, weights, quantizer, level, training, accelerator)
            residual = residual - quantizer.codebooks[level][assign(residual, quantizer.codebooks[level])[0]]
    elif isinstance(quantizer, ProductQuantizerModel):
        _start_product(quantizer, vectors, weights, training, accelerator)
    elif isinstance(quantizer, FsqModel):
        _start_fsq(quantizer, vectors, weights)
    elif isinstance(quantizer, ClVaeModel):
        if quantizer.config.linear_path:
            _start_linear_path(quantizer, vectors, weights)
        if not training.max_steps_per_level:
            for level in range(quantizer.config.num_levels):
                residuals = torch.cat([quantizer.residuals(rows, level) for rows in vectors.split(16_384)])
                book = new_codebook(residuals, weights, quantizer, level, training, accelerator)
                quantizer.codebooks[level] = book


def new_codebook(
    points: Tensor,
    weights: Tensor,
    quantizer: Quantizer,
    level: int,
    training: QuantizerTraining,
    accelerator: Accelerator,
) -> Tensor:
    """(codebook_size, width) code vectors for a level, from the (items, width) points that it has to quantize."""
    return kmeans(
        points,
        weights,
        quantizer.config.codebook_size,
        accelerator=accelerator,
        iterations=training.kmeans_iterations if training.kmeans_start else 0,
        seed=training.seed + level,
    )


def _start_product(
    quantizer: ProductQuantizerModel,
    vectors: Tensor,
    weights: Tensor,
    training: QuantizerTraining,
    accelerator: Accelerator,
) -> None:
    config = quantizer.config
    variances, components = _principal_components(vectors, weights, config.num_levels * config.level_dim)
    order = [place for hand in _dealt_out(len(variances), config.num_levels) for place in hand]
    components = components[:, order]
    quantizer.linear_encoder.weight.copy_(components.T)
    quantizer.linear_decoder.weight.copy_(components)
    for level, points in enumerate(quantizer.features(vectors).unbind(1)):
        book = new_codebook(points.contiguous(), weights, quantizer, level, training, accelerator)
        quantizer.codebooks[level] = book


def _start_fsq(quantizer: FsqModel, vectors: Tensor, weights: Tensor) -> None:
    """Each scalar is a principal component of unit variance, of the whole vector or of its level's part.

    Scalars beyond the width of the vectors start at nothing.
    """
    config = quantizer.config
    scalars = len(config.grid)
    quantizer.project.bias.zero_()
    quantizer.linear_decoder.bias.zero_()
    if config.hidden_dims:
        quantizer.decoder[-1].get_parameter("weight").zero_()  # the hidden layers start by adding nothing
    quantizer.project.weight.zero_()
    quantizer.linear_decoder.weight.zero_()
    if config.split_input:
        width = config.input_dim // config.num_levels
        parts = [(slice(level * width, (level + 1) * width), 1) for level in range(config.num_levels)]
    else:
        parts = [(slice(0, config.input_dim), config.num_levels)]
    for place, (part, levels) in enumerate(parts):
        variances, components = _principal_components(vectors[:, part], weights, levels * scalars)
        spread = (variances * config.input_dim).sqrt().clamp_min(1e-6)
        for level, hand in enumerate(_dealt_out(len(variances), levels), start=place):
            rows = slice(level * scalars, level * scalars + len(hand))
            quantizer.project.weight[rows, part] = (components / spread)[:, hand].T
            quantizer.linear_decoder.weight[part, rows] = (components * spread)[:, hand]


def _start_linear_path(quantizer: ClVaeModel, vectors: Tensor, weights: Tensor) -> None:
    """The latent is the leading principal components, drawn together to a like spread of about 1."""
    config = quantizer.config
    variances, components = _principal_components(vectors, weights, config.latent_dim)
    spread = (variances * config.input_dim).sqrt().clamp_min(1e-6).sqrt()
    spread = spread * (variances * config.input_dim / spread**2).mean().sqrt().clamp_min(1e-6)
    for layer in (quantizer.linear_encoder, quantizer.linear_decoder):
        layer.weight.zero_()
        layer.bias.zero_()
    quantizer.linear_encoder.weight[: len(spread)] = (components / spread).T
    quantizer.linear_decoder.weight[:, : len(spread)] = components * spread
    # The hidden layers start by adding nothing.
    for mlp in (quantizer.encoder, quantizer.decoder):
        mlp[-1].get_parameter("weight").zero_()


def _principal_components(vectors: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances (count,) and directions (width, count) of the leading components, at most as many as the width."""
    shares = weights / weights.sum()
    covariance = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64)
    for rows in torch.arange(len(vectors)).split(16_384):
        batch = vectors[rows].cpu().double()  # Apple's GPUs have no float64
        covariance += batch.T @ (batch * shares[rows, None])
    variances, directions = torch.linalg.eigh(covariance)
    # Of the two signs of a direction always the same one; a direction whose sum is zero is kept as well.
    directions = torch.where(directions.sum(dim=0) < 0, -directions, directions)
    leading = slice(len(variances) - min(count, len(variances)), None)
    variances, directions = variances[leading].flip(0).clamp_min(0), directions[:, leading].flip(1)
    return variances.to(vectors), directions.to(vectors)


def _dealt_out(count: int, hands: int) -> list[list[int]]:
    """Positions 0..count-1 dealt to `hands`, back and forth, so that each gets a like share."""
    rounds = [list(range(first, min(first + hands, count))) for first in range(0, count, hands)]
    dealt = [cards[::-1] if number % 2 else cards for number, cards in enumerate(rounds)]
    return [[cards[hand] for cards in dealt if hand < len(cards)] for hand in range(hands)]
