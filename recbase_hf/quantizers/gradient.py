"""Training of quantizers by gradient, with the curriculum of the CL-VAE (RecBase section 3.1).

Level 1 learns alone; the next level opens when validation loss and code use of the newest one have settled, starting
from k-means of the residuals. Unused codes are moved onto current residuals. The authors' released code opens levels at
fixed epochs (`curriculum="epochs"`), re-fits level 1 from one batch every 17 epochs and has an entropy term without
gradient; the last two are not repeated here. Quantizers without residual levels learn all levels at once.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from recbase_hf.auto import ClVaeModel, Quantizer
from recbase_hf.progress import progress
from recbase_hf.quantizers.batches import GROUP_SIZE, draw_group
from recbase_hf.quantizers.kmeans import assign
from recbase_hf.quantizers.sample import FitSample
from recbase_hf.quantizers.starts import new_codebook
from recbase_hf.quantizers.training import QuantizerTraining
from recbase_hf.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint

__all__ = ["require_shareable", "train_quantizer"]

logger = logging.getLogger(__name__)


def train_quantizer(
    quantizer: Quantizer,
    sample: FitSample,
    validation: np.ndarray,
    training: QuantizerTraining,
    *,
    accelerator: Accelerator,
    checkpoints: str | Path | None = None,
) -> tuple[Quantizer, list[int]]:
    """Train a started quantizer on a sample.

    Args:
        validation: (items, width) float32, by which settling is judged.
        checkpoints: folder for the training state; an interrupted run that finds its state there goes on from it.

    Returns:
        The trained quantizer on the CPU, and for each of its levels the steps for which it was the newest; levels that
        learned together share them out.

    Raises:
        ValueError: the batches cannot be shared out to the processes, or the state in `checkpoints` is of a training
            with other settings.
    """
    trainer = _Trainer(quantizer, sample, validation, training, accelerator)
    trainer.run(checkpoints)
    trained = accelerator.unwrap_model(trainer.model).cpu().eval()
    del trained.forward  # the wrapper of the trainer
    return trained, trainer.steps_of_level()


def require_shareable(training: QuantizerTraining, num_processes: int) -> int:
    """Items a group; raises unless the processes can share the groups of a batch out evenly.

    Raises:
        ValueError: names the multiple that the batch size has to be of.
    """
    size = min(GROUP_SIZE, training.batch_size)
    if training.batch_size % (size * num_processes):
        multiple = GROUP_SIZE * num_processes
        raise ValueError(
            f"batch_size is {training.batch_size}; for {num_processes} processes it must be a multiple of {multiple}"
            + (f", or at most {GROUP_SIZE}" if num_processes == 1 else "")
        )
    return size


@dataclass
class _Curriculum:
    """Which stage the training is in, and how the evaluations of its newest level have gone."""

    stage: int = 0
    opened_at: int = 0
    evaluations: list[tuple[float, float]] = field(default_factory=list)
    steps_of_stage: list[int] = field(default_factory=list)

    def settled(self, training: QuantizerTraining) -> bool:
        if len(self.evaluations) <= training.patience:
            return False
        then, now = self.evaluations[-1 - training.patience], self.evaluations[-1]
        return all(abs(new - old) <= training.tolerance * abs(old) for old, new in zip(then, now, strict=True))

    def open_next(self, step: int) -> None:
        self.steps_of_stage.append(step - self.opened_at)
        self.stage, self.opened_at, self.evaluations = self.stage + 1, step, []


class _Trainer:
    def __init__(
        self,
        quantizer: Quantizer,
        sample: FitSample,
        validation: np.ndarray,
        training: QuantizerTraining,
        accelerator: Accelerator,
    ) -> None:
        self.training = training
        self.accelerator = accelerator
        self.curriculum = _Curriculum()
        self.group_size = require_shareable(training, accelerator.num_processes)
        groups = training.batch_size // self.group_size
        self.my_groups = range(accelerator.process_index, groups, accelerator.num_processes)
        self.sample = sample
        self.vectors = torch.from_numpy(sample.vectors).to(accelerator.device)
        self.validation = torch.from_numpy(validation).to(accelerator.device)
        optimizer = torch.optim.AdamW(quantizer.parameters(), lr=training.learning_rate, weight_decay=0.0)
        # Which code is nearest takes float32, also from an accelerator that was made for a language model in bf16.
        quantizer.forward = torch.autocast(accelerator.device.type, enabled=False)(quantizer.forward)
        self.model, self.optimizer = accelerator.prepare(quantizer, optimizer)
        self.inner: Quantizer = accelerator.unwrap_model(self.model)
        levels = self.inner.config.num_levels
        is_residual = isinstance(self.inner, ClVaeModel)
        self.levels_of_stage = [1] * levels if is_residual and training.curriculum != "none" else [levels]

    def run(self, checkpoints: str | Path | None) -> None:
        training, stages = self.training, len(self.levels_of_stage)
        step = self._resume(checkpoints)
        last = None if training.curriculum == "epochs" else sum(self.levels_of_stage) * training.max_steps_per_level
        bar = progress(description="train quantizer", total=last, initial=step)
        while self.curriculum.stage < stages:
            if step == self.curriculum.opened_at:
                self._open_stage()
            self._step(step)
            step += 1
            bar.update()
            evaluated = step % training.evaluate_every == 0
            if evaluated:
                loss, used = self._evaluate()
                bar.set_postfix(level=self._newest_level() + 1, loss=f"{loss:.4f}", used=int(used))
            if self._stage_is_done(step):
                self.curriculum.open_next(step)
            elif evaluated and training.replace_unused:  # a moved code needs steps to settle: not when all is done
                self._replace_unused(step)
            if checkpoints is not None and step % training.save_every == 0:
                self._save(checkpoints, step)
        bar.close()

    def steps_of_level(self) -> list[int]:
        stages = zip(self.curriculum.steps_of_stage, self.levels_of_stage, strict=True)
        return [steps // levels for steps, levels in stages for _ in range(levels)]

    # ---- one step ------------------------------------------------------------------------------------------------

    def _step(self, step: int) -> None:
        warm_up = min(1.0, (step - self.curriculum.opened_at + 1) / 20)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.training.learning_rate * warm_up
        self.model.train()
        for group in self.my_groups:
            batch = draw_group(
                self.vectors,
                self.sample.weights,
                self.sample.offsets,
                self.sample.domain_weights,
                with_neighbors=getattr(self.inner.config, "neighbor_weight", 0) > 0,
                generator=np.random.default_rng((self.training.seed, step, group)),
                size=self.group_size,
            )
            torch.manual_seed(hash((self.training.seed, step, group)))
            loss = self.model(batch).loss / len(self.my_groups)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the quantizer's loss is {float(loss.detach())} at step {step + 1}; lower learning_rate"
                )
            # `backward` divides by the micro-batches of the accelerator's steps; here they are divided already.
            self.accelerator.backward(loss * self.accelerator.gradient_accumulation_steps)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    # ---- the curriculum ------------------------------------------------------------------------------------------

    def _newest_level(self) -> int:
        """The deepest of the levels that learn by now."""
        return sum(self.levels_of_stage[: self.curriculum.stage + 1]) - 1

    def _stage_is_done(self, step: int) -> bool:
        training, levels = self.training, self.levels_of_stage[self.curriculum.stage]
        steps, most = step - self.curriculum.opened_at, levels * training.max_steps_per_level
        if self.curriculum.stage + 1 == len(self.levels_of_stage):
            return steps >= most  # nothing waits for these levels to settle
        if training.curriculum == "epochs":
            return steps * training.batch_size >= training.epochs_per_level * len(self.vectors)
        if self.curriculum.settled(training):
            return True
        if steps >= most:
            logger.info("level %d has not settled in %d steps; the next opens", self._newest_level() + 1, steps)
        return steps >= most

    def _open_stage(self) -> None:
        """Start the codebooks of the levels that open from k-means of what is left for them to quantize."""
        if not isinstance(self.inner, ClVaeModel):
            return
        newest = self._newest_level()
        weights = torch.from_numpy(self.sample.weights)
        self.inner.eval()
        for level in range(newest + 1 - self.levels_of_stage[self.curriculum.stage], newest + 1):
            residuals = self._residuals(self.vectors, level)
            book = new_codebook(residuals, weights, self.inner, level, self.training, self.accelerator)
            with torch.no_grad():
                self.inner.codebooks[level] = broadcast(book)
            self._forget_moments(level, torch.arange(len(book)))
        self.inner.active_levels = newest + 1
        if self.inner.config.freeze_earlier_levels:
            for earlier in range(newest):  # which momentum would go on moving
                self._forget_moments(earlier, torch.arange(self.inner.config.codebook_size))

    def _evaluate(self) -> tuple[float, float]:
        """Validation loss and used codes of the newest level; both are recorded."""
        self.inner.eval()
        level = self._newest_level()
        codes = self.inner.encode(self.validation)
        decoded = self.inner.decode(codes[:, : level + 1])
        loss = float((decoded - self.validation).square().sum(dim=1).mean())
        used = len(torch.unique(self.inner.encode(self._usage_sample)[:, level]))
        # What the first process found, so that all open the next level at the same step.
        loss, used = broadcast(torch.tensor([loss, used], device=self.vectors.device)).tolist()
        self.curriculum.evaluations.append((loss, used))
        return self.curriculum.evaluations[-1]

    # ---- unused codes --------------------------------------------------------------------------------------------

    @cached_property
    def _usage_sample(self) -> Tensor:
        """Items by which a code counts as used or not."""
        rows = np.random.default_rng((self.training.seed, 1_000_000)).permutation(len(self.vectors))
        return self.vectors[torch.from_numpy(rows[: 16 * self.inner.config.codebook_size]).to(self.vectors.device)]

    def _replace_unused(self, step: int) -> None:
        """Give the unused codes of all levels that still learn new places."""
        if not isinstance(self.inner, ClVaeModel):
            return
        torch.manual_seed(hash((self.training.seed, step)))  # not the last group, which differs by process
        first = self._newest_level() if self.inner.config.freeze_earlier_levels else 0
        for level in range(first, self._newest_level() + 1):
            residuals = self._residuals(self._usage_sample, level)
            codes, distances = assign(residuals, self.inner.codebooks[level])
            counts = broadcast(torch.bincount(codes, minlength=self.inner.config.codebook_size))
            self._replace(level, torch.nonzero(counts == 0)[:, 0], residuals, distances.sqrt())

    def _replace(self, level: int, unused: Tensor, residuals: Tensor, distances: Tensor) -> None:
        if len(unused) == 0:
            return
        # Far residuals are where codes are missing.
        chosen = torch.multinomial(distances + 1e-9, len(unused), replacement=len(unused) > len(residuals))
        with torch.no_grad():
            self.inner.codebooks[level][unused] = broadcast(residuals[chosen])
        self._forget_moments(level, unused)

    @torch.no_grad()
    def _residuals(self, vectors: Tensor, level: int) -> Tensor:
        assert isinstance(self.inner, ClVaeModel)
        return torch.cat([self.inner.residuals(chunk, level) for chunk in vectors.split(16_384)])

    def _forget_moments(self, level: int, rows: Tensor) -> None:
        state = self.optimizer.state.get(self.inner.codebooks, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][level, rows.to(state[name].device)] = 0.0

    # ---- saving and resuming -------------------------------------------------------------------------------------

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.sample.vectors.data).hexdigest()

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What a resumed run must agree with; how often to save is free."""
        training = asdict(self.training)
        del training["save_every"]
        return {"config": self.inner.config.settings(), "training": training, "vectors": self._digest}

    def _save(self, checkpoints: str | Path, step: int) -> None:
        state = {"curriculum": asdict(self.curriculum)}
        save_checkpoint(checkpoints, step, self.model, self.optimizer.optimizer, state, settings=self._settings)

    def _resume(self, checkpoints: str | Path | None) -> int:
        checkpoint = latest_checkpoint(checkpoints) if checkpoints is not None else None
        if checkpoint is None:
            return 0
        step, state = load_checkpoint(checkpoint, self.model, self.optimizer.optimizer, settings=self._settings)
        curriculum = state["curriculum"]
        curriculum["evaluations"] = [tuple(pair) for pair in curriculum["evaluations"]]
        self.curriculum = _Curriculum(**curriculum)
        if isinstance(self.inner, ClVaeModel) and self.curriculum.stage < len(self.levels_of_stage):
            self.inner.active_levels = self._newest_level() + 1
        logger.info("resumed from %s", checkpoint)
        return step
