"""`recbase finetune`: a bundle and the data of one shop to an adapter, or to another bundle."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbase_hf.adapters import Base
from recbase_hf.bundle import located
from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import (
    data_of_training,
    require_same_settings,
    resolve_folder,
    settings_of_training,
    vectors_for,
)
from recbase_hf.config import option, part_of
from recbase_hf.data.domain import ItemVectors
from recbase_hf.files import read_json, require_writable
from recbase_hf.finetuning.settings import FineTuning, UserSplit
from recbase_hf.publishing.card_facts import is_trained

if TYPE_CHECKING:
    from recbase_hf.finetuning.data import TuningData
    from recbase_hf.training.probe import Probe

__all__ = ["COMMAND", "FineTune", "finetune"]

logger = logging.getLogger(__name__)

FEW_JUDGES = 50
"""Held-out users whose GAUC, against a few negatives each, has a standard error of some 0.05."""

_NOT_SETTINGS = ("output", "data", "model", "trackers", "probe_data", "probe_every", "peak_tflops")


@dataclass(frozen=True, kw_only=True)
class FineTune(FineTuning, UserSplit):
    """Fine-tune a bundle on the data of one shop: an adapter (LoRA, or embedding rows), or all of its weights."""

    model: str = option(help="the base: a bundle, folder or Hub id")
    data: tuple[str, ...] = option(
        help="folders with items.* and interactions.*, and maybe impressions.*, or python-api/packages"
    )
    output: str = option(
        "runs/finetuned", help="folder; what is made comes into its sub-folder adapter, or model after full fine-tuning"
    )
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    mixed_precision: str = option(
        "auto", help="auto is bf16 on a GPU that has it", choices=("auto", "no", "bf16", "fp16")
    )
    trackers: tuple[str, ...] = option((), help="Accelerate's trackers: tensorboard, wandb, trackio, ...")


def finetune(options: FineTune, accelerator: Any) -> Path:
    """Fine-tune and save; returns the folder. What was made before by the same settings is kept.

    Raises:
        DataError: a data set cannot be used.
        ImportError: peft or bitsandbytes is needed and missing.
        ValueError: the folder holds something made with other settings, or a setting does not fit the base.
    """
    import torch

    from recbase_hf.adapters import require_peft
    from recbase_hf.bundle import hash_of_weights, load_bundle
    from recbase_hf.finetuning.adapters import save_adapter
    from recbase_hf.finetuning.data import load_tuning_data
    from recbase_hf.finetuning.four_bits import four_bit_weights, keep_trainable
    from recbase_hf.finetuning.run import fine_tune, kept_entry

    is_full = options.method == "full"
    if not is_full:
        require_peft()
    quantization = four_bit_weights() if options.four_bit else None
    if accelerator.is_main_process:
        require_writable(options.output)
    with accelerator.main_process_first():
        model, tokenizer = load_bundle(
            options.model, dtype=torch.float32, device=str(accelerator.device), quantization=quantization
        )
    if options.four_bit:
        keep_trainable(model)
    base = Base(_name_of(options.model), tokenizer.fingerprint, hash_of_weights(options.model))
    base_trained = is_trained(options.model)
    source = vectors_for(tokenizer, options.vectors, trust_remote_code=options.trust_remote_code)
    tuning, context = part_of(options, FineTuning), model.config.max_position_embeddings
    with accelerator.main_process_first():  # the first fills the cache of vectors
        data = load_tuning_data(
            [resolve_folder(folder) for folder in options.data],
            tokenizer,
            source,
            tuning,
            part_of(options, UserSplit),
            context=(context - 1) // tokenizer.layout.num_levels,
        )
    folder = Path(options.output) / ("model" if is_full else "adapter")
    settings = _settings(options, data, base, is_full=is_full)
    if require_same_settings(folder, settings, what="bundle" if is_full else "adapter"):
        logger.info("%s is there already, made with these settings", folder)
        return folder
    probes = _probes(options, tokenizer, source, data, accelerator)
    if options.trackers:
        accelerator.init_trackers("recbase", config={key: str(value) for key, value in settings.items()})
    learning, judging = sum(data.users.values()), sum(map(len, data.judges))
    logger.info("%s users to learn from in %s rows, %s to judge by", f"{learning:,}", f"{len(data.train):,}", judging)
    if judging < FEW_JUDGES:
        logger.warning(
            "%d held-out users say little about when to stop; hold out more (--validation-share), or stop by yourself "
            "(--patience 0 and --epochs)",
            judging,
        )
    work = Path(options.output) / "training" / folder.name
    tuned = fine_tune(model, data, tuning, base=base, accelerator=accelerator, folder=work, probes=probes)
    if accelerator.is_main_process:
        record = {
            "settings": settings,
            "base_trained": base_trained,
            "trained_parameters": tuned.trained,
            "trained_targets": kept_entry(tuned.log, tuning)["trained_targets"],
            "clicks": tuned.clicks,
            "log": tuned.log,
        }
        if is_full:
            _save_bundle(folder, tuned.model.config, tuned.weights, tokenizer, {"base": base.recorded(), **record})
        else:
            save_adapter(folder, tuned.wrapped, tuned.weights, base=base, record=record)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return folder


def _name_of(model: str) -> str:
    """What an adapter calls its base: a Hub id as it is, a folder so that it is found from anywhere."""
    folder = Path(located(model))
    return str(folder.resolve()) if folder.is_dir() else model


def _settings(options: FineTune, data: TuningData, base: Base, *, is_full: bool) -> dict[str, Any]:
    """What is recorded, and compared when the same command is given again."""
    settings = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(options).items()
        if key not in _NOT_SETTINGS
    }
    before = settings_of_training(options.model)
    known = {name: dict(before.get(name) or {}) for name in ("data", "items", "tokenizer_data", "tokenizer_items")}
    settings |= {
        "base": {"fingerprint": base.fingerprint, "weights": base.weights},
        "tokenizer": base.fingerprint,
        "max_items": data.max_items,
        "rows": [data.train.hash, data.validation.hash],
        "base_data": known["data"],
        "tokenizer_data": known["tokenizer_data"],
        "tokenizer_items": known["tokenizer_items"],
        # A bundle says all that its weights have learned from, an adapter what it adds.
        "data": {**known["data"], **data.data} if is_full else data.data,
        "items": {**known["items"], **data.items} if is_full else data.items,
    }
    return settings


def _probes(options: FineTune, tokenizer: Any, source: ItemVectors, data: TuningData, accelerator: Any) -> list[Probe]:
    from recbase_hf.training.probe import load_probes

    if not options.probe_data:
        return []
    with accelerator.main_process_first():
        folders = [resolve_folder(folder) for folder in options.probe_data]
        trained_on = {**data_of_training(options.model), **data.data}
        return load_probes(folders, tokenizer, source, trained_on=trained_on, seed=options.seed)


def _save_bundle(folder: Path, config: Any, weights: dict[str, Any], tokenizer: Any, record: dict[str, Any]) -> None:
    from recbase_hf.bundle import save_bundle
    from recbase_hf.language_model import new_language_model

    model = new_language_model(config, seed=0)
    model.load_state_dict(weights)
    save_bundle(folder, model, tokenizer, record=record)


def run(options: FineTune) -> Answer:
    """Fine-tune, and say what it has brought and where the result is."""
    from recbase_hf.finetuning.run import gauc_in_words, kept_entry
    from recbase_hf.training.launch import launched

    with launched(options) as accelerator:
        folder = finetune(options, accelerator)
    record = read_json(folder / "training.json")
    text = f"{gauc_in_words(record['log'], options)}\n{'bundle' if options.method == 'full' else 'adapter'} in {folder}"
    content = {"folder": str(folder), "before": record["log"][0], "kept": kept_entry(record["log"], options)}
    return Answer(text, content)


COMMAND = Command("finetune", FineTune, run)
