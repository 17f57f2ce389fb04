"""Publishes a folder: all checks first, then one commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from recbase_hf.bundle import hash_of_weight_files
from recbase_hf.errors import PublishingError
from recbase_hf.evaluation.receipts import without_folder
from recbase_hf.files import read_json
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.hub import explained_hub_errors
from recbase_hf.publishing.card_checks import card_refusals
from recbase_hf.publishing.card_facts import base_of, fingerprint_of
from recbase_hf.publishing.card_text import CardText
from recbase_hf.publishing.kinds import Kind, files_of_folder, identity_of, kind_of_folder, missing_files
from recbase_hf.publishing.refusals import require_none
from recbase_hf.publishing.remote import commit, look_at, out_of_date, require_room_for
from recbase_hf.publishing.scan import scan_files
from recbase_hf.publishing.terms import is_permissive
from recbase_hf.publishing.write_card import CARD, CardOptions, completed_card, receipts_of

__all__ = ["Push", "push_folder"]

_ADAPTER, _RECORD = "adapter_config.json", "training.json"


@dataclass(frozen=True)
class Push:
    """What was published, or in a dry run would be.

    Attributes:
        repo_id: of the repository.
        kind: `bundle`, `tokenizer`, `adapter`, `catalog` or `data set`.
        files: size in bytes by path in the repository.
        deleted: files of the repository that are taken away by the same commit, because they would contradict these.
        url: of the commit; None in a dry run.
        checked: whether the Hub was asked; a dry run without a network only checks the folder.
    """

    repo_id: str
    kind: str
    files: Mapping[str, int]
    deleted: Sequence[str] = ()
    url: str | None = None
    checked: bool = True

    def __str__(self) -> str:
        width = max(len(f"{size:,}") for size in self.files.values())
        lines = [f"  {size:>{width},} B  {name}" for name, size in self.files.items()]
        lines += [f"  {'gone':>{width}}    {name}" for name in self.deleted]
        total = f"{len(self.files)} files, {sum(self.files.values()):,} B"
        if self.url is not None:
            head = f"{self.kind} published: {self.url}, {total}"
        else:
            head = f"{self.kind} for {self.repo_id}: {total}; dry run, nothing was sent"
            head += "" if self.checked else " and the Hub was not asked"
        return "\n".join([head, *lines])


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    card: CardOptions | None = None,
    private: bool = False,
    revision: str | None = None,
    replace: bool = False,
    dry_run: bool = False,
    message: str | None = None,
    token: str | bool | None = None,
) -> Push:
    """Publish a bundle, tokenizer, adapter, catalog or data set.

    Everything goes in one commit, the card with it: completed from the folder and `card`, written from its template
    where there is none. The folder itself is not changed, and if anything fails, neither is the repository.

    Args:
        folder: what `save_pretrained` or a command of recbase-hf wrote.
        repo_id: `owner/name`; made if it is not there.
        card: license, base, receipts and what else the folder does not say.
        private: whether a new repository is.
        revision: branch; made if it is not there.
        replace: whether something else that the repository holds is replaced.
        dry_run: check all, send nothing.
        message: of the commit.
        token: of an account that may write there; default the one that is logged in.

    Raises:
        PublishingError: the folder may not leave as it is (with all reasons), or the repository holds something else.
        FingerprintMismatchError: adapter or catalog belong to another tokenizer than that of the base; or parts of a
            bundle do not belong together.
        ConnectionError: no network.
        PermissionError: no token, an expired one, or one that may not write there.
        FileNotFoundError: there is no such folder.
    """
    folder, card = Path(folder), card or CardOptions()
    if repo_id.count("/") != 1:
        raise PublishingError(f"{repo_id!r} is no id of a repository; give OWNER/NAME, such as your-account/my-model")
    kind = kind_of_folder(folder)
    files = _files(kind, folder, repo_id, card)
    text = files[CARD].decode("utf-8")  # type: ignore[union-attr]
    require_none(folder, [*missing_files(kind, folder), *scan_files(files), *card_refusals(kind, folder, text)])
    _require_fitting_parts(kind, folder)
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}

    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    try:
        with explained_hub_errors(repo_id):
            if not dry_run:
                api.whoami()  # an expired token is told before anything is sent
            remote = look_at(api, repo_id, kind, revision=revision)
    except ConnectionError:
        if dry_run:
            return Push(repo_id, kind.name, sizes, checked=False)
        raise
    if not replace:
        require_room_for(remote, repo_id, kind, _identity(kind, files))
    if private and remote.exists and not remote.private:
        raise PublishingError(
            f"{repo_id} is there already and public; make it private in its settings, or name another repository"
        )
    _require_base(kind, folder, text, api)
    gone = out_of_date(remote, kind, files, replace=replace)
    if dry_run:
        return Push(repo_id, kind.name, sizes, gone)
    operations = [
        *(CommitOperationAdd(name, file) for name, file in files.items()),
        *(CommitOperationDelete(name) for name in gone),
    ]
    with explained_hub_errors(repo_id):
        oid = commit(
            api,
            repo_id,
            kind,
            remote,
            operations,
            private=private,
            revision=revision,
            message=message or f"Publish a {kind.name} with recbase-hf",
        )
    prefix = "datasets/" if kind.repo_type == "dataset" else ""
    return Push(repo_id, kind.name, sizes, gone, url=f"{api.endpoint}/{prefix}{repo_id}/commit/{oid}")


def _files(kind: Kind, folder: Path, repo_id: str, card: CardOptions) -> dict[str, Path | bytes]:
    """What goes into the commit: the folder's files, some of them in the form in which they are published."""
    files: dict[str, Path | bytes] = {**files_of_folder(folder)}
    files[CARD] = completed_card(folder, repo_id=repo_id, options=card).encode("utf-8")
    for name, receipt in receipts_of(folder, card).items():
        files[name] = _json(receipt)
    # A base that was a local folder means nothing to anybody else.
    if kind.name == "adapter" and card.base is not None:
        files[_ADAPTER] = _json({**read_json(folder / _ADAPTER), "base_model_name_or_path": card.base})
    base = base_of(folder)
    if "name" in base:
        name = card.base or without_folder(base["name"])
        files[_RECORD] = _json({**read_json(folder / _RECORD), "base": {**base, "name": name}})
    return dict(sorted(files.items()))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _identity(kind: Kind, files: Mapping[str, Path | bytes]) -> str | None:
    def read(name: str) -> Any:
        file = files[name]
        return json.loads(file) if isinstance(file, bytes) else read_json(file)

    return identity_of(kind, read, files)


