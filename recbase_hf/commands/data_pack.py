"""`recbase data encode` and `recbase data pack`: tables of any size to vectors and to token shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbase_hf.commands.command import Answer
from recbase_hf.commands.options import DataOptions, TextOptions, resolve_folder, vectors_for
from recbase_hf.config import option, part_of
from recbase_hf.data.domain import ItemVectors
from recbase_hf.shards.pack import Packing, pack_domains
from recbase_hf.shards.token_shards import TokenShards
from recbase_hf.share import Share
from recbase_hf.text.template import ItemTemplate

__all__ = ["Encode", "Pack", "encode", "pack", "run_encode", "run_pack"]


@dataclass(frozen=True)
class Encode:
    """Encode item texts into a file of vectors beside the tables, for --vectors; the same command goes on."""

    data: str = option(help="folder with items.*")
    name: str = option(help="of the vectors, such as minilm")
    text_encoder: str = option(TextOptions.text_encoder, help="sentence encoder: a Hub id or a folder")
    text_encoder_revision: str | None = option(None, help="revision of the encoder on the Hub")
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    item_fields: tuple[str, ...] = option((), help="text columns; default the column text, else all text columns")
    item_lead: str | None = option(None, help="sentence that opens every item's text")


@dataclass(frozen=True, kw_only=True)
class Pack(Packing, DataOptions):
    """Pack histories into token shards for recbase pretrain --shards; the same command goes on where it was."""

    tokenizer: str = option(help="tokenizer or bundle: a folder or a Hub id")
    output: str = option("runs/shards", help="folder of the shards")
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")


def encode(options: Encode) -> Path:
    """Encode and write; returns the file of the vectors."""
    from recbase_hf.shards.vector_file import write_vectors
    from recbase_hf.text.encoder import load_text_encoder

    encoder = load_text_encoder(
        options.text_encoder, options.text_encoder_revision, trust_remote_code=options.trust_remote_code
    )
    source = ItemVectors(
        encoder=encoder.name,
        revision=encoder.revision,
        template=ItemTemplate(fields=options.item_fields or None, lead=options.item_lead),
    )
    path = write_vectors(resolve_folder(options.data), options.name, encoder, source, share=_share())
    return path


def pack(options: Pack) -> TokenShards:
    """Pack and write; returns the shards."""
    from recbase_hf.commands.build_catalog import load_tokenizer

    tokenizer = load_tokenizer(options.tokenizer, trust_remote_code=options.trust_remote_code)
    source = vectors_for(tokenizer, options.vectors, trust_remote_code=options.trust_remote_code)
    share = _share()
    with share.first_process_first():
        folders = [resolve_folder(data) for data in options.data]
    shards = pack_domains(folders, tokenizer, source, options.output, part_of(options, Packing), share=share)
    return shards


def run_encode(options: Encode) -> Answer:
    """Encode, and say where the vectors are."""
    path = encode(options)
    return Answer(f"vectors in {path}", {"vectors": str(path)})


def run_pack(options: Pack) -> Answer:
    """Pack, and say what was packed of each data set."""
    domains = pack(options).facts["domains"]
    lines = [
        f"{name}: {facts['training_users']:,} users to learn from, {facts['validation_users']:,} to validate, "
        f"{facts['events']:,} events ({facts['repeated_events']:,} repeats of a user's items left out), "
        f"{facts['tokens']:,} tokens"
        for name, facts in domains.items()
    ]
    return Answer("\n".join([*lines, f"token shards in {options.output}"]), {"shards": options.output, **domains})


def _share() -> Share:
    from recbase_hf.training.launch import make_accelerator

    return Share.of(make_accelerator(mixed_precision="no"))
