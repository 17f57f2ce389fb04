"""Licenses: which the Hub knows, which are permissive, and on what terms training data was given out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbase_hf.files import read_json

__all__ = ["Source", "is_license", "is_permissive", "known_terms", "nearest_license", "sources_of"]

_PERMISSIVE = """
afl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc0-1.0 cc-by-2.0
cc-by-2.5 cc-by-3.0 cc-by-4.0 cdla-permissive-1.0 cdla-permissive-2.0 ecl-2.0 isc mit ms-pl ncsa odc-by
openmdw-1.0 openrail bigscience-openrail-m bigcode-openrail-m creativeml-openrail-m openrail++ pddl postgresql
unlicense wtfpl zlib
"""
_OTHERS = """
agpl-3.0 apple-amlr apple-ascl bigscience-bloom-rail-1.0 c-uda cc cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cdla-sharing-1.0 deepfloyd-if-license epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research intel-research
lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mpl-2.0 odbl ofl-1.1
osl-3.0 unknown other
"""
PERMISSIVE, OTHER_LICENSES = frozenset(_PERMISSIVE.split()), frozenset(_OTHERS.split())
"""Those that the Hub knows. Under the first, anybody may use a model in commerce and pass it on."""
OWN = "own"
"""The terms of data that belongs to whoever publishes."""
UNKNOWN = "not known"
EMBEDDED = {
    "stdlib": "psf-2.0",
    "packages": "names and first docstring lines of installed packages, each under its own license",
}
"""Terms of the data sets that recbase-hf makes of installed Python code."""


@dataclass(frozen=True)
class Source:
    """A data set that something was trained on.

    Attributes:
        name: of its folder, or of its items.
        used_for: `model`, `tokenizer`, ... as the card says it.
        terms: its license, or the terms in words.
    """

    name: str
    used_for: str
    terms: str

    @property
    def is_permissive(self) -> bool:
        """Whether what was trained on it may go under a permissive license."""
        return is_permissive(self.terms)


def is_license(name: str) -> bool:
    """Whether the Hub knows a license of that name."""
    return name in PERMISSIVE or name in OTHER_LICENSES


def nearest_license(name: str) -> str | None:
    """The name that was perhaps meant.

    >>> nearest_license("Apache 2.0")
    'apache-2.0'
    """
    near = difflib.get_close_matches(name.lower().replace(" ", "-"), PERMISSIVE | OTHER_LICENSES, n=1)
    return near[0] if near else None


def is_permissive(terms: str) -> bool:
    """Whether these are terms under which anybody may use and pass on; what is not known to be so, is not.

    >>> [is_permissive(terms) for terms in ("CC0-1.0", "own", "research use", "not known")]
    [True, True, False, False]
    """
    return terms.strip().lower() in PERMISSIVE | {OWN, "psf-2.0"}


def known_terms(name: str) -> str:
    """The terms of a data set by its name, as far as `recbase data list` and this module know them."""
    from recbase_hf.data.prepare.registry import DATA_SETS

    return DATA_SETS[name].license if name in DATA_SETS else EMBEDDED.get(name, UNKNOWN)


def sources_of(folder: str | Path, stated: Mapping[str, str]) -> list[Source]:
    """What a bundle, tokenizer or adapter learned from, by its `training.json`; nothing where there is none.

    Args:
        folder: of the bundle, tokenizer or adapter.
        stated: terms by name of the data set, which go before those that are known.
    """
    record = Path(folder) / "training.json"
    if not record.is_file():
        return []
    settings: dict[str, Any] = read_json(record).get("settings", {})
    used_for: dict[str, list[str]] = {}
    # The record of a tokenizer that was trained alone has the data that it was fitted on in the same place.
    for key, words in (("data", "training"), ("tokenizer_data", "tokenizer"), ("base_data", "base model")):
        for name in settings.get(key) or {}:
            used_for.setdefault(name, []).append(words)
    return [Source(name, ", ".join(words), stated.get(name) or known_terms(name)) for name, words in used_for.items()]
