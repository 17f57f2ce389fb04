"""Settings and fixtures of all tests: no network, no progress bars, one thread."""

from __future__ import annotations

import os
import tempfile

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RECBASE_CACHE"] = tempfile.mkdtemp(prefix="recbase-tests-")  # never the user's own cache


@pytest.fixture(scope="session")
def world():
    from tiny_world import make_world

    return make_world()
