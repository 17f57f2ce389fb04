"""A repository on the Hub: what it holds now, and one commit that changes it or leaves it as it was."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from recbase_hf.errors import PublishingError
from recbase_hf.publishing.kinds import Kind, identity_of, kind_of

__all__ = ["Remote", "commit", "look_at", "out_of_date", "require_room_for"]

_ALWAYS_THERE = (".gitattributes", "README.md")


@dataclass(frozen=True)
class Remote:
    """What a repository holds at one revision.

    Attributes:
        exists: whether the repository is there.
        has_branch: whether the branch is; a new one starts from the repository's main one.
        private: whether only some may read it.
        head: the commit that was looked at.
        names: of its files.
        kind: of what it holds, as far as that is one of ours.
        identity: what tells it from another of its kind.
    """

    exists: bool = False
    has_branch: bool = False
    private: bool = False
    head: str | None = None
    names: tuple[str, ...] = ()
    kind: Kind | None = None
    identity: str | None = None

    @property
    def holds_something(self) -> bool:
        """Whether there is more than what the Hub puts into every repository."""
        return any(name not in _ALWAYS_THERE for name in self.names)


def look_at(api: Any, repo_id: str, kind: Kind, *, revision: str | None = None) -> Remote:
    """What the repository holds; errors are those of `huggingface_hub`."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = api.repo_info(repo_id, repo_type=kind.repo_type, revision=revision)
        has_branch = True
    except RevisionNotFoundError:
        info = api.repo_info(repo_id, repo_type=kind.repo_type)
        has_branch = False
    except RepositoryNotFoundError:
        return Remote()
    names = tuple(sibling.rfilename for sibling in info.siblings or [])
    held = kind_of(names)

    def read(name: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:  # not the cache: what is only looked at need not stay
            path = api.hf_hub_download(repo_id, name, repo_type=kind.repo_type, revision=info.sha, local_dir=folder)
            return json.loads(Path(path).read_text(encoding="utf-8"))

    return Remote(
        exists=True,
        has_branch=has_branch,
        private=bool(info.private),
        head=info.sha,
        names=names,
        kind=held,
        identity=None if held is None else identity_of(held, read, names),
    )


def require_room_for(remote: Remote, repo_id: str, kind: Kind, identity: str | None) -> None:
    """Raise unless the repository is empty or holds an earlier state of the same thing.

    Raises:
        PublishingError: it holds something else; says what.
    """
    same = remote.kind is kind and (identity == remote.identity or None in (identity, remote.identity))
    if same or not remote.holds_something:
        return
    if remote.kind is None:
        others = [name for name in remote.names if name not in _ALWAYS_THERE]
        what = f"other files ({', '.join(others[:5])}{', ...' if len(others) > 5 else ''})"
    else:
        what = f"another {remote.kind.name}" if remote.kind is kind else f"a {remote.kind.name}"
        what += f" ({remote.identity})"
    raise PublishingError(
        f"{repo_id} holds {what}, not an earlier state of this {kind.name} ({identity}), and who loads it would get "
        "something else; name another repository, or say --replace to put this in its place"
    )


def out_of_date(remote: Remote, kind: Kind, names: Collection[str], *, replace: bool) -> list[str]:
    """Files of the repository that would contradict the new ones; all others, if its content is replaced."""
    gone = [name for name in remote.names if name not in names and name != ".gitattributes"]
    return gone if replace else [name for name in gone if any(fnmatch(name, pattern) for pattern in kind.derived)]


def commit(
    api: Any,
    repo_id: str,
    kind: Kind,
    remote: Remote,
    operations: Sequence[Any],
    *,
    private: bool,
    revision: str | None,
    message: str,
) -> str:
    """Make the commit; returns its hash.

    The repository or branch is made first where it is missing, and taken away again if the commit fails: what was there
    before is there after, and nothing else.
    """
    made_repository = made_branch = done = False
    try:
        if not remote.exists:
            _create(api, repo_id, kind, private=private)
            made_repository = True
        if revision is not None and not remote.has_branch and revision != "main":
            api.create_branch(repo_id, branch=revision, repo_type=kind.repo_type)
            made_branch = True
        made = api.create_commit(
            repo_id,
            operations,
            commit_message=message,
            repo_type=kind.repo_type,
            revision=revision,
            parent_commit=remote.head,  # whoever changed it since we looked is not overwritten
        )
        done = True
        return str(made.oid)
    except RuntimeError as error:  # of huggingface_hub around whatever stops an upload, and of hf_xet
        raise ConnectionError(
            f"the upload to {repo_id} broke off ({error} {error.__cause__ or ''}); nothing was changed there, give the "
            "same command again"
        ) from error
    finally:
        if not done:
            with suppress(Exception):  # the first error is the one to tell
                if made_repository:
                    api.delete_repo(repo_id, repo_type=kind.repo_type)
                elif made_branch:
                    api.delete_branch(repo_id, branch=revision, repo_type=kind.repo_type)


def _create(api: Any, repo_id: str, kind: Kind, *, private: bool) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repo_id, repo_type=kind.repo_type, private=private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        raise PermissionError(
            f"{repo_id} is there already, but this token may not see it; name another repository, or log in as "
            "somebody who may write there"
        ) from error
