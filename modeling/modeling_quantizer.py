"""What all quantizers share: item vectors in, semantic IDs out, and back.

A subclass says how one batch is encoded and decoded; everything a user calls is here. How each is fitted is not,
because a checkpoint travels without its training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_quantizer import QuantizerConfig

__all__ = ["Quantizer", "QuantizerOutput", "nearest_codes", "neighbor_loss", "squared_distances"]

NEIGHBOR_TEMPERATURE = 0.1


@dataclass
class QuantizerOutput(ModelOutput):
    """What one training forward gives; a part that a quantizer does not have is None.

    Attributes:
        loss: scalar, the weighted sum of the parts below.
        reconstruction_loss: scalar, mean over items of the squared distance of input and reconstruction.
        codebook_loss: scalar, mean squared distance of chosen code vectors to the (detached) residuals.
        commitment_loss: scalar, the same with the code vectors detached.
        neighbor_loss: scalar, nats (see `neighbor_loss`).
        kl_loss: scalar, nats a latent dimension.
        entropy: scalar in [0, 1], entropy of the batch-mean soft assignment over log K, mean of the active levels.
        codes: (items, active levels) int64.
        reconstruction: (items, input_dim).
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    codebook_loss: Tensor | None = None
    commitment_loss: Tensor | None = None
    neighbor_loss: Tensor | None = None
    kl_loss: Tensor | None = None
    entropy: Tensor | None = None
    codes: Tensor | None = None
    reconstruction: Tensor | None = None


