"""Fine-tuning from a bundle to an adapter or another bundle: the trainer of pretraining over other weights and data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recbase_hf.adapters import Base
from recbase_hf.finetuning.adapters import add_adapter
from recbase_hf.finetuning.clicks import ClickObjective
from recbase_hf.finetuning.data import TuningData
from recbase_hf.finetuning.settings import VALIDATION, FineTuning, validation_gauc
from recbase_hf.training.checkpoints import whole_weights
from recbase_hf.training.pretrain import train_language_model
from recbase_hf.training.probe import NEGATIVES

if TYPE_CHECKING:
    from recbase_hf.training.probe import Probe

__all__ = ["Tuned", "fine_tune", "gauc_in_words", "kept_entry"]

logger = logging.getLogger(__name__)


class Tuned(NamedTuple):
    """What fine-tuning leaves.

    Attributes:
        model: the `Qwen2ForCausalLM`, with the adapter in it, if there is one.
        wrapped: PEFT's model around it; None after full fine-tuning.
        weights: all of them, on the main process.
        log: what was logged, from before the first step on.
        trained: how many numbers were learned.
        clicks: `scale` and `bias` that make a logit of a click of a joint score; empty where clicks were not learned.
    """

    model: Any
    wrapped: Any
    weights: dict[str, Any]
    log: list[dict[str, Any]]
    trained: int
    clicks: dict[str, float]


def fine_tune(
    model: Any,
    data: TuningData,
    tuning: FineTuning,
    *,
    base: Base,
    accelerator: Any,
    folder: str | Path,
    probes: Sequence[Probe] = (),
) -> Tuned:
    """Fine-tune in place.

    The weights to keep are those of the best evaluation, which may be the one before the first step: then the model is
    what it was, and a warning says so.

    Args:
        model: the base, a `Qwen2ForCausalLM`.
        data: from `load_tuning_data`.
        tuning: how.
        base: what an adapter will name as its base.
        accelerator: from `make_accelerator`, with `gradient_accumulation` of `tuning`.
        folder: for checkpoints and log; an interrupted run goes on from there.
        probes: of other data sets, measured every `probe_every` steps.

    Raises:
        ImportError: an adapter, but no peft.
        FloatingPointError, LaunchError, OSError, ValueError: as `train_language_model` has it.
    """
    wrapped = None
    if tuning.method != "full":
        wrapped = add_adapter(model, tuning, data.train.layout, base=base.name)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    objective = None if data.examples is None else ClickObjective(data.examples, data.train.layout)
    log = train_language_model(
        model,
        data.train,
        data.validation,
        tuning,
        accelerator=accelerator,
        folder=folder,
        probes=probes,
        judges=data.judges,
        objective=objective,
        binding={"base": base.weights, "data": data.data},
    )
    if kept_entry(log, tuning)["step"] == 0:
        logger.warning(
            "no evaluation was better than the base before fine-tuning, whose weights are kept; lower learning_rate, "
            "raise patience, or give more data"
        )
    weights = whole_weights(model)
    return Tuned(model.eval(), wrapped, weights, log, trained, {} if objective is None else objective.facts)


def kept_entry(log: Sequence[dict[str, Any]], tuning: FineTuning) -> dict[str, Any]:
    """The entry of the weights that were kept: with patience the best of all evaluations, else the last."""
    judged = [entry for entry in log if validation_gauc(entry) is not None]
    return max(judged, key=lambda entry: validation_gauc(entry) or 0.0) if tuning.patience else judged[-1]


def gauc_in_words(log: Sequence[dict[str, Any]], tuning: FineTuning) -> str:
    """What fine-tuning has brought on held-out users, a line a data set and score."""
    before, kept = log[0], kept_entry(log, tuning)
    lines = [f"last items of held-out users among {NEGATIVES} others (GAUC), before -> after {kept['step']} steps:"]
    for name in (name for name in kept if name.startswith(VALIDATION)):
        score, _, data = name.removeprefix(f"{VALIDATION}_").partition("/")
        lines.append(f"  {data}, {score}: {before[name]:.4f} -> {kept[name]:.4f}")
    return "\n".join(lines)
