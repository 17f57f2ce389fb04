"""Accelerators of their own for the fits, and a fitted quantizer of each kind."""

from __future__ import annotations

from typing import Any

import pytest

from quantizers.small_quantizers import fit
from recbase_hf.quantizers.kinds import KINDS
from training.conftest import _fresh_accelerate, forget_accelerate, new_accelerator

__all__ = ["_fresh_accelerate", "fitted", "new_accelerator"]


@pytest.fixture(scope="session", params=KINDS)
def fitted(request: pytest.FixtureRequest) -> Any:
    """The name of a kind, a quantizer of it fitted on `DOMAINS`, and the reports."""
    forget_accelerate()
    return request.param, *fit(request.param)
