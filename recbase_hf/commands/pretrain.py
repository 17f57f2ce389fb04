"""`recbase pretrain`: histories of some data sets to a bundle of language model and tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbase_hf.commands.options import (
    HistoryOptions,
    data_of_training,
    load_domains,
    log_to_terminal,
    require_same_settings,
)
from recbase_hf.commands.train_tokenizer import TrainTokenizer, train_tokenizer
from recbase_hf.config import option, parse_arguments, part_of
from recbase_hf.data.domain import ItemVectors
from recbase_hf.language_model import MODEL_SIZES
from recbase_hf.quantizers.training import QuantizerTraining
from recbase_hf.text.template import ItemTemplate
from recbase_hf.training.pretrain import Pretraining, train_language_model
from recbase_hf.training.rows import training_rows

__all__ = ["Pretrain", "main", "pretrain"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrain(Pretraining, HistoryOptions):
    """Pretrain the language model on histories of semantic IDs. Without flags: on the embedded data set."""

    output: str = option("runs/recbase", help="folder; the bundle comes into its sub-folder `model`")
    tokenizer: str | None = option(
        None, help="tokenizer folder or Hub id; default OUTPUT/tokenizer, trained if missing"
    )
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )
    size: str = option("tiny", help="size of the model", choices=tuple(MODEL_SIZES))
    row_length: int = option(512, help="tokens a packed row")
    max_items: int = option(100, help="items a training window, and the context of the model")
    max_users: int = option(
        0, help="users of each data set, drawn at random, so that none drowns the others; 0 takes all"
    )
    validation_share: float = option(0.05, help="of the users, held out for the validation loss")
    mixed_precision: str = option(
        "auto", help="auto is bf16 on a GPU that has it", choices=("auto", "no", "bf16", "fp16")
    )
    trackers: tuple[str, ...] = option((), help="Accelerate's trackers: tensorboard, wandb, trackio, ...")


def pretrain(options: Pretrain, accelerator: Any) -> Path:
    """Train and save; returns the bundle's folder. A bundle made before by the same settings is kept."""
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.bundle import require_folder_if_path, save_bundle
    from recbase_hf.language_model import new_language_model, qwen2_config
    from recbase_hf.training.card import training_card

    if options.tokenizer is not None:
        require_folder_if_path(options.tokenizer)
    tokenizer_folder = options.tokenizer or _own_tokenizer(options, accelerator)
    tokenizer = RecBaseTokenizer.from_pretrained(tokenizer_folder)
    template = ItemTemplate.from_dict(tokenizer.item_template or {})
    source = ItemVectors(
        encoder=tokenizer.text_encoder_name,
        revision=tokenizer.text_encoder_revision,
        template=template,
        precomputed=options.vectors,
        trust_remote_code=options.trust_remote_code,
    )
    with accelerator.main_process_first():
        domains = load_domains(options, source, seed=options.seed)
    folder = Path(options.output) / "model"
    not_settings = ("output", "data", "tokenizer", "trackers")
    settings = {key: value for key, value in asdict(options).items() if key not in not_settings}
    settings.update(data={domain.name: domain.hash for domain in domains}, tokenizer=tokenizer.fingerprint)
    settings["tokenizer_data"] = data_of_training(tokenizer_folder)
    if require_same_settings(folder, settings, what="model"):
        logger.info("%s is there already, made with these settings", folder)
        return folder

    layout = tokenizer.layout
    train, validation = training_rows(
        domains,
        tokenizer,
        row_length=options.row_length,
        max_items=options.max_items,
        max_users=options.max_users,
        validation_share=options.validation_share,
        seed=options.seed,
    )
    config = qwen2_config(options.size, layout, max_items=options.max_items)
    model = new_language_model(config, seed=options.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info(
        "%s parameters, %s training tokens in %s rows (%.1f%% of positions used)",
        f"{parameters:,}", f"{train.num_targets:,}", f"{len(train):,}", 100 * train.efficiency,
    )  # fmt: skip
    if options.trackers:
        accelerator.init_trackers("recbase", config={key: str(value) for key, value in settings.items()})
    log = train_language_model(
        model,
        train,
        validation,
        layout,
        part_of(options, Pretraining),
        accelerator=accelerator,
        folder=Path(options.output) / "training" / "model",
    )
    if accelerator.is_main_process:
        model = accelerator.unwrap_model(model).to("cpu")
        card = training_card(model, tokenizer, domains=domains, options=settings, log=log, targets=train.num_targets)
        record = {"settings": settings, "parameters": parameters, "targets": train.num_targets, "log": log}
        save_bundle(folder, model, tokenizer, card=card, record=record)
        logger.info("model in %s", folder)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return folder


def _own_tokenizer(options: Pretrain, accelerator: Any) -> Path:
    from recbase_hf.quantizers.batches import GROUP_SIZE  # late, because it imports torch

    folder = Path(options.output) / "tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        logger.info("%s is missing: training a tokenizer on the same data first", folder)
        train_tokenizer(
            TrainTokenizer(
                data=options.data,
                vectors=options.vectors,
                trust_remote_code=options.trust_remote_code,
                output=options.output,
                seed=options.seed,
                batch_size=max(QuantizerTraining.batch_size, GROUP_SIZE * accelerator.num_processes),
            ),
            accelerator,
        )
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    options = parse_arguments(Pretrain, arguments, program="recbase pretrain", description=Pretrain.__doc__ or "")
    log_to_terminal()
    from recbase_hf.training.launch import make_accelerator

    accelerator = make_accelerator(
        gradient_accumulation=options.gradient_accumulation,
        mixed_precision=options.mixed_precision,
        trackers=options.trackers,
        folder=options.output,
    )
    pretrain(options, accelerator)
