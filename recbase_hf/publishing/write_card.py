"""Writes the card of what is published: from its template, or an earlier card whose marked parts are written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from recbase_hf.bundle import hash_of_weights
from recbase_hf.errors import PublishingError
from recbase_hf.evaluation.comparison import EvaluatedSet
from recbase_hf.files import atomic_file, read_json, write_json
from recbase_hf.publishing import card_facts
from recbase_hf.publishing.card_text import CardText, is_form, with_part
from recbase_hf.publishing.figures import figures_in_words, model_index, read_receipts, receipt_name
from recbase_hf.publishing.kinds import Kind, kind_of_folder
from recbase_hf.publishing.terms import Source, sources_of

__all__ = ["CardOptions", "completed_card", "receipts_of", "untrained_card", "write_card"]

CARD = "README.md"
ANY_ID = "OWNER/NAME"
TAGS = ["recommendation", "semantic-ids", "recbase"]
_HERE = 'from_pretrained(".")  # this folder, or the repository\'s id'
_OF_PEFT = {"base_model", "library_name", "pipeline_tag", "tags"}
"""Metadata that PEFT writes by itself: of wherever the base lay."""
_LIBRARIES = {"bundle": "transformers", "adapter": "peft", "tokenizer": "recbase-hf", "catalog": "recbase-hf"}


@dataclass(frozen=True)
class CardOptions:
    """What a folder does not say about itself.

    Attributes:
        license: identifier that the Hub knows; what the card has already stays where this is None.
        license_name: of the license `other`.
        license_link: of the license `other`.
        base: Hub id of the bundle that an adapter or a catalog belongs to.
        receipts: files or folders; by default those that lie in the folder's `receipts/`.
        data_licenses: terms of data sets by name, beside those that are known.
        run: folder of the trainer's `speed.jsonl`; by default beside the bundle, where `recbase pretrain` leaves it.
        watts: what all machines of the training together drew.
        hardware: what they were, in words.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base: str | None = None
    receipts: Sequence[str | Path] = ()
    data_licenses: Mapping[str, str] = field(default_factory=dict)
    run: str | Path | None = None
    watts: float | None = None
    hardware: str | None = None


def write_card(
    folder: str | Path,
    *,
    repo_id: str | None = None,
    options: CardOptions | None = None,
    output: str | Path | None = None,
) -> Path:
    """Write the card of a folder, and the receipts that it shows beside it.

    Args:
        folder: a bundle, tokenizer, adapter, catalog or data set.
        repo_id: of the repository that it is meant for.
        options: what the folder does not say.
        output: where to; default the folder's own `README.md`, with the receipts in `receipts/`.

    Raises:
        PublishingError: a receipt is of another model or lacks a figure; figures are given for what was not trained.
    """
    options = options or CardOptions()
    text = completed_card(folder, repo_id=repo_id, options=options)
    path = Path(folder) / CARD if output is None else Path(output)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if output is None:
        for name, receipt in receipts_of(folder, options).items():
            write_json(Path(folder) / name, receipt)
    return path


def completed_card(folder: str | Path, *, repo_id: str | None = None, options: CardOptions | None = None) -> str:
    """The card of a folder as it would be published; nothing is written.

    A card that the folder has keeps what people wrote into it: only its metadata is added to, and the parts between
    marks (`<!-- figures: written by recbase card -->`) are written anew. A form of PEFT's or the Hub's that nobody has
    filled in is replaced.

    Raises:
        PublishingError: as `write_card` has it.
    """
    options = options or CardOptions()
    folder, kind = Path(folder), kind_of_folder(folder)
    card = _card_to_complete(kind, folder, repo_id, options)
    sources = sources_of(folder, {**_stated_terms(card.metadata), **options.data_licenses})
    sets = _receipts(kind, folder, options)
    metadata = _metadata(card.metadata, kind, folder, options, sources)
    body = (
        card.body
        if repo_id is None
        else card.body.replace(_HERE, f'from_pretrained("{repo_id}")').replace(ANY_ID, repo_id)
    )
    if kind.name in ("bundle", "tokenizer", "adapter"):
        body = with_part(body, "sources", "## Training data", _sources_in_words(sources))
    if kind.name == "bundle":
        body = _with_training(body, folder, options, sets)
        metadata.pop("model-index", None)
        if sets:
            name = (repo_id or folder.name).rpartition("/")[2]
            metadata["model-index"] = model_index(name, sets, repo_id=repo_id)
    elif kind.name in ("tokenizer", "adapter"):
        body = with_part(
            body, "reproduction", "## How to reproduce", _reproduction(kind.name, folder, metadata.get("base_model"))
        )
    return str(CardText(metadata, body))


