"""`recbase push`: a folder to the Hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from recbase_hf.commands.card import CardFlags
from recbase_hf.commands.options import log_to_terminal
from recbase_hf.config import option, parse_arguments
from recbase_hf.publishing.push import Push as Published
from recbase_hf.publishing.push import push_folder

__all__ = ["Push", "main", "push"]


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, publish and say what went."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for place, flag in enumerate(("--folder", "--repo")):
        if len(arguments) > 2 * place and not arguments[2 * place].startswith("-"):
            arguments.insert(2 * place, flag)
        else:
            break
    options = parse_arguments(Push, arguments, program="recbase push", description=Push.__doc__ or "")
    log_to_terminal()
    print(push(options))
