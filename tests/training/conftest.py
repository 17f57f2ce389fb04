"""Accelerators of their own for the training tests: Accelerate keeps its state in singletons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from accelerate.state import AcceleratorState, GradientState

from recbase_hf.training.launch import make_accelerator


def forget_accelerate() -> None:
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture
def new_accelerator() -> Callable[..., Any]:
    """`make_accelerator` as if in a process that has just started."""

    def new(**options: Any) -> Any:
        forget_accelerate()
        return make_accelerator(**options)

    return new