class Quantizer(PreTrainedModel):
    """Base of the quantizers.

    Buffers:
        corpus_mean: (input_dim,) float32, mean of the fitted domains' mean vectors.
        fitted_cosines: (101,) float32, percentiles 0 to 100 of the cosine between fitted items and their decoded
            vectors, by which items that lie far from what was fitted are told; NaN where nothing was fitted.
    """

    config_class: type[QuantizerConfig] = QuantizerConfig
    base_model_prefix = "quantizer"
    main_input_name = "vectors"

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.register_buffer("corpus_mean", torch.zeros(config.input_dim))
        self.register_buffer("fitted_cosines", torch.full((101,), torch.nan))

    def _init_weights(self, module: torch.nn.Module) -> None:
        if module is self:
            torch.nn.init.zeros_(self.corpus_mean)
            torch.nn.init.constant_(self.fitted_cosines, torch.nan)

    # ---- what a subclass fills in --------------------------------------------------------------------------------

    def _encode_batch(self, vectors: Tensor) -> Tensor:
        """Codes (items, num_levels) int64 of (items, input_dim) vectors."""
        raise NotImplementedError

    def _decode_batch(self, codes: Tensor) -> Tensor:
        """Vectors (items, input_dim) of (items, at most num_levels) codes."""
        raise NotImplementedError

    def _last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """Squared distances (items, codebook_size) of what the levels before leave to the codes of the last level."""
        raise NotImplementedError

    # ---- what everybody calls ------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, vectors: Any, batch_size: int = 4096) -> Tensor:
        """Semantic IDs (items, num_levels) int64 of (items, input_dim) centered unit vectors, a tensor or an array.

        Raises:
            ValueError: the vectors have another width or hold NaN or infinity.
        """
        vectors = torch.as_tensor(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != self.config.input_dim:
            raise ValueError(
                f"the quantizer takes vectors of shape (items, {self.config.input_dim}), got {tuple(vectors.shape)}; "
                "were they made with the text encoder that the tokenizer names?"
            )
        bad = ~torch.isfinite(vectors).all(dim=1)
        if bad.any():
            raise ValueError(f"vector {int(bad.nonzero()[0])} holds NaN or infinity; encode its text again")
        codes = [self._encode_batch(batch.to(self.corpus_mean)) for batch in _batches(vectors, batch_size)]
        return torch.cat(codes) if codes else torch.zeros(0, self.config.num_levels, dtype=torch.long)

    @torch.no_grad()
    def decode(self, codes: Any, batch_size: int = 4096) -> Tensor:
        """Vectors (items, input_dim) that (items, levels) codes stand for; fewer levels give coarser vectors.

        Raises:
            ValueError: there are more levels than the quantizer has, or a code is no whole number or out of range.
        """
        config, codes = self.config, torch.as_tensor(codes)
        if codes.ndim != 2 or not 1 <= codes.shape[1] <= config.num_levels or codes.is_floating_point():
            raise ValueError(
                f"decode takes whole numbers of shape (items, 1 to {config.num_levels} levels), got {codes.dtype} of "
                f"shape {tuple(codes.shape)}"
            )
        wrong = torch.nonzero((codes < 0) | (codes >= config.codebook_size))
        if len(wrong):
            row, level = wrong[0].tolist()
            raise ValueError(
                f"item {row}, level {level}: code {int(codes[row, level])} is not between 0 and "
                f"{config.codebook_size - 1}"
            )
        codes = codes.to(self.corpus_mean.device)
        vectors = [self._decode_batch(batch) for batch in _batches(codes, batch_size)]
        return torch.cat(vectors) if vectors else self.corpus_mean.new_zeros(0, config.input_dim)

    @torch.no_grad()
    def last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """How far each item is from each code of the last level, the levels before being what they are.

        Args:
            vectors: (items, input_dim) centered unit vectors.
            codes: (items, num_levels) their semantic IDs.

        Returns:
            (items, codebook_size) float32 squared distances, in the quantizer's own space.
        """
        return self._last_level_distances(vectors.to(self.corpus_mean), codes.to(self.corpus_mean.device))

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
        model.require_finite(pretrained_model_name_or_path)
        return (model, info) if wants_info else model

    def require_finite(self, place: Any) -> None:
        """Raise a ValueError that names `place` if a weight is NaN or infinite."""
        bad = [
            name
            for name, tensor in self.state_dict().items()
            if name != "fitted_cosines" and not torch.isfinite(tensor).all()
        ]
        if bad:
            raise ValueError(f"{place}: NaN or infinity in {bad}; restore or download the folder again")


def neighbor_loss(vectors: Tensor, reconstruction: Tensor) -> Tensor:
    """How much the items' neighborhoods change by quantization, a scalar in nats.

    For each item the softmax over the others' cosines, at temperature 0.1, once of the vectors and once of their
    reconstructions: the mean Kullback-Leibler divergence of the second from the first. Reconstruction error alone
    looks at each item by itself; what a recommender needs of a semantic ID is that near items have near codes. (The
    principle of stochastic neighbor embedding, Hinton and Roweis 2002, for a quantizer.)

    Args:
        vectors: (items, width) unit vectors of one domain, among them some that are near to each other.
        reconstruction: (items, width) any length.

    >>> points = torch.nn.functional.normalize(torch.randn(6, 4), dim=1)
    >>> float(neighbor_loss(points, 2.0 * points)) < 1e-5
    True
    """
    cosines = vectors @ vectors.T
    decoded = torch.nn.functional.normalize(reconstruction, dim=1)
    # An item of the same text must not take all the weight, and neither may the item itself.
    itself = (cosines > 1 - 1e-5) | torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    target, given = (
        (similarity / NEIGHBOR_TEMPERATURE).masked_fill(itself, -1e4).log_softmax(dim=1)
        for similarity in (cosines, decoded @ decoded.T)
    )
    return (target.exp() * (target - given)).sum(dim=1).mean()


def squared_distances(points: Tensor, book: Tensor) -> Tensor:
    """(items, codes) squared Euclidean distances of (items, width) points, by one matrix product."""
    return points.square().sum(-1, keepdim=True) - 2.0 * points @ book.T + book.square().sum(-1)


def nearest_codes(points: Tensor, book: Tensor) -> Tensor:
    """(items,) int64, the nearest of the (codes, width) code vectors to each (items, width) point."""
    # Without the points' own lengths, and as a maximum: `argmin` of the distances takes four times as long.
    return torch.addmm(-0.5 * book.square().sum(-1), points, book.T).max(dim=1).indices


def _batches(vectors: Tensor, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(vectors), batch_size):
        yield vectors[start : start + batch_size]
