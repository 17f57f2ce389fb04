"""`recbase card`: the card of what is going to be published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option, require_positive
from recbase_hf.files import atomic_file
from recbase_hf.language_model import MODEL_SIZES
from recbase_hf.publishing.write_card import CardOptions, untrained_card, write_card

__all__ = ["COMMAND", "Card", "CardFlags", "card"]


@dataclass(frozen=True)
class CardFlags:
    """What the card says that the folder does not."""

    license: str | None = option(None, help="identifier that the Hub knows: apache-2.0, cc-by-nc-4.0, other, ...")
    license_name: str | None = option(None, help="of the license other")
    license_link: str | None = option(None, help="of the license other")
    base: str | None = option(None, help="Hub id of the bundle that an adapter or catalog belongs to")
    receipts: tuple[str, ...] = option(
        (),
        help="receipts of recbase evaluate that the figures are from, or folders of them; default FOLDER/receipts",
    )
    data_licenses: tuple[str, ...] = option(
        (), help="terms of training data, NAME=LICENSE; own for data of yours; default what recbase data list says"
    )
    run: str | None = option(None, help="folder of the speed.jsonl of the training; default beside the bundle")
    watts: float | None = option(None, help="what all machines of the training together drew, for the energy")
    hardware: str | None = option(None, help="what it was trained on, in words")

    def __post_init__(self) -> None:
        if self.watts is not None:
            require_positive(self, "watts")
        for entry in self.data_licenses:
            name, equals, terms = entry.partition("=")
            if not (name and equals and terms):
                raise ValueError(f"--data-licenses {entry} must be NAME=LICENSE, such as my-shop=own")

    def card_options(self) -> CardOptions:
        """The same for the library."""
        return CardOptions(
            license=self.license,
            license_name=self.license_name,
            license_link=self.license_link,
            base=self.base,
            receipts=self.receipts,
            data_licenses={name: terms for name, _, terms in (entry.partition("=") for entry in self.data_licenses)},
            run=self.run,
            watts=self.watts,
            hardware=self.hardware,
        )


@dataclass(frozen=True)
class Card(CardFlags):
    """Write the card of a bundle, tokenizer, adapter, catalog or data set, or of a size that nobody has trained.

    What people wrote into an earlier card stays; the parts between marks are written anew.
    """

    folder: str | None = option(None, help="what save_pretrained or a command wrote")
    size: str | None = option(
        None, help="in place of a folder: the card of this size, not trained", choices=tuple(MODEL_SIZES)
    )
    repo: str | None = option(None, help="OWNER/NAME that it is going to be published as")
    output: str | None = option(None, help="file; default FOLDER/README.md, with the receipts in FOLDER/receipts")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.folder is None) == (self.size is None):
            raise ValueError("name either a --folder, or a --size that nobody has trained")
        if self.size is not None and (self.repo is None or self.output is None):
            raise ValueError("--size needs --repo and --output")


def card(options: Card) -> Path:
    """Write the card; returns where it is."""
    if options.folder is not None:
        return write_card(options.folder, repo_id=options.repo, options=options.card_options(), output=options.output)
    assert options.size is not None
    assert options.repo is not None
    assert options.output is not None
    text = untrained_card(options.size, repo_id=options.repo, license=options.license or "apache-2.0")
    with atomic_file(options.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(options.output)


def run(options: Card) -> Answer:
    """Write the card and say where."""
    path = card(options)
    return Answer(f"card: {path}", {"card": str(path)})


COMMAND = Command("card", Card, run)