def receipts_of(folder: str | Path, options: CardOptions) -> dict[str, dict[str, Any]]:
    """The receipts behind the figures of a bundle's card, by the name that they get in the repository."""
    sets = _receipts(kind_of_folder(folder), Path(folder), options)
    return {f"receipts/{receipt_name(each)}": each.receipt for each in sets}


def untrained_card(size: str, *, repo_id: str, license: str = "apache-2.0") -> str:
    """The card of a size that nobody has trained: what it is, from its configuration alone, and no figures.

    Args:
        size: a key of `recbase_hf.language_model.MODEL_SIZES`.
        repo_id: of the repository.
        license: of the configuration.

    Raises:
        ValueError: the size is unknown.
    """
    from recbase_hf.language_model import count_parameters, qwen2_config
    from recbase_hf.modeling.token_layout import TokenLayout

    max_items = 255
    config = qwen2_config(size, TokenLayout(num_levels=4, codebook_size=1024), max_items=max_items)
    parameters = count_parameters(config)
    return _rendered(
        "untrained_model_card.md",
        {"license": license, "library_name": "transformers", "tags": [*TAGS, "not-trained"]},
        size=size,
        repo_id=repo_id,
        config=config,
        max_items=max_items,
        parameters=f"{parameters:,}",
        embeddings=f"{config.vocab_size * config.hidden_size:,}",
        gigabytes=f"{2 * parameters / 1e9:.2f}",
    )


# ---- parts -----------------------------------------------------------------------------------------------------------


def _rendered(template: str, metadata: dict[str, Any], **variables: Any) -> str:
    import jinja2
    import yaml

    text = (resources.files("recbase_hf.hub_cards") / template).read_text(encoding="utf-8")
    card_data = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip()
    # A variable that is not there is a mistake of ours, not a gap in a card.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(text).render(card_data=card_data, **variables)


def _card_to_complete(kind: Kind, folder: Path, repo_id: str | None, options: CardOptions) -> CardText:
    """What somebody wrote, or a new card in place of none or a form."""
    path = folder / CARD
    card = CardText.read(path) if path.is_file() else None
    if card is not None and not is_form(card.body):
        return card
    new = CardText.parse(_from_template(kind, folder, repo_id, options))
    stated = {} if card is None else {name: value for name, value in card.metadata.items() if name not in _OF_PEFT}
    return CardText({**stated, **new.metadata}, new.body)


def _from_template(kind: Kind, folder: Path, repo_id: str | None, options: CardOptions) -> str:
    facts = {
        "repo_id": repo_id or ANY_ID,
        "base": options.base or _base_of(folder) or "",
        **card_facts.facts_of(kind, folder),
    }
    if kind.name == "bundle":
        return _bundle_card(folder, facts)
    return _rendered(kind.template, {}, **facts)


def _bundle_card(folder: Path, facts: Mapping[str, Any]) -> str:
    """Of a bundle that came without the card that its trainer writes."""
    from types import SimpleNamespace

    from recbase_hf.language_model import count_parameters

    config = SimpleNamespace(**facts["config"])
    layout = SimpleNamespace(num_levels=facts["levels"], codebook_size=facts["codebook_size"])
    tokenizer = SimpleNamespace(
        layout=layout,
        text_encoder_name=facts["encoder"],
        text_encoder_revision=facts["encoder_revision"],
        fingerprint=facts["fingerprint"],
    )
    return _rendered(
        "model_card.md",
        {},
        parameters=f"{count_parameters(config):,}",
        config=config,
        tokenizer=tokenizer,
        domains=[],
        trained=card_facts.is_trained(folder),
        tuned=card_facts.is_tuned(folder),
        facts={"trained": "yes" if card_facts.is_trained(folder) else "no"},
        losses=[],
        remark=None,
        probes=[],
        versions={},
    )


def _metadata(
    before: Mapping[str, Any], kind: Kind, folder: Path, options: CardOptions, sources: Sequence[Source]
) -> dict[str, Any]:
    """What the card says to machines: what it said, what was asked for, and what the folder tells."""
    metadata = dict(before)
    for name in ("license", "license_name", "license_link"):
        if getattr(options, name) is not None:
            metadata[name] = getattr(options, name)
    if options.license not in (None, "other"):
        for name in ("license_name", "license_link"):
            if getattr(options, name) is None:
                metadata.pop(name, None)
    if kind.name in _LIBRARIES:
        metadata.setdefault("library_name", _LIBRARIES[kind.name])
    metadata["tags"] = list(dict.fromkeys([*_listed(metadata.get("tags")), *TAGS, kind.name.replace(" ", "-")]))
    base = options.base or metadata.get("base_model") or _base_of(folder)
    if kind.name in ("adapter", "catalog") and base:
        metadata["base_model"] = base
    if kind.name == "adapter":
        metadata["base_model_relation"] = "adapter"
    if sources:
        metadata["training_data"] = [{"name": source.name, "license": source.terms} for source in sources]
    if kind.name == "data set":
        metadata["configs"] = [
            {"config_name": table, "data_files": path.name}
            for table in ("items", "interactions", "impressions")
            for path in sorted(folder.glob(f"{table}.*"))
        ]
    return metadata


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _base_of(folder: Path) -> str | None:
    """The Hub id that an adapter names as its base; a local folder is none."""
    config = folder / "adapter_config.json"
    base = read_json(config).get("base_model_name_or_path") if config.is_file() else None
    return (
        base
        if base and base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).exists()
        else None
    )


