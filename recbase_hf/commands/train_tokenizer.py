"""`recbase train-tokenizer`: item texts of some data sets to a `RecBaseTokenizer`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbase_hf.commands.options import DataOptions, TextOptions, load_domains, log_to_terminal, require_same_settings
from recbase_hf.config import option, parse_arguments, part_of
from recbase_hf.files import atomic_folder, write_json
from recbase_hf.training.tokenizer import QuantizerTraining, train_quantizer

__all__ = ["TrainTokenizer", "main", "train_tokenizer"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainTokenizer(QuantizerTraining, TextOptions, DataOptions):
    """Train the CL-VAE tokenizer on item texts."""

    output: str = option("runs/recbase", help="folder; the tokenizer comes into its sub-folder `tokenizer`")
    num_levels: int = option(4, help="codes in a semantic ID")
    codebook_size: int = option(1024, help="codes a level")
    latent_dim: int = option(64, help="width of the latent space and the code vectors")
    hidden_dims: tuple[int, ...] = option((512, 256), help="widths of the encoder's hidden layers")
    kl_weight: float = option(1e-3, help="weight of the KL term, in nats a latent dimension")
    entropy_weight: float = option(1e-2, help="weight of the code-use entropy")
    freeze_earlier_levels: bool = option(False, help="stop learning a codebook when the next level opens")


def train_tokenizer(options: TrainTokenizer, accelerator: Any) -> Path:
    """Train and save; returns the tokenizer's folder. A tokenizer made before by the same settings is kept."""
    from recbase_hf.auto import ClVaeConfig, RecBaseTokenizer

    source = options.item_vectors()
    with accelerator.main_process_first():
        domains = load_domains(options, source, seed=options.seed)
    folder = Path(options.output) / "tokenizer"
    settings = {key: _plain(value) for key, value in asdict(options).items() if key not in ("output", "data")}
    settings["data"] = {domain.name: domain.hash for domain in domains}
    if require_same_settings(folder, settings, what="tokenizer"):
        logger.info("%s is there already, made with these settings", folder)
        return folder
    config = ClVaeConfig(
        input_dim=domains[0].vectors.shape[1],
        hidden_dims=options.hidden_dims,
        latent_dim=options.latent_dim,
        num_levels=options.num_levels,
        codebook_size=options.codebook_size,
        kl_weight=options.kl_weight,
        entropy_weight=options.entropy_weight,
        freeze_earlier_levels=options.freeze_earlier_levels,
    )
    quantizer, reports = train_quantizer(
        {domain.name: domain.vectors for domain in domains},
        config,
        part_of(options, QuantizerTraining),
        accelerator=accelerator,
        checkpoints=Path(options.output) / "training" / "tokenizer",
    )
    tokenizer = RecBaseTokenizer(
        quantizer=quantizer,
        text_encoder=source.encoder,
        text_encoder_revision=source.revision,
        item_template=source.template.to_dict(),
    )
    if accelerator.is_main_process:
        with atomic_folder(folder) as temporary:
            tokenizer.save_pretrained(temporary)
            write_json(
                temporary / "training.json", {"settings": settings, "levels": [asdict(report) for report in reports]}
            )
        for report in reports:
            logger.info(
                "level %d: %d steps, reconstruction loss %.3f, %d codes used, perplexity %.0f",
                report.level, report.steps, report.reconstruction_loss, report.used_codes, report.perplexity,
            )  # fmt: skip
        logger.info("tokenizer %s in %s", tokenizer.fingerprint, folder)
    accelerator.wait_for_everyone()
    return folder


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    options = parse_arguments(
        TrainTokenizer, arguments, program="recbase train-tokenizer", description=TrainTokenizer.__doc__ or ""
    )
    log_to_terminal()
    from recbase_hf.training.launch import make_accelerator

    accelerator = make_accelerator(mixed_precision="no")
    train_tokenizer(options, accelerator)
    accelerator.end_training()
