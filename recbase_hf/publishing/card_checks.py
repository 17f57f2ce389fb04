"""What a card must say before it is published: license, filled fields, figures, terms of the training data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recbase_hf.files import read_json
from recbase_hf.publishing.card_facts import is_trained
from recbase_hf.publishing.card_text import CardText
from recbase_hf.publishing.kinds import Kind
from recbase_hf.publishing.refusals import Refusal
from recbase_hf.publishing.terms import UNKNOWN, is_license, is_permissive, nearest_license, sources_of

__all__ = ["card_refusals"]

CARD = "README.md"
_PLACEHOLDER = re.compile(
    r"\[More Information Needed\]|\b(?:TODO|TBD|FIXME|XXX)\b|\bOWNER/NAME\b|lorem ipsum|\{\{ .*? \}\}|\{% .*? %\}"
    r"|<(?:your|fill|insert)[^>]*>|\[(?:your|fill in|insert)[^\]]*\]"
)
_MISSING = {"nan", "none", "null", "undefined", "?", "??", "???"}
_NO_REDISTRIBUTION = re.compile(r"no redistribution|must not be passed on|redistribution by permission", re.IGNORECASE)


def card_refusals(kind: Kind, folder: str | Path, text: str) -> list[Refusal]:
    """All that is against a card.

    Args:
        kind: of the folder.
        folder: what is published.
        text: the card as it would be published.
    """
    card = CardText.parse(text)
    checks = (
        _license(card.metadata),
        _placeholders(text),
        _missing_figures(card.metadata, text),
        _base(kind, card.metadata),
        _terms(kind, Path(folder), card.metadata),
        _untrained(kind, Path(folder), card.metadata),
    )
    return [refusal for check in checks for refusal in check]


def _license(metadata: Mapping[str, Any]) -> Iterator[Refusal]:
    license = metadata.get("license")
    if not license:
        yield Refusal(
            CARD,
            "missing",
            "say how this may be used: --license apache-2.0, cc-by-nc-4.0, ...",
            "field license",
        )
    elif not is_license(str(license)):
        near = nearest_license(str(license))
        meant = f", perhaps {near}" if near else ""
        yield Refusal(
            CARD,
            f"{license!r} is no license that the Hub knows",
            f"give its identifier{meant}; or `other`, with --license-name and --license-link",
            "field license",
        )
    elif license == "other":
        for name in ("license_name", "license_link"):
            if not metadata.get(name):
                yield Refusal(
                    CARD, "missing", f"the license `other` needs it: --{name.replace('_', '-')}", f"field {name}"
                )


def _placeholders(text: str) -> Iterator[Refusal]:
    for number, line in enumerate(text.splitlines(), start=1):
        found = _PLACEHOLDER.search(line)
        if found:
            yield Refusal(CARD, f"{found[0]} is not filled in", "fill it in, or take it out", f"line {number}")


def _missing_figures(metadata: Mapping[str, Any], text: str) -> Iterator[Refusal]:
    fix = "evaluate again and give the receipts (--receipts), or take the row out"
    for number, line in enumerate(text.splitlines(), start=1):
        cells = [cell.strip(" *`").lower() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and any(cell in _MISSING for cell in cells[1:]):
            yield Refusal(CARD, f"a figure is missing in {line.strip()!r}", fix, f"line {number}")
    for model in metadata.get("model-index") or []:
        for result in model.get("results") or []:
            for metric in result.get("metrics") or []:
                value = metric.get("value")
                if not isinstance(value, int | float) or not math.isfinite(value):
                    of = (result.get("dataset") or {}).get("name")
                    yield Refusal(CARD, f"the figure {metric.get('type')} of {of} is missing", fix, "field model-index")


def _base(kind: Kind, metadata: Mapping[str, Any]) -> Iterator[Refusal]:
    if kind.name in ("adapter", "catalog") and not metadata.get("base_model"):
        yield Refusal(
            CARD,
            "missing",
            f"name the bundle that the {kind.name} belongs to: --base OWNER/NAME",
            "field base_model",
        )


def _terms(kind: Kind, folder: Path, metadata: Mapping[str, Any]) -> Iterator[Refusal]:
    license = str(metadata.get("license"))
    if kind.name == "data set":
        yield from _terms_of_data_set(folder, license)
    elif kind.name in ("bundle", "tokenizer", "adapter") and is_permissive(license):
        stated = {entry["name"]: entry["license"] for entry in metadata.get("training_data") or []}
        sources = sources_of(folder, stated)
        if not sources and (kind.name != "bundle" or is_trained(folder)):
            yield Refusal(
                "training.json",
                f"what the {kind.name} was trained on is not recorded, which the license {license} would need",
                "publish the folder that the training left, or choose a license that is not permissive",
            )
        for source in sources:
            if not source.is_permissive:
                yield Refusal(
                    "training.json",
                    f"{source.name} ({source.used_for}) was given out under terms that are "
                    f"{'not known' if source.terms == UNKNOWN else f'not permissive ({source.terms})'}, the license "
                    f"{license} is",
                    f"choose a license such as cc-by-nc-4.0, train without it, or state its license if you know it: "
                    f"--data-licenses {source.name}=LICENSE (`own` for your own data)",
                    f"data set {source.name}",
                )


def _terms_of_data_set(folder: Path, license: str) -> Iterator[Refusal]:
    record = read_json(folder / "dataset.json") if (folder / "dataset.json").is_file() else {}
    terms = str(record.get("license", "own"))
    if _NO_REDISTRIBUTION.search(terms):
        yield Refusal(
            "dataset.json",
            f"its terms forbid that it is passed on ({terms})",
            "say how to prepare it instead",
            "field license",
        )
    elif is_permissive(license) and not is_permissive(terms):
        yield Refusal(
            "dataset.json",
            f"its terms are not permissive ({terms}), the license {license} is",
            "choose a license that the source allows",
            "field license",
        )


def _untrained(kind: Kind, folder: Path, metadata: Mapping[str, Any]) -> Iterator[Refusal]:
    if kind.name == "bundle" and metadata.get("model-index") and not is_trained(folder):
        yield Refusal(
            CARD,
            "figures of weights that nothing says were trained",
            "take them out",
            "field model-index",
        )
