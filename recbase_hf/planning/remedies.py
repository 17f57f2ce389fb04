"""Which options would make a run fit into the memory of its GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from recbase_hf.planning.memory import GIB
from recbase_hf.planning.planned_run import PlannedRun, planned_memory

__all__ = ["find_remedies"]

MOST_GPUS = 1024
CHUNK = 1024


def find_remedies(config: Any, run: PlannedRun) -> dict[str, int]:
    """Settings with which the run would fit, as flags, and the bytes on one GPU that it would then take.

    All those that are enough alone; where none is, the first combination that is enough; where none is, the fewest
    GPUs, in powers of two times those of the run. Empty where nothing helps.
    """
    kinds = _changes(run)
    found: dict[str, int] = {}
    for changes in kinds:
        found |= _first_that_fits(config, run, changes)
    if found:
        return found
    together: dict[str, Any] = {}
    for changes in kinds:
        together |= changes[-1]
        if taken := _first_that_fits(config, run, _with_and_without_accumulation(together)):
            return taken
    gpus = 2 * run.gpus
    while gpus <= MOST_GPUS:
        rows = -(-run.batch_rows // gpus) * gpus
        shared = {"gpus": gpus, "batch_rows": rows, "strategy": "fsdp", "gradient_checkpointing": True}
        shared["gradient_accumulation"] = rows // gpus
        if taken := _first_that_fits(config, run, [{**shared, "gradient_accumulation": 1}, shared]):
            return taken
        gpus *= 2
    return {}


def _with_and_without_accumulation(changes: dict[str, Any]) -> list[dict[str, Any]]:
    """FSDP keeps whole gradients while micro-batches accumulate, so that both can be the one that takes less."""
    return [changes, {name: value for name, value in changes.items() if name != "gradient_accumulation"}]


def _changes(run: PlannedRun) -> list[list[dict[str, Any]]]:
    """Changes by kind, the kinds that cost least first, in each the mildest first."""
    kinds: list[list[dict[str, Any]]] = []
    if run.loss_chunk == 0 or run.loss_chunk > CHUNK:
        kinds.append([{"loss_chunk": CHUNK}])
    if run.mixed_precision == "no":
        kinds.append([{"mixed_precision": "bf16"}])
    rows = run.batch_rows // run.gpus
    more = [steps for steps in range(run.gradient_accumulation + 1, rows + 1) if rows % steps == 0]
    if more:
        kinds.append([{"gradient_accumulation": steps} for steps in more])
    if not run.gradient_checkpointing:
        kinds.append([{"gradient_checkpointing": True}])
    if run.gpus > 1 and run.strategy != "fsdp":
        kinds.append([{"strategy": "fsdp"}])
    return kinds


def _first_that_fits(config: Any, run: PlannedRun, changes: list[dict[str, Any]]) -> dict[str, int]:
    return next((taken for change in changes if (taken := _if_it_fits(config, run, change))), {})


def _if_it_fits(config: Any, run: PlannedRun, change: dict[str, Any]) -> dict[str, int]:
    """The change as one would type it and the bytes that the run then takes; empty where these are too many."""
    total = sum(planned_memory(config, replace(run, **change)).values())
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in change.items()
        if value != getattr(run, name)
    ]
    return {" ".join(words): total} if total <= run.gpu_memory * GIB else {}
