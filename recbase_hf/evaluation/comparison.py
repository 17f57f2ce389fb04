"""What receipts say side by side: which belong together, which row is the bar, and which rows are zero-shot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbase_hf.errors import DataError
from recbase_hf.evaluation.figures import Figure
from recbase_hf.evaluation.receipts import read_receipt

__all__ = [
    "EvaluatedSet",
    "Group",
    "differing",
    "group_sets",
    "is_bar",
    "is_lower_better",
    "read_sets",
    "require_metric",
    "shown",
]

BAR = "text similarity"

ADAPTED = ", adapted"
"""What ends the name of a baseline that also counts popularity among the histories: more than a text similarity."""
MODEL = "RecBase"
FITTED = "(target set)"
"""How the names of rankers begin that a zero-shot model is held against, that the model is behind, and how the names
end of those that are fitted on the data set itself."""

_PARTS = ("dataset", "protocol", "model", "rankers", "options", "command", "seconds", "versions", "hardware", "date")
_RULES_OF_A_SET = ("data_set", "kind", "label_from", "positives", "negatives", "per_label_cap", "tested")
"""Switches that RecBench sets for each data set; they do not make two protocols of one."""


def is_bar(ranker: str) -> bool:
    """Whether it is a text similarity, which needs nothing but one user's history.

    >>> is_bar("text similarity: mean cosine"), is_bar("text similarity and popularity, adapted")
    (True, False)
    """
    return ranker.startswith(BAR) and not ranker.endswith(ADAPTED)


@dataclass(frozen=True)
class EvaluatedSet:
    """One receipt: the figures of all rankers on one data set.

    Attributes:
        place: its file.
        receipt: its content.
    """

    place: str
    receipt: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the data set."""
        return str(self.receipt["dataset"]["name"])

    @property
    def hash(self) -> str:
        """Of the data set."""
        return str(self.receipt["dataset"]["hash"])

    @property
    def rankers(self) -> list[str]:
        """Their names, in the order of the receipt."""
        return [row["name"] for row in self.receipt["rankers"]]

    def figure(self, ranker: str, metric: str) -> Figure | None:
        """A number and its interval; None where the receipt has none."""
        for row in self.receipt["rankers"]:
            if row["name"] == ranker:
                parts = row["metrics"].get(metric, {})
                if parts.get("value") is not None:
                    return Figure(parts["value"], parts.get("low"), parts.get("high"))
        return None

    def objection(self, ranker: str) -> str | None:
        """Why this row is not zero-shot; None if it is."""
        if ranker.endswith(FITTED):
            return "fitted on this set"
        model = self.receipt["model"]
        if model is None or not ranker.startswith(MODEL):
            return None
        if model.get("was_trained_on_this_data"):
            return "NOT zero-shot: the model was trained on this set"
        calibration = model.get("calibration") or {}
        if ranker.startswith(f"{MODEL} calibrated") and self.hash in calibration.get("fitted_on", {}).values():
            return "NOT zero-shot: calibrated on this set"
        return None

    def bar(self, metric: str) -> str | None:
        """The best of the text similarities, which need no training at all."""
        return self._best(filter(is_bar, self.rankers), metric)

    def best_zero_shot(self, metric: str) -> str | None:
        """The best of all that have learned nothing from this set."""
        return self._best((ranker for ranker in self.rankers if self.objection(ranker) is None), metric)

    def to_the_bar(self, ranker: str, metric: str) -> float | None:
        """The figure of a ranker minus that of the bar."""
        bar = self.bar(metric)
        reference = None if bar is None else self.figure(bar, metric)
        figure = self.figure(ranker, metric)
        return None if figure is None or reference is None else figure.value - reference.value

    def _best(self, rankers: Iterable[str], metric: str) -> str | None:
        values = {ranker: figure.value for ranker in rankers if (figure := self.figure(ranker, metric)) is not None}
        choose: Callable = min if is_lower_better(metric) else max
        return choose(values, key=values.__getitem__) if values else None


@dataclass(frozen=True)
class Group:
    """Data sets whose figures may be averaged: one protocol with the same switches, one seed, one model.

    Attributes:
        title: says which.
        sets: in the order in which they were given, each data set once.
    """

    title: str
    sets: list[EvaluatedSet]

    @property
    def rankers(self) -> list[str]:
        """The names of all, in the order of the receipts."""
        return list(dict.fromkeys(ranker for each in self.sets for ranker in each.rankers))

    @property
    def unseen(self) -> list[EvaluatedSet]:
        """The sets that neither the model nor its calibration saw."""
        return [
            each
            for each in self.sets
            if not any(ranker.startswith(MODEL) and each.objection(ranker) for ranker in each.rankers)
        ]

    def labels(self) -> list[str]:
        """What the sets are called in tables: their names, with their hashes where different sets share a name."""
        names = [each.name for each in self.sets]
        return [each.name if names.count(each.name) == 1 else f"{each.name} ({each.hash})" for each in self.sets]


def is_lower_better(metric: str) -> bool:
    """Whether a smaller figure is the better one.

    >>> is_lower_better("log_loss"), is_lower_better("gauc")
    (True, False)
    """
    return metric == "log_loss"


