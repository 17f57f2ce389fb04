"""`recbase extend`: a bundle to one whose tokenizer has deeper codes refitted to a far domain."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import resolve_folder, settings_of_training, vectors_for
from recbase_hf.config import option
from recbase_hf.data.domain import DomainVectors, load_domain_vectors
from recbase_hf.files import require_writable
from recbase_hf.publishing.card_facts import is_trained

if TYPE_CHECKING:
    from recbase_hf.finetuning.extension import ExtensionReport

__all__ = ["COMMAND", "Extend", "extend"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extend:
    """Refit deeper codes of a bundle's tokenizer on items of a far domain; the language model keeps its weights.

    What comes of it is meant to be fine-tuned, with the rows of these levels: recbase finetune --train-rows level-3
    level-4. Catalogs and adapters of the old bundle do not fit it; recbase catalog migrate makes catalogs fit.
    """

    model: str = option(help="bundle: a folder or a Hub id")
    data: tuple[str, ...] = option(help="folders with items.*; interactions are not needed")
    output: str = option(help="folder for the extended bundle")
    levels: tuple[int, ...] = option((), help="which levels, from 1; default the second half")
    inertia: float = option(10.0, help="how many items a code counts as where it was: higher keeps more of its meaning")
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")


def extend(options: Extend) -> tuple[ExtensionReport, tuple[int, ...]]:
    """Extend and save; returns what it did, and to which levels.

    Raises:
        DataError: a table or vectors cannot be used.
        FileExistsError: the folder holds something.
        ValueError: the quantizer cannot be refitted so.
    """
    from recbase_hf.bundle import load_bundle, save_bundle
    from recbase_hf.finetuning.extension import extend_tokenizer

    folder = Path(options.output)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something already; name another --output, or delete it")
    require_writable(folder)
    model, tokenizer = load_bundle(options.model, device="cpu")
    levels = options.levels or _second_half(tokenizer.quantizer.config.num_levels)
    source = vectors_for(tokenizer, options.vectors, trust_remote_code=options.trust_remote_code)
    domains = [load_domain_vectors(resolve_folder(data), source) for data in options.data]
    vectors = {domain.name: np.asarray(domain.vectors, dtype=np.float32) for domain in domains}
    extended, report = extend_tokenizer(tokenizer, vectors, levels, inertia=options.inertia)
    model.config.recbase = None  # of the old tokenizer; saving writes that of the new one
    facts = {
        "data": [domain.name for domain in domains],
        "vectors": options.vectors,
        "levels": list(levels),
        "inertia": options.inertia,
        "from": tokenizer.fingerprint,
        **asdict(report),
    }
    save_bundle(folder, model, extended, record=_record(options.model, extended.fingerprint, domains, facts))
    return report, tuple(levels)


def _second_half(count: int) -> tuple[int, ...]:
    return tuple(range(count // 2 + 1, count + 1))


def _record(model: str, fingerprint: str, domains: Sequence[DomainVectors], facts: dict[str, Any]) -> dict[str, Any]:
    """How the bundle came about: its weights as before, its tokenizer fitted on more items."""
    settings = settings_of_training(model)
    settings["tokenizer"] = fingerprint
    for name, hashes in (
        ("tokenizer_data", {domain.name: domain.hash for domain in domains}),
        ("tokenizer_items", {domain.name: domain.items_hash for domain in domains}),
    ):
        settings[name] = {**(settings.get(name) or {}), **hashes}
    return {"settings": settings, "base_trained": is_trained(model), "extended": facts}


def run(options: Extend) -> Answer:
    """Extend, and say what it did."""
    report, levels = extend(options)
    rows = " ".join(f"level-{level}" for level in levels)
    text = f"{report}\nbundle in {options.output}; next: recbase finetune --model {options.output} --train-rows {rows}"
    return Answer(text, {"bundle": options.output, "levels": list(levels), **report.to_json()})


COMMAND = Command("extend", Extend, run)
