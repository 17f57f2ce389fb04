"""Configuration of the CL-VAE quantizer (curriculum-learning variational autoencoder, RecBase section 3.1)."""

from __future__ import annotations

from typing import Any

from .configuration_quantizer import QuantizerConfig

__all__ = ["ClVaeConfig"]


class ClVaeConfig(QuantizerConfig):
    """Shape and loss weights of a `ClVaeModel`; a plain RQ-VAE is one with `linear_path` off
    and `kl_weight`, `entropy_weight` and `neighbor_weight` 0.

    Args:
        hidden_dims: widths of the encoder's hidden layers; the decoder mirrors them.
        latent_dim: width of the latent space and of every code vector.
        linear_path: whether a linear map, started at the principal components of the item vectors, runs beside the
            hidden layers of encoder and decoder. It is what carries over to domains that were not trained on.
        commitment_weight: weight of the commitment loss relative to the codebook loss.
        kl_weight: weight of KL(q(z|x) || N(0, I)), in nats a latent dimension; at 0 the encoder is deterministic.
        entropy_weight: weight of the usage entropy that is *subtracted* from the loss, in units of its maximum, log K.
        entropy_temperature: temperature of the soft assignment behind that entropy, in units of the mean squared
            distance of a batch to the codes.
        neighbor_weight: weight of the neighbor loss (see `neighbor_loss`); not in the paper.
        freeze_earlier_levels: whether the codebooks above the newest level stop learning when it opens.

    The other arguments are those of `QuantizerConfig`.

    Raises:
        ValueError: a size is not positive, or there are more than 26 levels.

    >>> ClVaeConfig(input_dim=8, latent_dim=4, num_levels=2, codebook_size=16).codebook_size
    16
    """

    model_type = "clvae"

    def __init__(
        self,
        hidden_dims: tuple[int, ...] | list[int] = (512,),
        latent_dim: int = 32,
        linear_path: bool = True,
        commitment_weight: float = 0.25,
        kl_weight: float = 1e-3,
        entropy_weight: float = 1e-2,
        entropy_temperature: float = 0.1,
        neighbor_weight: float = 1.0,
        freeze_earlier_levels: bool = False,
        **kwargs: Any,
    ) -> None:
        self.hidden_dims = list(hidden_dims)
        self.latent_dim = latent_dim
        self.linear_path = linear_path
        self.commitment_weight = commitment_weight
        self.kl_weight = kl_weight
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature
        self.neighbor_weight = neighbor_weight
        self.freeze_earlier_levels = freeze_earlier_levels
        super().__init__(**kwargs)
        self.require_positive("hidden_dims", "latent_dim")
