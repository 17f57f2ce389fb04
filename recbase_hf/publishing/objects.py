"""`push_to_hub` of the classes that have a state: they are saved into a folder of their own, and that is published."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbase_hf.publishing.push import Push, push_folder
from recbase_hf.publishing.write_card import CardOptions

__all__ = ["push_saved"]


def push_saved(
    save: Callable[[Path], None], repo_id: str, *, license: str | None = None, base: str | None = None, **options: Any
) -> Push:
    """Save into a temporary folder and publish that.

    Args:
        save: writes the folder.
        repo_id: `owner/name`.
        license: identifier that the Hub knows.
        base: Hub id of the bundle that a catalog belongs to.
        **options: of `push_folder`; `card` for all that a card can say.

    Raises:
        PublishingError: as `push_folder` has it.
    """
    card = options.pop("card", None) or CardOptions(license=license, base=base)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repo_id.rpartition("/")[2]
        save(folder)
        return push_folder(folder, repo_id, card=card, **options)
