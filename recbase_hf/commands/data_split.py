"""`recbase data split` and `recbase data leakage`: parts to learn from and to be judged by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, cast

from recbase_hf.commands.command import Answer
from recbase_hf.commands.options import resolve_folder
from recbase_hf.config import option
from recbase_hf.data.splits import PARTS, find_leakage, split_tables
from recbase_hf.errors import LeakageError

__all__ = ["LeakageOptions", "Split", "leakage", "split"]


@dataclass(frozen=True)
class Split:
    """Split a data set into train/NAME, validation/NAME and test/NAME, and check that nothing leaks."""

    data: str = option(help="folder with items.* and interactions.*")
    output: str = option(help="folder for the parts")
    by: str = option(
        "user", help="all events of a user in one part, or what comes first in training", choices=("user", "time")
    )
    validation_share: float = option(0.1, help="of the users, or of the events")
    test_share: float = option(0.1, help="of the users, or of the events")
    seed: int = option(0, help="of the users' draw")


@dataclass(frozen=True)
class LeakageOptions:
    """Look for what is to be predicted in one folder among the events of another; the exit code is 1 if it is there."""

    train: str = option(help="folder that a model learned from")
    test: str = option(help="folder that it is judged by: the last item of each user")


def split(options: Split) -> Answer:
    """Split, and say what is where."""
    facts = split_tables(
        resolve_folder(options.data),
        options.output,
        by=cast(Literal["user", "time"], options.by),
        validation_share=options.validation_share,
        test_share=options.test_share,
        seed=options.seed,
    )
    lines = []
    if facts.get("without_time"):
        lines.append(
            f"{facts['without_time']:,} interactions have no timestamp: left out, or the oldest where `order` tells"
        )
    earlier = ", their earlier history included" if options.by == "time" else ""
    for part in PARTS:
        users = facts.get(f"users_to_predict_in_{part}")
        predicted = "" if users is None else f"{earlier}; {users:,} users with a last item to predict"
        lines.append(
            f"{options.output}/{part}/{facts['data']}: {facts['interactions'][part]:,} interactions{predicted}"
        )
    return Answer("\n".join(lines), facts)


def leakage(options: LeakageOptions) -> Answer:
    """Look; the answer is no where something is known."""
    found = find_leakage(resolve_folder(options.train), resolve_folder(options.test))
    content = {**asdict(found), "train": str(found.train), "test": str(found.test)}
    try:
        found.require_none()
    except LeakageError as error:
        return Answer(str(error), content, is_yes=False)
    text = f"none of {found.num_targets:,} last items is in {options.train}; {found.shared_users:,} users are in both"
    if found.later_events:
        text += f", {found.later_events:,} events there come after the first of these items"
    return Answer(text, content)
