"""How a quantizer is fitted: the settings, and the report that comes back."""

from __future__ import annotations

from dataclasses import dataclass

from recbase_hf.config import option, require_positive

__all__ = ["LevelReport", "QuantizerTraining"]

CURRICULA = ("convergence", "epochs", "none")


@dataclass(frozen=True)
class QuantizerTraining:
    """How the quantizer is fitted."""

    max_items: int = option(
        400_000, help="vectors that are kept in memory and fitted on, drawn evenly where there are more"
    )
    domain_balance: float = option(1.0, help="0 lets every item count alike, 1 every data set")
    kmeans_iterations: int = option(10, help="of each k-means")
    kmeans_start: bool = option(True, help="start codebooks from k-means; otherwise from items drawn at random")
    batch_size: int = option(512, help="items a step, over all processes")
    learning_rate: float = option(1e-3, help="of AdamW, after 20 steps of warm-up")
    max_steps_per_level: int = option(
        400, help="a level that has not settled by then is taken as settled; 0 leaves it at k-means, without training"
    )
    curriculum: str = option(
        "convergence",
        help="when CL-VAE opens the next level: when the newest has settled, after fixed epochs (as the authors' "
        "released code), or all at once",
        choices=CURRICULA,
    )
    epochs_per_level: int = option(5, help="passes over the items before the next level opens, for --curriculum epochs")
    evaluate_every: int = option(50, help="steps between evaluations, at which unused codes are replaced too")
    patience: int = option(2, help="evaluations over which change is judged")
    tolerance: float = option(
        0.01, help="relative change of validation loss and code use below which a level has settled"
    )
    replace_unused: bool = option(True, help="move codes that nothing uses to where codes are missing")
    validation_share: float = option(0.1, help="of the items, held out to judge settling")
    save_every: int = option(200, help="steps between checkpoints")
    seed: int = option(0, help="of everything")

    def __post_init__(self) -> None:
        require_positive(self, "max_items", "batch_size", "learning_rate", "epochs_per_level")
        require_positive(self, "evaluate_every", "patience", "save_every")
        if self.max_steps_per_level < 0 or self.kmeans_iterations < 0:
            raise ValueError("max_steps_per_level and kmeans_iterations cannot be below 0")
        if self.curriculum not in CURRICULA:
            raise ValueError(f"curriculum is {self.curriculum!r}; it must be one of {', '.join(CURRICULA)}")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; it must be 0 or more, and below 1")
        if not 0 <= self.domain_balance <= 1:
            raise ValueError(f"domain_balance is {self.domain_balance}; it must be between 0 (items) and 1 (data sets)")


@dataclass(frozen=True)
class LevelReport:
    """One level at the end of fitting, over all items that were fitted on.

    Attributes:
        level: 1 is the first.
        steps: trained while it was the newest.
        reconstruction_loss: mean squared distance of centered vectors to what the codes up to here decode to.
        used_codes: codes that at least one item has.
        perplexity: e to the entropy of the code use; `codebook_size` when all are used alike.
    """

    level: int
    steps: int
    reconstruction_loss: float
    used_codes: int
    perplexity: float
