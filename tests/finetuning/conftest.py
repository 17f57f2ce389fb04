"""A shop and a base on disk, an encoder that needs no files, and accelerators of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, GradientState

from finetuning.small_shop import write_base, write_shop
from recbase_hf.training.launch import make_accelerator
from tiny_world import HashEncoder


def forget_accelerate() -> None:
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    monkeypatch.setenv("RECBASE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("recbase_hf.text.vector_cache.load_text_encoder", "recbase_hf.load_text_encoder"):
        monkeypatch.setattr(name, lambda *_args, **_options: HashEncoder(), raising=False)
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shops") / "shop")


@pytest.fixture
def new_accelerator() -> Callable[..., Any]:
    """`make_accelerator` as if in a process that has just started."""

    def new(**options: Any) -> Any:
        forget_accelerate()
        return make_accelerator(**options)

    return new