def read_sets(sources: Sequence[str | Path]) -> list[EvaluatedSet]:
    """Read receipts.

    Args:
        sources: files, or folders whose `*.json` are read, those of folders within them not. A file that is named twice
            is read once.

    Raises:
        DataError: a file is not a receipt, or of another version; or a folder holds none.
        FileNotFoundError: a file is missing.
        ValueError: a file is not JSON.
    """
    paths = [path for source in sources for path in _files(Path(source))]
    by_place = {path.resolve(): path for path in paths}
    return [EvaluatedSet(str(path), _checked(read_receipt(path), path)) for path in by_place.values()]


def group_sets(sets: Sequence[EvaluatedSet]) -> list[Group]:
    """Put together what may be averaged, in the order in which it was given.

    Raises:
        DataError: a data set comes twice under one protocol and seed; says in what its receipts differ.
    """
    _require_distinct(sets)
    groups: dict[str, list[EvaluatedSet]] = {}
    for each in sets:
        groups.setdefault(json.dumps(_terms(each), sort_keys=True), []).append(each)
    terms = [_terms(members[0]) for members in groups.values()]
    return [Group(_title(own, terms), members) for own, members in zip(terms, groups.values(), strict=True)]


def require_metric(sets: Sequence[EvaluatedSet], metric: str) -> None:
    """Check that each receipt has this metric for some ranker.

    Raises:
        ValueError: one has not; names those that it has.
    """
    for each in sets:
        there = dict.fromkeys(name for row in each.receipt["rankers"] for name in row["metrics"])
        if metric not in there:
            raise ValueError(f"{each.place} has no metric {metric!r}; it has {', '.join(there) or 'none'}")


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The keys with different values, those that only one has among them, with both values.

    >>> differing({"seed": 0, "max_history": 20}, {"seed": 0, "max_history": 50})
    ['max_history (20, 50)']
    """
    keys = dict.fromkeys([*first, *second])
    return [
        f"{key} ({shown(first.get(key))}, {shown(second.get(key))})"
        for key in keys
        if first.get(key) != second.get(key)
    ]


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        found = sorted(source.glob("*.json"))
        if not found:
            raise DataError(f"{source} holds no receipts (*.json); make one with recbase evaluate --output")
        return found
    if not source.exists():
        raise FileNotFoundError(f"there is no receipt {source}; give files or folders that recbase evaluate wrote")
    return [source]


def _checked(receipt: dict[str, Any], path: Path) -> dict[str, Any]:
    missing = [part for part in _PARTS if part not in receipt]
    if missing:
        raise DataError(f"{path} is not a receipt: {', '.join(missing)} missing; make it again with recbase evaluate")
    return receipt


def _require_distinct(sets: Sequence[EvaluatedSet]) -> None:
    seen: dict[tuple, EvaluatedSet] = {}
    for each in sets:
        protocol = each.receipt["protocol"]
        key = (protocol["name"], protocol["seed"], each.hash)
        other = seen.setdefault(key, each)
        if other is not each:
            raise DataError(
                f"{other.place} and {each.place} are both of {each.name} under {protocol['name']}, seed "
                f"{protocol['seed']}, and differ in {_differences(other, each)}; report them apart"
            )


def _differences(first: EvaluatedSet, second: EvaluatedSet) -> str:
    options, others = ({**each.receipt["options"], "output": None} for each in (first, second))
    found = differing(options, others) or differing(_terms(first), _terms(second))
    return ", ".join(found) or "no option: one is a rerun of the other"


def _terms(each: EvaluatedSet) -> dict[str, Any]:
    """All that must be equal for figures of different data sets to be averaged."""
    protocol, model = each.receipt["protocol"], each.receipt["model"]
    own_rules = _RULES_OF_A_SET if "data_set" in protocol else ()
    switches = {name: value for name, value in protocol.items() if not _is_count(name) and name not in own_rules}
    made_with = "baselines alone" if model is None else f"model {model['name']} (weights {model['weights']})"
    return {**switches, "model": made_with}


def _is_count(name: str) -> bool:
    """Whether a setting says what came out on this data set, and not what was asked for."""
    if name in ("num_negatives", "num_candidates"):
        return False
    return name.startswith(("num_", "users_")) or name in ("unknown_items", "candidates_in_history", "ready_made")


def _title(own: dict[str, Any], groups: Sequence[dict[str, Any]]) -> str:
    """Protocol, seed and model, and what else tells this group from others of the same protocol and seed."""
    alike = [terms for terms in groups if (terms["name"], terms["seed"]) == (own["name"], own["seed"])]
    telling = dict.fromkeys(name for other in alike for name in own if own[name] != other.get(name))
    telling.pop("model", None)
    return ", ".join(
        [own["name"], f"seed {own['seed']}", *(f"{name} {shown(own[name])}" for name in telling), own["model"]]
    )


def shown(value: Any) -> str:
    """A value of a receipt as text.

    >>> shown([1, 3]), shown("mini"), shown(None)
    ('[1, 3]', 'mini', 'none')
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