def _require_fitting_parts(kind: Kind, folder: Path) -> None:
    """Raise if the parts of a bundle were made with different tokenizers.

    Raises:
        FingerprintMismatchError: names the parts.
    """
    if kind.name != "bundle":
        return
    model = (read_json(folder / "config.json").get("recbase") or {}).get("fingerprint")
    parts = {"tokenizer": read_json(folder / "tokenizer_config.json").get("fingerprint"), "model": model}
    if (folder / "calibration.json").is_file():
        parts["calibration"] = read_json(folder / "calibration.json").get("fingerprint")
    require_same_fingerprint(**parts)


def _require_base(kind: Kind, folder: Path, text: str, api: Any) -> None:
    """Raise if the base that an adapter or catalog names is not there, is another than it was made with, or forbids it.

    Raises:
        FingerprintMismatchError: the base has another tokenizer; names both fingerprints.
        PublishingError: an adapter was trained over other weights than the base has, or is to go under a permissive
            license and its base is not.
        FileNotFoundError: there is no such base.
    """
    metadata = CardText.parse(text).metadata
    base = metadata.get("base_model")
    if kind.name not in ("adapter", "catalog") or not isinstance(base, str):
        return
    tokenizer = _download(api, base, "tokenizer_config.json")
    if tokenizer is None:
        raise FileNotFoundError(f"{base} is no bundle, it has no tokenizer_config.json; name another --base")
    own = fingerprint_of(folder)
    if own is not None:
        require_same_fingerprint(**{f"tokenizer of {base}": read_json(tokenizer).get("fingerprint"), kind.name: own})
    if kind.name == "adapter":
        _require_same_weights(folder, base, api)
    card = _download(api, base, CARD) if kind.name == "adapter" else None
    if card is not None:
        theirs = str(CardText.read(card, place=f"{CARD} of {base}").metadata.get("license"))
        if is_permissive(str(metadata["license"])) and not is_permissive(theirs):
            raise PublishingError(
                f"{folder} is not published: the license of its base {base} is {theirs}, which the license "
                f"{metadata['license']} goes beyond; take that of the base"
            )


def _require_same_weights(folder: Path, base: str, api: Any) -> None:
    """Raise if the base has other weights than an adapter was trained over, by the hashes that the Hub has of files.

    Raises:
        PublishingError: names both.
    """
    recorded = base_of(folder).get("weights")
    with explained_hub_errors(base):
        siblings = api.model_info(base, files_metadata=True).siblings or []
    files = {file.rfilename: file.lfs for file in siblings if fnmatch(file.rfilename, "model*.safetensors")}
    if recorded is None or not files or None in files.values():
        return
    there = hash_of_weight_files(lfs["sha256"] for _, lfs in sorted(files.items()))
    if there != recorded:
        raise PublishingError(
            f"{folder} is not published: the adapter was trained over the weights {recorded}, but {base} has {there}; "
            "name the base that it was trained over, or train it again over this one"
        )


def _download(api: Any, repo_id: str, name: str) -> Path | None:
    """A file of a repository of models; None if the repository lacks it."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with explained_hub_errors(repo_id):
        try:
            return Path(api.hf_hub_download(repo_id, name))
        except RemoteEntryNotFoundError:
            return None
