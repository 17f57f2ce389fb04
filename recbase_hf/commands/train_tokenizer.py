"""`recbase train-tokenizer`: item texts of some data sets to a `RecBaseTokenizer`."""

from __future__ import annotations

import logging
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import (
    DataOptions,
    TextOptions,
    load_item_vectors,
    require_same_settings,
)
from recbase_hf.config import option, part_of
from recbase_hf.files import atomic_folder, require_writable, write_json
from recbase_hf.quantizers.training import QuantizerTraining

if TYPE_CHECKING:
    from recbase_hf.auto import QuantizerConfig, RecBaseTokenizer
    from recbase_hf.data.domain import DomainVectors

__all__ = ["COMMAND", "TrainTokenizer", "train_tokenizer"]

logger = logging.getLogger(__name__)

SHAPE = ("num_levels", "level_dim", "grid", "split_input", "latent_dim", "hidden_dims", "linear_path")
WEIGHTS = ("neighbor_weight", "kl_weight", "entropy_weight", "freeze_earlier_levels")


@dataclass(frozen=True)
class TrainTokenizer(QuantizerTraining, TextOptions, DataOptions):
    """Train a tokenizer on item texts. Where no default is shown, it is that of the quantizer."""

    output: str = option("runs/recbase", help="folder; the tokenizer comes into its sub-folder `tokenizer`")
    quantizer: str = option(
        "product",
        help="what turns vectors into codes: product quantization, finite scalar quantization, CL-VAE, RQ-VAE, or "
        "residual k-means; benchmarks/README.md compares them",
        choices=("product", "fsq", "cl-vae", "rq-vae", "residual-kmeans"),
    )
    collisions: str = option(
        "keep",
        help="different texts with the same codes: kept in one bucket, reassigned to the next free code of the last "
        "level, or told apart by one more level",
        choices=("keep", "reassign", "digit"),
    )
    num_levels: int = option(4, help="codes in a semantic ID")
    codebook_size: int = option(1024, help="codes a level; for fsq a power of two, unless --grid is given")
    level_dim: int | None = option(None, help="product: features a level (default: 6)")
    grid: tuple[int, ...] = option((), help="fsq: steps of each of a level's scalars, such as 8 8 8 6 5")
    split_input: bool | None = option(None, help="fsq: each level sees its own part of the vector, as in RecGPT")
    latent_dim: int | None = option(None, help="cl-vae, rq-vae: width of the latent space (default: 32)")
    hidden_dims: tuple[int, ...] = option(
        (), help="cl-vae, rq-vae, fsq: widths of hidden layers (default: 512; fsq none)"
    )
    linear_path: bool | None = option(None, help="cl-vae, rq-vae: a linear map beside the hidden layers")
    neighbor_weight: float | None = option(None, help="all but residual-kmeans: weight of the neighbor loss")
    kl_weight: float | None = option(None, help="cl-vae: weight of the KL term, in nats a latent dimension")
    entropy_weight: float | None = option(None, help="cl-vae: weight of the code-use entropy")
    freeze_earlier_levels: bool | None = option(None, help="cl-vae: stop learning a codebook when the next level opens")


def train_tokenizer(options: TrainTokenizer, accelerator: Any) -> Path:
    """Train and save; returns the tokenizer's folder. A tokenizer made before by the same settings is kept."""
    from recbase_hf.auto import CollisionPolicy, RecBaseTokenizer
    from recbase_hf.quantizers.fit import fit_quantizer
    from recbase_hf.quantizers.gradient import require_shareable
    from recbase_hf.quantizers.kinds import require_applicable, training_of_kind

    require_applicable(options.quantizer, part_of(options, QuantizerTraining))
    training = training_of_kind(options.quantizer, part_of(options, QuantizerTraining))
    if options.quantizer != "residual-kmeans":  # before any text is encoded
        require_shareable(training, accelerator.num_processes)
    _config(options, input_dim=4096)  # whose settings are refused here, before any text is encoded
    if accelerator.is_main_process:
        require_writable(options.output)
    source = options.item_vectors()
    with accelerator.main_process_first():
        domains = load_item_vectors(options, source)
    folder = Path(options.output) / "tokenizer"
    settings = {key: _plain(value) for key, value in {**asdict(options), **asdict(training)}.items()}
    for name in ("output", "save_every"):
        del settings[name]
    settings["data"] = {domain.name: domain.hash for domain in domains}
    settings["items"] = {domain.name: domain.items_hash for domain in domains}
    settings["vector_files"] = {domain.name: domain.file_hash for domain in domains}
    if require_same_settings(folder, settings, what="tokenizer"):
        logger.info("%s is there already, made with these settings", folder)
        return folder
    config = _config(options, input_dim=domains[0].vectors.shape[1])
    quantizer, reports = fit_quantizer(
        {domain.name: domain.vectors for domain in domains},
        config,
        training,
        accelerator=accelerator,
        checkpoints=Path(options.output) / "training" / "tokenizer",
    )
    tokenizer = RecBaseTokenizer(
        quantizer=quantizer,
        text_encoder=source.encoder,
        text_encoder_revision=source.revision,
        item_template=source.template.to_dict(),
        collisions=cast(CollisionPolicy, options.collisions),
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
        for domain in domains:
            _log_collisions(tokenizer, domain)
        logger.info("tokenizer %s in %s; more about it: %s", tokenizer.fingerprint, folder, _doctor(options, folder))
    accelerator.wait_for_everyone()
    return folder


def _config(options: TrainTokenizer, *, input_dim: int) -> QuantizerConfig:
    from recbase_hf.quantizers.kinds import config_of_kind

    given = {name: getattr(options, name) for name in (*SHAPE, *WEIGHTS) if getattr(options, name) not in (None, ())}
    if not (options.grid and options.codebook_size == TrainTokenizer.codebook_size):
        given["codebook_size"] = options.codebook_size
    return config_of_kind(options.quantizer, input_dim=input_dim, **given)


def _log_collisions(tokenizer: RecBaseTokenizer, domain: DomainVectors) -> None:
    """Say how many of a data set's texts the codes do not tell apart."""
    from recbase_hf.doctor.measures import text_collisions
    from recbase_hf.text.encoder import normalize_rows

    vectors = normalize_rows(domain.vectors[domain.sample])
    codes = tokenizer.encode_items(vectors, mean=tokenizer.catalog_mean(vectors))
    found = text_collisions(codes, domain.sample_texts)
    logger.info(
        "%s: %s of %s different texts share their semantic ID with another text%s%s",
        domain.name, f"{found.num_colliding:,}", f"{found.num_texts:,}",
        "" if tokenizer.collisions == "keep" else f", before {tokenizer.collisions} tells them apart",
        "" if len(codes) == len(domain.vectors) else f" (among {len(codes):,} items drawn; more do among all)",
    )  # fmt: skip


def _doctor(options: TrainTokenizer, folder: Path) -> str:
    """The command that says more about the tokenizer."""
    vectors = [] if options.vectors is None else ["--vectors", options.vectors]
    return shlex.join(["recbase", "doctor", "--items", *options.data, "--model", str(folder), *vectors])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def run(options: TrainTokenizer) -> Answer:
    """Train, and say where the tokenizer is."""
    from recbase_hf.training.launch import make_accelerator

    accelerator = make_accelerator(mixed_precision="no")
    folder = train_tokenizer(options, accelerator)
    accelerator.end_training()
    return Answer(f"tokenizer in {folder}", {"tokenizer": str(folder)})


COMMAND = Command("train-tokenizer", TrainTokenizer, run)
