"""What every ranking metric is computed from: checked columns, sorted into groups of rows whose scores are equal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "FloatArray",
    "IntArray",
    "TieGroups",
    "area_by_user",
    "checked_columns",
    "require_both_classes",
    "require_no_nan",
    "tie_groups",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class TieGroups(NamedTuple):
    """Maximal runs of rows with one user and one score, ordered by user and then from the best score to the worst."""

    keys: npt.NDArray[np.generic]  # (users,) sorted
    user: IntArray  # (groups,) index into `keys`
    start: IntArray  # (groups,) how many rows of the same user score higher
    size: IntArray  # (groups,) rows
    positives: IntArray  # (groups,) rows with label 1
    group_of_row: IntArray  # (n,)

    @property
    def negatives(self) -> IntArray:
        """Rows with label 0, (groups,)."""
        return self.size - self.positives


def tie_groups(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike | None = None) -> TieGroups:
    """Check the columns and sort their rows once; without `users` all rows belong to one.

    Raises `ValueError` as `checked_columns` does.
    """
    labels, scores, users = checked_columns(labels, scores, users)
    keys, user = np.unique(users, return_inverse=True)
    order = np.lexsort((-scores, user))
    user, scores = user[order], scores[order]
    opens = np.ones(len(order), dtype=bool)
    opens[1:] = (user[1:] != user[:-1]) | (scores[1:] != scores[:-1])
    group_of_row = np.empty(len(order), dtype=np.int64)
    group_of_row[order] = np.cumsum(opens) - 1
    first = np.flatnonzero(opens)
    return TieGroups(
        keys=keys,
        user=user[first],
        start=first - np.searchsorted(user, user[first]),
        size=np.diff(first, append=len(order)),
        positives=np.bincount(group_of_row, labels, minlength=len(first)).astype(np.int64),
        group_of_row=group_of_row,
    )


def area_by_user(user: IntArray, positives: npt.NDArray, negatives: npt.NDArray) -> FloatArray:
    """AUC of each user, (users,) float64, nan without both classes, from the (weighted) counts of its tie groups."""
    total_positives, total_negatives = np.bincount(user, positives), np.bincount(user, negatives)
    negatives_below = np.cumsum(total_negatives)[user] - np.cumsum(negatives)
    pairs_won = np.bincount(user, positives * (negatives_below + negatives / 2))
    with np.errstate(invalid="ignore"):
        return pairs_won / (total_positives * total_negatives)


def checked_columns(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike | None = None
) -> tuple[IntArray, FloatArray, npt.NDArray[np.generic]]:
    """The columns as arrays of one length; without `users` all rows belong to user 0.

    Columns of different lengths, labels other than 0 and 1, and NaN scores or users raise `ValueError` with the first
    row.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    users = np.zeros(len(labels), dtype=np.int64) if users is None else np.asarray(users)
    columns = {"labels": labels, "scores": scores, "users": users}
    if any(column.ndim != 1 for column in columns.values()) or len({len(column) for column in columns.values()}) > 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise ValueError(f"columns differ in shape ({shapes}); give one label, one score and one user for each row")
    require_no_nan("scores", scores)
    require_no_nan("users", users)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise ValueError(f"labels row {wrong[0]} is {labels[wrong[0]]}; labels must be 0 or 1, so threshold them first")
    return labels.astype(np.int64), scores, users


def require_no_nan(name: str, column: npt.NDArray) -> None:
    """Raise `ValueError` with the first row of `column` that is NaN."""
    # Only NaN (and NaT) differ from themselves; unlike isnan this accepts strings and objects.
    wrong = np.flatnonzero(column != column)
    if wrong.size:
        raise ValueError(f"{name} row {wrong[0]} is {column[wrong[0]]}; drop such rows or fix what computed them")


def require_both_classes(positives: int, rows: int) -> None:
    """Raise `ValueError` if none or all of the rows are positives."""
    if positives in (0, rows):
        raise ValueError(
            f"AUC needs both classes, but {positives} of {rows} labels are 1; "
            "add rows of the missing class, or use gauc, which skips such users"
        )
