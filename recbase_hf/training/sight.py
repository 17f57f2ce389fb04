"""What one sees of a training run: progress bar, log, trackers, speed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbase_hf.progress import progress
from recbase_hf.training.flops import model_flops_utilization, peak_flops

__all__ = ["Sight", "Speed", "mean_losses"]

logger = logging.getLogger(__name__)


def mean_losses(name: str, sums_and_counts: np.ndarray, domains: Sequence[str]) -> dict[str, float]:
    """Mean losses: `NAME_loss` of all targets, `NAME_loss_level_1` of a level, `NAME_loss/DOMAIN` of a domain.

    Args:
        sums_and_counts: (2, domains * levels) float64, of the losses of each group of targets; what has none is left
            out.
        domains: names.

    >>> mean_losses("train", np.array([[1.0, 2.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]), ["books", "games"])
    {'train_loss': 1.5, 'train_loss_level_1': 1.0, 'train_loss_level_2': 2.0, 'train_loss/books': 1.5}
    """
    grid = sums_and_counts.reshape(2, len(domains), -1)
    parts = {f"{name}_loss": grid.sum(axis=(1, 2))}
    parts |= {f"{name}_loss_level_{level}": part for level, part in enumerate(grid.sum(axis=1).T, start=1)}
    parts |= {f"{name}_loss/{domain}": part for domain, part in zip(domains, grid.sum(axis=2).T, strict=True)}
    return {key: float(total / count) for key, (total, count) in parts.items() if count}


class Speed:
    """Tokens a second since it was last asked for, and the MFU.

    Args:
        config: of the model.
        peak: FLOP/s of one device; None leaves the MFU out.
        devices: how many work together.
    """

    def __init__(self, config: Any, *, peak: float | None, devices: int) -> None:
        self._config, self._peak, self._devices = config, peak, devices
        self._tokens = self._windows = self._seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time the block, which is one step."""
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start

    def count(self, tokens: float, windows: float) -> None:
        """Count what a step had on all devices, padding not included."""
        self._tokens += tokens
        self._windows += windows

    def figures(self) -> dict[str, float]:
        """`tokens_per_second`, and `mfu` where the peak is known."""
        if not self._seconds:
            return {}
        speed = self._tokens / self._seconds
        length = self._tokens / max(1.0, self._windows)
        found = {"tokens_per_second": speed}
        mfu = model_flops_utilization(
            self._config, tokens_per_second=speed, document_length=length, peak=self._peak, devices=self._devices
        )
        return found if mfu is None else {**found, "mfu": mfu}

    def restart(self) -> None:
        """Begin to count anew."""
        self._tokens = self._windows = self._seconds = 0.0


class Sight:
    """The bar, and the files `log.jsonl` (losses, the same whenever a run is interrupted) and `speed.jsonl`.

    Args:
        folder: for the files; must exist on the main process.
        accelerator: whose trackers get the same numbers.
        config: of the model.
        total: steps of the run.
        start: steps done before.
        peak_tflops: of one device, where its name does not tell.
        description: before the bar.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Any,
        config: Any,
        *,
        total: int,
        start: int,
        peak_tflops: float | None,
        description: str = "pretrain",
    ) -> None:
        self._folder, self._accelerator = folder, accelerator
        peak = _peak(accelerator) if peak_tflops is None else peak_tflops * 1e12
        self.speed = Speed(config, peak=peak, devices=accelerator.num_processes)
        self._bar = progress(description=description, total=total, initial=start)

    def step_done(self, loss: float, learning_rate: float) -> None:
        """Move the bar."""
        self._bar.update()
        speed = self.speed.figures()
        shown = {"loss": f"{loss:.3f}", "lr": f"{learning_rate:.1e}"}
        if "tokens_per_second" in speed:
            shown["tokens/s"] = f"{speed['tokens_per_second']:,.0f}"
        if "mfu" in speed:
            shown["MFU"] = f"{speed['mfu']:.1%}"
        self._bar.set_postfix(shown)

    def restart_log(self, log: list[dict[str, Any]]) -> None:
        """Write the entries up to a checkpoint; those after it come again."""
        if self._accelerator.is_main_process:
            text = "".join(json.dumps(entry) + "\n" for entry in log)
            (self._folder / "log.jsonl").write_text(text, encoding="utf-8")

    def record(self, entry: dict[str, Any], learning_rate: float) -> None:
        """Write an entry, which has `step`, and show it; trackers get the speed beside it."""
        step = entry["step"]
        numbers = {key: value for key, value in entry.items() if key != "step"}
        speed = {**self.speed.figures(), "learning_rate": learning_rate}
        self.speed.restart()
        self._accelerator.log({**numbers, **speed}, step=step)
        if self._accelerator.is_main_process:
            shown = " ".join(f"{key} {value:.4g}" for key, value in {**numbers, **speed}.items())
            logger.info("step %d: %s", step, shown)
            for name, line in (("log", entry), ("speed", {"step": step, **speed})):
                _append(self._folder / f"{name}.jsonl", json.dumps(line) + "\n")

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def _append(path: Path, text: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error}); checkpoints are untouched. Make room there and give the same command "
            "again"
        ) from error


def _peak(accelerator: Any) -> float | None:
    """That of this process's device in the precision that it computes in, where it is known."""
    if accelerator.device.type != "cuda" or accelerator.mixed_precision not in ("bf16", "fp16"):
        return None
    return peak_flops(torch.cuda.get_device_name(accelerator.device))
