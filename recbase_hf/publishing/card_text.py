"""A card as text: its metadata, and the parts between marks that are written anew while all else stays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbase_hf.errors import PublishingError

__all__ = ["CardText", "is_form", "part_marks", "with_part"]

_NOT_FILLED_IN = "[More Information Needed]"
_ADDED_TO_FORM = re.compile(
    r"# (?:Model|Dataset) Card for |#+ (?:Framework versions|Training procedure)$|- PEFT "
    r"|The following `bitsandbytes` quantization config|- (?:_?load_in_|llm_int8_|bnb_4bit_|quant_)"
)
"""Lines that the Hub and PEFT fill into the form by themselves."""
_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class CardText:
    """A `README.md` taken apart.

    Attributes:
        metadata: the YAML at its top.
        body: the Markdown below.
    """

    metadata: dict[str, Any]
    body: str

    @classmethod
    def read(cls, path: Path, *, place: str | None = None) -> CardText:
        """Take a card in a file apart.

        Args:
            path: of the file.
            place: what messages call it; default its path.

        Raises:
            PublishingError: it is not UTF-8, or the metadata is not YAML.
        """
        place = place or str(path)
        try:
            return cls.parse(path.read_text(encoding="utf-8"), place=place)
        except UnicodeDecodeError as error:
            raise PublishingError(f"{place} is no UTF-8 text ({error}); save it again in that encoding") from error

    @classmethod
    def parse(cls, text: str, *, place: str = "README.md") -> CardText:
        """Take a card apart.

        Raises:
            PublishingError: the metadata is not YAML.
        """
        import yaml

        text = text.replace("\r\n", "\n")
        found = _FRONT_MATTER.match(text)
        if found is None:
            return cls({}, text)
        try:
            metadata = yaml.safe_load(found[1]) or {}
        except yaml.YAMLError as error:
            raise PublishingError(f"{place}: what is between the --- lines is not YAML ({error}); mend it") from error
        if not isinstance(metadata, dict):
            raise PublishingError(f"{place}: the metadata must hold `name: value` lines between the --- lines; mend it")
        return cls(metadata, text[found.end() :])

    def __str__(self) -> str:
        import yaml

        written = yaml.safe_dump(self.metadata, sort_keys=False, allow_unicode=True, width=120)
        return f"---\n{written}---\n\n{self.body.strip()}\n"


def is_form(body: str) -> bool:
    r"""Whether this is the form that PEFT and the Hub write for others to fill in, and nobody has written into it.

    >>> is_form("# Model Card for Model ID\n\n- **Developed by:** [More Information Needed]\n\n- PEFT 0.18.0")
    True
    >>> is_form("# Model Card for Model ID\n\nA model that I made.\n\n[More Information Needed]")
    False
    """
    if _NOT_FILLED_IN not in body:
        return False
    from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

    forms = (ModelCard.from_template(ModelCardData()), DatasetCard.from_template(DatasetCardData()))
    known = {line.strip() for form in forms for line in form.text.splitlines()} | {""}
    return all(line in known or _ADDED_TO_FORM.match(line) for line in map(str.strip, body.splitlines()))


def part_marks(name: str) -> tuple[str, str]:
    """The lines between which a part of the card is written by `recbase card`."""
    return f"<!-- {name}: written by recbase card -->", f"<!-- end of {name} -->"


def with_part(body: str, name: str, heading: str, content: str) -> str:
    """The body with one part written anew.

    A body without it gets it at the end of the section of that heading; where there is none, in a section of its own,
    the last but for `Versions`.

    >>> body = with_part("# A model", "figures", "## Figures", "none")
    >>> print(with_part(body, "figures", "## Figures", "GAUC 0.7"))
    # A model
    <BLANKLINE>
    ## Figures
    <BLANKLINE>
    <!-- figures: written by recbase card -->
    GAUC 0.7
    <!-- end of figures -->
    <BLANKLINE>
    """
    start, end = part_marks(name)
    written = f"{start}\n{content.strip()}\n{end}"
    before, mark, rest = body.partition(start)
    if mark and end in rest:
        return before + written + rest.partition(end)[2]
    place = _end_of_section(body, heading)
    if place is None:
        versions = re.search(r"^## Versions\b", body, re.MULTILINE)
        place = len(body) if versions is None else versions.start()
        written = f"{heading}\n\n{written}"
    return f"{body[:place].rstrip()}\n\n{written}\n\n{body[place:]}".rstrip() + "\n"


def _end_of_section(body: str, heading: str) -> int | None:
    found = re.search(rf"^{re.escape(heading)}[ \t]*$", body, re.MULTILINE)
    if found is None:
        return None
    following = re.compile(r"^#{1,2} ", re.MULTILINE).search(body, found.end())
    return len(body) if following is None else following.start()
