"""One progress bar for the whole library: on the main process only, silenced like the rest of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

__all__ = ["is_main_process", "progress"]


def is_main_process() -> bool:
    """Whether this process is rank 0 of a launch (or the only one); needs neither torch nor accelerate."""
    return os.environ.get("RANK", "0") == "0"


def progress(
    iterable: Iterable[Any] | None = None, *, description: str, total: int | None = None, **options: Any
) -> Any:
    """A `tqdm` bar over `iterable` (or a manual one of `total` steps).

    Silent on other processes and where `HF_HUB_DISABLE_PROGRESS_BARS` or `huggingface_hub.utils.disable_progress_bars`
    says so.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from tqdm.auto import tqdm

    disable = are_progress_bars_disabled() or not is_main_process()
    return tqdm(iterable, desc=description, total=total, disable=disable, dynamic_ncols=True, **options)
