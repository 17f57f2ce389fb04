"""Histories with candidates of which some were clicked: what the CTR loss learns from, drawn anew for every step.

Where a data set has a table of impressions, candidates are what people were shown. Elsewhere the clicked one is an
event of the history, and the others are drawn from the catalog or from what other users of the batch have clicked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from recbase_hf.data.histories import Histories
from recbase_hf.finetuning.settings import FineTuning
from recbase_hf.training.batches import SeededBatches

__all__ = ["ClickExamples", "ClickSource", "Example", "Shown"]


class Example(NamedTuple):
    """One user, one moment.

    Attributes:
        history: (n,) int64 item rows, oldest first.
        candidates: (n,) int64 item rows.
        labels: (n,) int8, 1 where the candidate was clicked.
    """

    history: np.ndarray
    candidates: np.ndarray
    labels: np.ndarray


class Shown(NamedTuple):
    """Impressions: a list entry each, as in `Example`; each has a candidate that was clicked and one that was not."""

    histories: list[np.ndarray]
    candidates: list[np.ndarray]
    labels: list[np.ndarray]


@dataclass(frozen=True)
class ClickSource:
    """What one data set gives; items are rows of all data sets' items together.

    Attributes:
        items: the first of its items and the one after the last.
        histories: of the users that are learned from.
        shown: impressions of these users; None draws candidates.
    """

    items: tuple[int, int]
    histories: Histories
    shown: Shown | None = None

    @cached_property
    def users(self) -> np.ndarray:
        """(n,) int64, who has an event and a history before it."""
        return np.flatnonzero(self.histories.lengths >= 2)

    def __len__(self) -> int:
        """What an epoch draws from once: users, or impressions."""
        return len(self.users) if self.shown is None else len(self.shown.histories)


class ClickExamples:
    """Examples of all data sets, mixed by temperature as rows are.

    Args:
        sources: of each data set; the order counts.
        codes: (items, levels) int64 semantic IDs of all data sets' items together.
        tuning: how many candidates, which seed.
        max_history: items of a history, the newest.
    """

    def __init__(
        self, sources: Sequence[ClickSource], codes: np.ndarray, tuning: FineTuning, *, max_history: int
    ) -> None:
        self.sources, self.codes, self.tuning, self.max_history = list(sources), codes, tuning, max_history
        self._ends = np.cumsum([len(source) for source in self.sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def steps(self, start: int, stop: int) -> Iterator[list[Example]]:
        """The examples of the steps `start` to `stop`, all that all processes see."""
        tuning = self.tuning
        batches = SeededBatches(
            sizes=[len(source) for source in self.sources],
            batch_size=tuning.ctr_batch,
            start=start,
            stop=stop,
            temperature=tuning.temperature,
            seed=tuning.seed,
        )
        for step, numbers in enumerate(batches, start=start):
            yield self._step(step, np.array(numbers))

    def _step(self, step: int, numbers: np.ndarray) -> list[Example]:
        domains = np.searchsorted(self._ends, numbers, side="right")
        owns = numbers - np.concatenate([[0], self._ends])[domains]
        sources = [self.sources[domain] for domain in domains]
        generators = [np.random.default_rng((self.tuning.seed, step, place)) for place in range(len(numbers))]
        clicks = {
            place: _click(source, int(own), generator)
            for place, (source, own, generator) in enumerate(zip(sources, owns, generators, strict=True))
            if source.shown is None
        }
        found = []
        for place, (source, own, generator) in enumerate(zip(sources, owns, generators, strict=True)):
            if source.shown is not None:
                found.append(self._of_impression(source.shown, int(own), generator))
                continue
            others = [click.item for other, click in clicks.items() if domains[other] == domains[place]]
            found.append(self._with_negatives(clicks[place], source, others, generator))
        return found

    def _with_negatives(
        self, click: _Click, source: ClickSource, others: Sequence[int], generator: np.random.Generator
    ) -> Example:
        taken, negatives = set(click.events.tolist()), list[int]()
        _take(negatives, generator.permutation(others).tolist(), taken, self.tuning.in_batch_negatives)
        # Where a batch has too few others, the catalog makes up for them; in a tiny one there may be no more.
        wanted = self.tuning.sampled_negatives + self.tuning.in_batch_negatives
        _take(negatives, generator.integers(*source.items, 8 * wanted).tolist(), taken, wanted)
        candidates = np.array([click.item, *negatives], dtype=np.int64)
        history = click.events[max(0, click.place - self.max_history) : click.place]
        return Example(history, candidates, (np.arange(len(candidates)) == 0).astype(np.int8))

    def _of_impression(self, shown: Shown, own: int, generator: np.random.Generator) -> Example:
        labels, candidates = shown.labels[own], shown.candidates[own]
        order = generator.permutation(len(labels))
        # One of either kind first, so that cutting leaves both.
        firsts = [int(np.argmax(labels[order] == label)) for label in (1, 0)]
        order = order[np.concatenate([firsts, np.delete(np.arange(len(order)), firsts)])][: self.tuning.shown]
        return Example(shown.histories[own][-self.max_history :], candidates[order], labels[order])


class _Click(NamedTuple):
    """An event of a user's history, and the whole of it."""

    events: np.ndarray
    place: int

    @property
    def item(self) -> int:
        return int(self.events[self.place])


def _click(source: ClickSource, own: int, generator: np.random.Generator) -> _Click:
    """One of a user's events, at random, but not the first, which has no history."""
    events = source.histories[int(source.users[own])]
    return _Click(events, int(generator.integers(1, len(events))))


def _take(negatives: list[int], drawn: Sequence[int], taken: set[int], up_to: int) -> None:
    """Append what is drawn and not taken, each once, until there are `up_to`."""
    for item in drawn:
        if len(negatives) >= up_to:
            return
        if item not in taken:
            taken.add(item)
            negatives.append(item)
