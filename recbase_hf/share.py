"""Which part of the work is this process's, where several share it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Share"]

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """One of `count` processes that work on the same folder.

    Attributes:
        index: which one, from 0.
        count: how many there are.
        wait: returns when all of them have called it.
    """

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, accelerator: Any) -> Share:
        """That of this process under `accelerate launch`, from its Accelerator or PartialState."""
        return cls(accelerator.process_index, accelerator.num_processes, accelerator.wait_for_everyone)

    @property
    def is_first(self) -> bool:
        """Whether this process does what is to be done once."""
        return self.index == 0

    @contextmanager
    def first_process_first(self) -> Iterator[None]:
        """The others run the block when the first process has."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def mine(self, parts: Iterable[T]) -> Iterator[T]:
        """Every `count`-th part.

        >>> [list(Share(index, 2).mine("abcde")) for index in range(2)]
        [['a', 'c', 'e'], ['b', 'd']]
        """
        return (part for number, part in enumerate(parts) if number % self.count == self.index)
