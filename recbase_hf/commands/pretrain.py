"""`recbase pretrain`: histories of some data sets to a bundle of language model and tokenizer."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import (
    DataOptions,
    data_of_training,
    items_of_training,
    require_same_settings,
    resolve_folder,
    vectors_for,
)
from recbase_hf.commands.train_tokenizer import TrainTokenizer, train_tokenizer
from recbase_hf.config import option, part_of
from recbase_hf.files import read_json, require_writable
from recbase_hf.language_model import MODEL_SIZES
from recbase_hf.quantizers.training import QuantizerTraining
from recbase_hf.shards.pack import Packing, pack_domains
from recbase_hf.shards.token_shards import TokenShards, files_of
from recbase_hf.share import Share
from recbase_hf.training.settings import Pretraining

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.training.probe import Probe

__all__ = ["COMMAND", "Pretrain", "pretrain"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrain(Pretraining, Packing, DataOptions):
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
    embeddings: str = option(
        "geometry",
        help="where the embeddings of codes start: geometry is where their code vectors lie, so that near codes are "
        "alike; random knows nothing of them",
        choices=("geometry", "random"),
    )
    shards: str | None = option(
        None, help="token shards that recbase data pack left, instead of packing --data (whose options they have)"
    )
    mixed_precision: str = option(
        "auto", help="auto is bf16 on a GPU that has it", choices=("auto", "no", "bf16", "fp16")
    )
    save_dtype: str = option("float32", help="of the weights in the bundle", choices=("float32", "bfloat16", "float16"))
    trackers: tuple[str, ...] = option((), help="Accelerate's trackers: tensorboard, wandb, trackio, ...")


def pretrain(options: Pretrain, accelerator: Any) -> Path:
    """Train and save; returns the bundle's folder. A bundle made before by the same settings is kept."""
    import torch

    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.bundle import located, require_folder_if_path, save_bundle
    from recbase_hf.language_model import new_language_model, qwen2_config, start_from_code_vectors
    from recbase_hf.quantizers.geometry import code_vectors
    from recbase_hf.training.card import kept_entry, overfitting_remark, training_card
    from recbase_hf.training.checkpoints import whole_weights
    from recbase_hf.training.pretrain import train_language_model

    if accelerator.is_main_process:
        require_writable(options.output)
    if options.tokenizer is not None:
        options = replace(options, tokenizer=str(located(options.tokenizer)))
        require_folder_if_path(str(options.tokenizer))
    if options.shards is not None:
        _require_shards_alone(options)
    tokenizer_folder = options.tokenizer or _own_tokenizer(options, accelerator)
    tokenizer = RecBaseTokenizer.from_pretrained(tokenizer_folder)
    shards = _shards(options, tokenizer, accelerator)
    packing = shards.facts["settings"]["packing"]
    folder = Path(options.output) / "model"
    not_settings = ("output", "data", "shards", "tokenizer", "trackers", "probe_data", "probe_every", "peak_tflops")
    settings = {key: value for key, value in asdict(options).items() if key not in not_settings}
    settings["level_weights"] = list(options.level_weights)
    settings.update({name: value for name, value in packing.items() if name != "seed"})
    settings.update(data=shards.facts["settings"]["data"], tokenizer=tokenizer.fingerprint)
    settings["rows"] = [shards.train.hash, shards.validation.hash]
    settings["items"] = shards.facts["settings"]["items"]
    settings["tokenizer_data"] = data_of_training(tokenizer_folder)
    settings["tokenizer_items"] = items_of_training(tokenizer_folder)
    if require_same_settings(folder, settings, what="model"):
        logger.info("%s is there already, made with these settings", folder)
        return folder

    probes = _probes(options, tokenizer, shards, accelerator)
    domains = shards.facts["domains"]
    targets = sum(file["targets"] for domain in domains.values() for file in files_of(domain, "train"))
    targets //= packing.get("passes", 1)  # those of an epoch
    tokens = sum(file["tokens"] for domain in domains.values() for file in files_of(domain, "train"))
    config = qwen2_config(options.size, shards.layout, max_items=packing["max_items"])
    model = new_language_model(config, seed=options.seed)
    if options.embeddings == "geometry":
        start_from_code_vectors(model, shards.layout, code_vectors(tokenizer.quantizer), seed=options.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info(
        "%s parameters, %s training tokens an epoch in %s rows (%.1f%% of positions used)",
        f"{parameters:,}", f"{targets:,}", f"{shards.train.an_epoch:,}",
        100 * tokens / (packing["row_length"] * len(shards.train)),
    )  # fmt: skip
    if options.trackers:
        accelerator.init_trackers("recbase", config={key: str(value) for key, value in settings.items()})
    work = Path(options.output) / "training" / "model"
    log = train_language_model(
        model,
        shards.train,
        shards.validation,
        part_of(options, Pretraining),
        accelerator=accelerator,
        folder=work,
        probes=probes,
    )
    weights = whole_weights(model)
    if accelerator.is_main_process:
        model = new_language_model(config, seed=options.seed)
        model.load_state_dict(weights)
        model.to(getattr(torch, options.save_dtype))
        if remark := overfitting_remark(log, patience=options.patience):
            logger.warning(remark)
        card = training_card(
            model,
            tokenizer,
            shards=shards.facts,
            options=settings,
            log=log,
            targets=targets,
            folder=work,
            hardware=_hardware(accelerator),
        )
        record = {"settings": settings, "parameters": parameters, "targets": targets, "log": log}
        record["trained_targets"] = kept_entry(log, settings)["trained_targets"]
        save_bundle(folder, model, tokenizer, card=card, record=record)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return folder


def _hardware(accelerator: Any) -> str:
    """What the run was on, in words."""
    import torch

    kind = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type.upper()
    return f"{accelerator.num_processes} x {kind}"


def _require_shards_alone(options: Pretrain) -> None:
    """Check that the shards are there, that their tokenizer is named, and that no other data is.

    Raises:
        ValueError: it is not so.
    """
    TokenShards.open(str(options.shards))
    if options.tokenizer is None and not (Path(options.output) / "tokenizer" / "tokenizer_config.json").exists():
        raise ValueError("--shards needs the tokenizer that they were made with: --tokenizer FOLDER")
    for name in ("data", "vectors", *(field.name for field in fields(Packing) if field.name != "seed")):
        if getattr(options, name) != getattr(Pretrain, name):
            raise ValueError(f"--shards are packed already; leave out --{name.replace('_', '-')}, which they settle")


def _shards(options: Pretrain, tokenizer: RecBaseTokenizer, accelerator: Any) -> TokenShards:
    """Those that were named, else `OUTPUT/shards`, packed where they are missing."""
    if options.shards is not None:
        return TokenShards.open(options.shards, tokenizer=tokenizer)
    with accelerator.main_process_first():
        folders = [resolve_folder(data) for data in options.data]
    return pack_domains(
        folders,
        tokenizer,
        vectors_for(tokenizer, options.vectors, trust_remote_code=options.trust_remote_code),
        Path(options.output) / "shards",
        part_of(options, Packing),
        share=Share.of(accelerator),
    )


def _probes(options: Pretrain, tokenizer: RecBaseTokenizer, shards: TokenShards, accelerator: Any) -> list[Probe]:
    """What is measured on the way; the first process fills the cache of vectors."""
    from recbase_hf.training.probe import load_probes

    if not options.probe_data:
        return []
    with accelerator.main_process_first():
        return load_probes(
            [resolve_folder(data) for data in options.probe_data],
            tokenizer,
            vectors_for(tokenizer, options.vectors, trust_remote_code=options.trust_remote_code),
            trained_on=shards.facts["settings"]["data"],
            seed=options.seed,
        )


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


def run(options: Pretrain) -> Answer:
    """Train, and say where the bundle is."""
    from recbase_hf.training.launch import launched

    with launched(options) as accelerator:
        folder = pretrain(options, accelerator)
    content = {"bundle": str(folder), "last": read_json(folder / "training.json")["log"][-1]}
    return Answer(f"bundle in {folder}", content)


COMMAND = Command("pretrain", Pretrain, run)
