"""Pretraining of the language model: next-token prediction over packed histories of semantic IDs (RecBase section 3.2).

Everything that a step does follows from (seed, step): which rows it sees, which items are missing from them, its
learning rate, its dropout. So a resumed run equals an uninterrupted one, and two processes equal one at the same global
batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbase_hf.shards.token_shards import ShardedRows
from recbase_hf.training import zero
from recbase_hf.training.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    require_writable,
    save_checkpoint,
)
from recbase_hf.training.early_stop import EarlyStop
from recbase_hf.training.held_out import probe_figures, spread_rows, validation_sums
from recbase_hf.training.loss import give_logits_again, give_losses, group_counts, group_sums
from recbase_hf.training.optimizer import make_optimizer
from recbase_hf.training.rows import RowBatch, RowReader, micro_batches
from recbase_hf.training.schedule import learning_rate_share
from recbase_hf.training.settings import Pretraining
from recbase_hf.training.shadow import ShadowWeights
from recbase_hf.training.sight import Sight, mean_losses

if TYPE_CHECKING:
    from recbase_hf.training.probe import Probe

__all__ = ["Pretraining", "train_language_model"]

logger = logging.getLogger(__name__)

FEW_STEPS = 100
"""Fewer teach a model next to nothing."""


def train_language_model(
    model: Any,
    train: ShardedRows,
    validation: ShardedRows,
    training: Pretraining,
    *,
    accelerator: Any,
    folder: str | Path,
    probes: Sequence[Probe] = (),
) -> list[dict[str, Any]]:
    """Train in place; returns what was logged, and writes it to `folder/log.jsonl` as it goes.

    Losses are in nats. Those of training are means over all targets since the entry before; `validation_loss` is that
    of the weights that would be kept: their moving average, if there is one. `trained_targets` are all tokens that the
    model had to predict until then. The speed is in `speed.jsonl`.

    Args:
        model: a `Qwen2ForCausalLM`; afterwards it has the weights to keep, those of the best evaluation if training
            has `patience`. Where it is sharded, `whole_weights` gathers them.
        train: rows to learn from.
        validation: rows of other users; there may be none.
        training: how.
        accelerator: from `make_accelerator`, with `gradient_accumulation` of `training`.
        folder: for checkpoints and log; an interrupted run that finds its checkpoint there goes on from it, on as many
            processes as it may now have.
        probes: measured every `probe_every` steps; the same on every process.

    Raises:
        FloatingPointError: the loss is no longer a number; the last checkpoint is untouched.
        OSError: the folder cannot be written; checkpoints that are there stay.
        ValueError: batch size and processes do not fit, there is no level for a weight or no row to judge patience by,
            or the checkpoint is of a training with other settings.
    """
    trainer = _Trainer(model, train, validation, training, accelerator, Path(folder), probes)
    try:
        return trainer.run()
    finally:
        give_logits_again(model)


class _Trainer:
    def __init__(
        self,
        model: Any,
        train: ShardedRows,
        validation: ShardedRows,
        training: Pretraining,
        accelerator: Any,
        folder: Path,
        probes: Sequence[Probe],
    ) -> None:
        self.training, self.layout, self.accelerator, self.folder = training, train.layout, accelerator, folder
        self.probes = probes
        _require_fitting(training, train, validation, accelerator.num_processes)
        if accelerator.is_main_process:
            require_writable(folder)
        self.num_steps = max(1, math.ceil(training.epochs * train.an_epoch / training.batch_rows))
        if self.num_steps < FEW_STEPS:
            logger.warning(
                "only %d steps (%d rows, batch_rows %d): the model will be near chance; raise epochs",
                self.num_steps, train.an_epoch, training.batch_rows,
            )  # fmt: skip
        self.train_rows = RowReader(train, history_dropout=training.history_dropout, seed=training.seed)
        self.validation_rows = RowReader(validation)
        self.validated = spread_rows(list(validation.sizes.values()), training.validation_rows)
        # What a resumed run must agree with; the version of a library is free.
        config = {key: value for key, value in model.config.to_diff_dict().items() if key != "transformers_version"}
        self.settings = {"training": training.binding(), "model": config, "rows": train.hash}
        self.log: list[dict[str, Any]] = []
        self.since_entry = np.zeros((2, self.train_rows.num_groups))  # sums and counts of losses
        self.trained_targets = 0

        model.train()
        if training.gradient_checkpointing:
            # Renamed within transformers 5.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        if training.compile:
            for layer in model.model.layers:  # one at a time: they share what is compiled, and masks stay outside
                layer.compile()
        give_losses(model, chunk=training.loss_chunk)
        optimizer = make_optimizer(model, weight_decay=training.weight_decay, device=accelerator.device)
        self.micro_batch_rows = training.batch_rows // (training.gradient_accumulation * accelerator.num_processes)
        if accelerator.deepspeed_plugin is not None:
            zero.tell_deepspeed(
                accelerator.deepspeed_plugin,
                micro_batch_rows=self.micro_batch_rows,
                gradient_accumulation=training.gradient_accumulation,
                clip_norm=training.clip_norm,
            )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        if accelerator.deepspeed_plugin is not None:
            zero.know_parts(self.bare_model, self.optimizer.optimizer)
        weights = training.level_weights or (1.0,) * self.layout.num_levels
        self.group_weights = torch.tensor(weights * len(train.sizes), device=accelerator.device)
        self.ema = ShadowWeights(self.bare_model) if training.ema_decay else None
        self.early_stop = EarlyStop(training.patience, self.bare_model) if training.patience else None

    @property
    def bare_model(self) -> Any:
        """The `Qwen2ForCausalLM` itself, whose forward gives losses."""
        return self.accelerator.unwrap_model(self.model)

    def run(self) -> list[dict[str, Any]]:
        start = self._resume()
        batches = micro_batches(self.train_rows, self.training, self.accelerator, start=start, stop=self.num_steps)
        self.sight = Sight(
            self.folder, self.accelerator, self.bare_model.config,
            total=self.num_steps, start=start, peak_tflops=self.training.peak_tflops,
        )  # fmt: skip
        self.sight.restart_log(self.log)
        for step in range(start, self.num_steps):
            if self.early_stop is not None and self.early_stop.stops:
                break
            with self.sight.speed.timed():
                loss = self._step(step, batches)
            self.sight.step_done(loss, self._learning_rate(step))
            self._after_step(step + 1)
        self.sight.close()
        self._take_kept_weights()
        self.accelerator.wait_for_everyone()
        return self.log

    # ---- a step ------------------------------------------------------------------------------------------------------

    def _step(self, step: int, batches: Iterator[RowBatch]) -> float:
        """One optimizer step; returns the mean loss over all its targets, on whichever process they were."""
        accumulation, processes = self.training.gradient_accumulation, self.accelerator.num_processes
        own = [next(batches) for _ in range(accumulation)]
        # After the first fetch, which draws a random number for the loader.
        torch.manual_seed(hash((self.training.seed, step, self.accelerator.process_index)))
        num_groups = self.train_rows.num_groups
        counts = sum(torch.cat([group_counts(batch.groups, num_groups), batch.sizes]) for batch in own)
        counts = self.accelerator.reduce(counts, reduction="sum")
        weight_of_all = (counts[:num_groups] * self.group_weights).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        sums = torch.zeros(num_groups, device=self.accelerator.device)
        for batch in own:
            with self.accelerator.accumulate(self.model):
                losses = self.model(batch.input_ids, batch.position_ids, batch.places, batch.targets)
                loss = (losses * self.group_weights[batch.groups]).sum() / weight_of_all
                # DDP averages over processes and `backward` divides by the accumulation; the mean is over all targets.
                self.accelerator.backward(loss * processes * accumulation)
                sums += group_sums(losses, batch.groups, num_groups)
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
                    if self.accelerator.scaler is None:  # under fp16 the scaler skips such a step
                        self._require_finite(float(norm), "loss or its gradient", step)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if self.ema is not None:
            # Rising, or short runs would keep much of their random beginning.
            self.ema.follow(self.bare_model, decay=min(self.training.ema_decay, (1 + step) / (10 + step)))
        return self._count(torch.cat([self.accelerator.reduce(sums, reduction="sum"), counts]), step)

    def _count(self, figures: Tensor, step: int) -> float:
        """Add to what the next entry will say: sums and counts of losses, tokens and windows of a step."""
        numbers = np.array(figures.tolist())
        losses, (tokens, windows) = numbers[:-2].reshape(2, -1), numbers[-2:]
        mean = float(losses[0].sum() / losses[1].sum())
        self._require_finite(mean, "loss", step)
        self.since_entry += losses
        self.trained_targets += int(losses[1].sum())
        self.sight.speed.count(tokens, windows)
        return mean

    def _require_finite(self, number: float, what: str, step: int) -> None:
        if not math.isfinite(number):
            last = latest_checkpoint(self.folder / "checkpoints")
            raise FloatingPointError(
                f"the {what} is {number} at step {step + 1}; the last good state is {last or 'none yet'}. "
                "Lower learning_rate, or look at the data of this step"
            )

    def _learning_rate(self, step: int) -> float:
        training = self.training
        shares = {"warm_up_share": training.warm_up_share, "decay_share": training.decay_share}
        return training.learning_rate * learning_rate_share(training.schedule, step, self.num_steps, **shares)

    # ---- between steps -----------------------------------------------------------------------------------------------

    def _after_step(self, done: int) -> None:
        last = done == self.num_steps
        evaluates = last or done % self.training.evaluate_every == 0
        probes = self.probes if last or done % self.training.probe_every == 0 else ()
        if evaluates or probes:
            self.log.append({"step": done})
            with self._kept_weights():
                self.log[-1] |= self._losses(done) if evaluates else {}
                self.log[-1] |= probe_figures(self.bare_model, probes, self.accelerator) if probes else {}
            self.sight.record(self.log[-1], self._learning_rate(done - 1))
        stopped = self.early_stop is not None and self.early_stop.stops
        if last or stopped or done % self.training.save_every == 0:
            self._save(done)
        if stopped and self.early_stop is not None and not last:
            logger.info("stopped at step %d: validation was best at step %d", done, self.early_stop.facts["step"])

    def _kept_weights(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that would be kept."""
        return nullcontext() if self.ema is None else self.ema.applied(self.bare_model)

    def _losses(self, done: int) -> dict[str, float]:
        entry = {
            "trained_targets": self.trained_targets,
            **mean_losses("train", self.since_entry, self.train_rows.domains),
        }
        self.since_entry[:] = 0
        if len(self.validation_rows):
            model, rows = self.bare_model, self.validation_rows
            sums = validation_sums(model, rows, self.validated, self.accelerator, rows_at_once=self.micro_batch_rows)
            entry |= mean_losses("validation", sums, self.validation_rows.domains)
            if self.early_stop is not None:
                self.early_stop.evaluated(model, done, entry["validation_loss"])
        return entry

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save(self, done: int) -> None:
        more = {}
        state: dict[str, Any] = {"log": self.log, "since_entry": self.since_entry.tolist()}
        state |= {"trained_targets": self.trained_targets, "processes": self.accelerator.num_processes}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        if self.ema is not None:
            more["ema"] = self.ema.whole(self.bare_model)
        if self.early_stop is not None:
            state["early_stop"], more["best"] = self.early_stop.facts, self.early_stop.best.whole(self.bare_model)
        folder, optimizer = self.folder / "checkpoints", self.optimizer.optimizer
        save_checkpoint(folder, done, self.bare_model, optimizer, state, settings=self.settings, more_weights=more)

    def _resume(self) -> int:
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        if checkpoint is None:
            return 0
        step, state = load_checkpoint(checkpoint, self.bare_model, self.optimizer.optimizer, settings=self.settings)
        self.log, self.since_entry = state["log"], np.array(state["since_entry"])
        self.trained_targets = state["trained_targets"]
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.restore(self.bare_model, load_weights(checkpoint, "ema"))
        if self.early_stop is not None:
            self.early_stop.restore(self.bare_model, state["early_stop"], load_weights(checkpoint, "best"))
        logger.info("resumed from %s", checkpoint)
        before, now = state["processes"], self.accelerator.num_processes
        if before != now:
            logger.warning(
                "%d processes now, %d before: the batches stay the same; dropout of activations differs, and sums are "
                "rounded in another order, so that the result is not bit for bit that of the run as it began",
                now, before,
            )  # fmt: skip
        return step

    def _take_kept_weights(self) -> None:
        if self.early_stop is not None:
            self.early_stop.best.copy_to(self.bare_model)
        elif self.ema is not None:
            self.ema.copy_to(self.bare_model)


def _require_fitting(training: Pretraining, train: ShardedRows, validation: ShardedRows, processes: int) -> None:
    micro_batches = training.gradient_accumulation * processes
    if training.batch_rows % micro_batches:
        raise ValueError(
            f"batch_rows {training.batch_rows} must be a multiple of gradient_accumulation x processes, "
            f"{micro_batches} here"
        )
    levels = train.layout.num_levels
    if training.level_weights and len(training.level_weights) != levels:
        raise ValueError(f"level_weights has {len(training.level_weights)} numbers; the tokenizer has {levels} levels")
    if training.patience and not len(validation):
        raise ValueError("patience needs validation rows to judge by; raise validation_share, or leave patience at 0")
