"""Configuration of the CL-VAE quantizer (curriculum-learning variational autoencoder, RecBase section 3.1)."""

from __future__ import annotations

from transformers import PretrainedConfig

__all__ = ["ClVaeConfig"]


class ClVaeConfig(PretrainedConfig):
    """Shape and loss weights of a `ClVaeModel`.

    Args:
        input_dim: width of the item vectors (384 for all-MiniLM-L6-v2, 4096 for NV-Embed-v2).
        hidden_dims: widths of the encoder's hidden layers; the decoder mirrors them.
        latent_dim: width of the latent space and of every code vector.
        num_levels: residual quantization levels, 1 to 26 (their tokens are named by letters).
        codebook_size: codes a level.
        commitment_weight: weight of the commitment loss relative to the codebook loss.
        kl_weight: weight of KL(q(z|x) || N(0, I)), in nats a latent dimension.
        entropy_weight: weight of the usage entropy that is *subtracted* from the loss, in units of its maximum, log K.
        entropy_temperature: temperature of the soft assignment behind that entropy, in units of the mean squared
            distance of a batch to the codes.
        freeze_earlier_levels: whether the codebooks above the newest level stop learning when it opens.
        mean_shrinkage: how many items the corpus mean weighs when a catalog's own mean is estimated.

    Raises:
        ValueError: a size is not positive, or there are more than 26 levels.

    >>> ClVaeConfig(input_dim=8, latent_dim=4, num_levels=2, codebook_size=16).codebook_size
    16
    """

    model_type = "clvae"

    def __init__(
        self,
        input_dim: int = 384,
        hidden_dims: tuple[int, ...] | list[int] = (512, 256),
        latent_dim: int = 64,
        num_levels: int = 4,
        codebook_size: int = 1024,
        commitment_weight: float = 0.25,
        kl_weight: float = 1e-3,
        entropy_weight: float = 1e-2,
        entropy_temperature: float = 0.1,
        freeze_earlier_levels: bool = False,
        mean_shrinkage: float = 32.0,
        **kwargs: object,
    ) -> None:
        self.input_dim = input_dim
        self.hidden_dims = list(hidden_dims)
        self.latent_dim = latent_dim
        self.num_levels = num_levels
        self.codebook_size = codebook_size
        self.commitment_weight = commitment_weight
        self.kl_weight = kl_weight
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature
        self.freeze_earlier_levels = freeze_earlier_levels
        self.mean_shrinkage = mean_shrinkage
        super().__init__(**kwargs)
        sizes = {
            "input_dim": input_dim,
            "latent_dim": latent_dim,
            "num_levels": num_levels,
            "codebook_size": codebook_size,
            **{f"hidden_dims[{i}]": width for i, width in enumerate(self.hidden_dims)},
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"ClVaeConfig: {name} is {size}, it must be at least 1")
        if num_levels > 26:
            raise ValueError(f"ClVaeConfig: num_levels is {num_levels}; tokens are named by letters, so at most 26")
