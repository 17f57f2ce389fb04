"""`recbase push`: a folder to the Hub."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from recbase_hf.commands.card import CardFlags
from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option
from recbase_hf.publishing.push import Push as Published
from recbase_hf.publishing.push import push_folder

__all__ = ["COMMAND", "Push", "push"]


@dataclass(frozen=True, kw_only=True)
class Push(CardFlags):
    """Publish a bundle, tokenizer, adapter, catalog or data set, in one commit, if nothing speaks against it.

    recbase push FOLDER OWNER/NAME is recbase push --folder FOLDER --repo OWNER/NAME.
    """

    folder: str = option(help="what save_pretrained or a command wrote")
    repo: str = option(help="OWNER/NAME on the Hub; made if it is not there")
    private: bool = option(False, help="a new repository is for those alone who may read it")
    revision: str | None = option(None, help="branch to commit to; made if it is not there")
    replace: bool = option(False, help="put this in the place of something else that the repository holds")
    dry_run: bool = option(False, help="check all, list files and sizes, send nothing")
    message: str | None = option(None, help="of the commit")


def push(options: Push) -> Published:
    """Publish; errors as `push_folder` has them."""
    return push_folder(
        options.folder,
        options.repo,
        card=options.card_options(),
        private=options.private,
        revision=options.revision,
        replace=options.replace,
        dry_run=options.dry_run,
        message=options.message,
    )


def run(options: Push) -> Answer:
    """Publish and say what went."""
    published = push(options)
    return Answer(str(published), asdict(published))


COMMAND = Command("push", Push, run, positional=("folder", "repo"))