def _stated_terms(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What the card says of its training data."""
    entries = metadata.get("training_data") or []
    return {
        str(entry["name"]): str(entry["license"])
        for entry in entries
        if isinstance(entry, dict) and entry.get("license")
    }


def _receipts(kind: Kind, folder: Path, options: CardOptions) -> list[EvaluatedSet]:
    places = list(options.receipts) or ([folder / "receipts"] if (folder / "receipts").is_dir() else [])
    if not places:
        return []
    if kind.name != "bundle":
        raise PublishingError(f"{folder} is a {kind.name}; only bundles have receipts: leave --receipts out")
    if not card_facts.is_trained(folder):
        raise PublishingError(
            f"nothing says that the weights of {folder} were trained (training.json is missing, or tells of no "
            "training), and a checkpoint that was not trained shows no figures: leave --receipts out, or publish the "
            "folder that the training left"
        )
    return read_receipts(places, fingerprint=card_facts.fingerprint_of(folder) or "", weights=hash_of_weights(folder))


def _with_training(body: str, folder: Path, options: CardOptions, sets: Sequence[EvaluatedSet]) -> str:
    if not card_facts.is_trained(folder):
        figures = "No figures: how these weights came about is not recorded, and what was not trained has none."
    elif sets:
        figures = figures_in_words(sets)
    else:
        figures = "No figures yet: nobody has evaluated these weights. `recbase evaluate` does."
    body = with_part(body, "figures", "## Figures", figures)
    run = None if options.run is None else Path(options.run)
    spent = card_facts.training_time(folder, run, watts=options.watts, hardware=options.hardware)
    body = with_part(body, "energy", "## Energy and time", spent)
    return with_part(body, "reproduction", "## How to reproduce", _reproduction("bundle", folder, options.base))


def _sources_in_words(sources: Sequence[Source]) -> str:
    if not sources:
        return "What this was trained on is not recorded."
    rows = "\n".join(f"| {source.name} | {source.used_for} | {source.terms} |" for source in sources)
    return f"| data set | used for | terms |\n|---|---|---|\n{rows}"


_COMMANDS = {
    "bundle": "accelerate launch examples/pretrain.py",
    "tokenizer": "accelerate launch examples/train_tokenizer.py",
    "adapter": "accelerate launch examples/finetune_lora.py",
}


def _reproduction(kind: str, folder: Path, base: str | None) -> str:
    path = folder / "training.json"
    if not path.is_file():
        return "How this was made is not recorded."
    record, base = read_json(path), base or "BASE"
    if "extended" in record:
        return _how_extended(record["extended"], base)
    merging = f"recbase merge --model {base} --adapter {{adapter}} --output merged"
    if record.get("merged") and not record.get("base"):
        return f"```bash\n{merging.format(adapter='ADAPTER')}\n```\n\nHow the adapter was made is not recorded."
    settings = record.get("settings", {})
    data, command = " ".join(settings.get("data") or {}) or "DATA", _COMMANDS[kind]
    if record.get("base"):
        command = f"{_COMMANDS['adapter']} --model {base}"
        data = " ".join(name for name in data.split() if name not in (settings.get("base_data") or {})) or data
    commands = f"{command} --config settings.yaml --data {data}"
    if record.get("merged"):
        commands += f" --output finetuned\n{merging.format(adapter='finetuned/adapter')}"
    return (
        f"With these settings as `settings.yaml` and the data sets prepared in folders of these names:\n\n"
        f"```bash\n{commands}\n```\n\n"
        f"```yaml\n{card_facts.quoted_settings(settings)}\n```"
    )


def _how_extended(facts: Mapping[str, Any], base: str) -> str:
    data = " ".join(facts.get("data") or ["DATA"])
    vectors = f" --vectors {facts['vectors']}" if facts.get("vectors") else ""
    levels = " ".join(map(str, facts["levels"]))
    return (
        "From the bundle before, whose own card says how it was trained, and the items of data sets prepared in "
        "folders of these names:\n\n"
        f"```bash\nrecbase extend --model {base} --data {data}{vectors} --levels {levels} "
        f"--inertia {facts['inertia']:g} --output extended\n```"
    )
