"""`recbase data split` and `recbase data leakage`: parts to learn from and to be judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from recbase_hf.commands.options import resolve_folder
from recbase_hf.config import option
from recbase_hf.data.splits import PARTS, find_leakage, split_tables

__all__ = ["LeakageOptions", "Split", "leakage", "split"]


@dataclass(frozen=True)
class Split:
    """Split a data set into train/NAME, validation/NAME and test/NAME, and check that nothing leaks."""

    data: str = option(help="folder with items.* and interactions.*")
    out: str = option(help="folder for the parts")
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


def split(options: Split) -> None:
    """Split and print what is where."""
    facts = split_tables(
        resolve_folder(options.data),
        options.out,
        by=cast(Literal["user", "time"], options.by),
        validation_share=options.validation_share,
        test_share=options.test_share,
        seed=options.seed,
    )
    if facts.get("without_time"):
        print(f"{facts['without_time']:,} interactions have no timestamp: left out, or the oldest where `order` tells")
    for part in PARTS:
        users = facts.get(f"users_to_predict_in_{part}")
        print(f"{options.out}/{part}/{facts['data']}: {facts['interactions'][part]:,} interactions", end="")
        earlier = ", their earlier history included" if options.by == "time" else ""
        print("" if users is None else f"{earlier}; {users:,} users with a last item to predict")


def leakage(options: LeakageOptions) -> None:
    """Look and print; `LeakageError` where there is one."""
    found = find_leakage(resolve_folder(options.train), resolve_folder(options.test))
    found.require_none()
    print(
        f"none of {found.num_targets:,} last items is in {options.train}; {found.shared_users:,} users are in both"
        + (f", {found.later_events:,} events there come after the first of these items" if found.later_events else "")
    )
