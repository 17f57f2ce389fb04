"""Histories from lists."""

from __future__ import annotations

import numpy as np

from recbase_hf.data.histories import Histories


def make_histories(sequences: list[list[int]]) -> Histories:
    """Users u0, u1, ... with these items."""
    users = np.array([f"u{user}" for user in range(len(sequences))], dtype=object)
    offsets = np.cumsum([0, *map(len, sequences)])
    return Histories(users, offsets, np.array([item for items in sequences for item in items], dtype=np.int64))


def sequences_of(histories: Histories) -> dict[str, list[int]]:
    """The items of each user by id."""
    return {user: histories[row].tolist() for row, user in enumerate(histories.users)}
