"""Reasons not to publish: collected by all checks, raised together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbase_hf.errors import PublishingError

__all__ = ["Refusal", "require_none"]


@dataclass(frozen=True)
class Refusal:
    """One reason.

    Attributes:
        file: in the folder.
        reason: what is wrong.
        fix: what to do about it.
        place: line or field in the file, in words.
    """

    file: str
    reason: str
    fix: str
    place: str | None = None

    def __str__(self) -> str:
        place = "" if self.place is None else f", {self.place}"
        return f"{self.file}{place}: {self.reason}; {self.fix}"


def require_none(folder: str | Path, refusals: Sequence[Refusal]) -> None:
    """Raise all that is against publishing a folder.

    Raises:
        PublishingError: there is a refusal; the message holds one line for each.

    >>> require_none("model", [Refusal("optimizer.pt", "a pickle, which runs code when it is read", "delete it")])
    Traceback (most recent call last):
    recbase_hf.errors.PublishingError: model is not published, 1 thing is in the way:
      optimizer.pt: a pickle, which runs code when it is read; delete it
    """
    if refusals:
        count = "1 thing is" if len(refusals) == 1 else f"{len(refusals)} things are"
        lines = "".join(f"\n  {refusal}" for refusal in refusals)
        raise PublishingError(f"{folder} is not published, {count} in the way:{lines}")
