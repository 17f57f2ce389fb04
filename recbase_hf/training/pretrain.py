"""Pretraining of the language model: next-token prediction over packed histories of semantic IDs (RecBase section 3.2).

Everything that a step does follows from (seed, step): which rows it sees, which items are missing from them, its
learning rate, its dropout. So a resumed run equals an uninterrupted one, and two processes equal one at the same global
batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from recbase_hf.errors import LaunchError
from recbase_hf.files import require_writable
from recbase_hf.shards.token_shards import ShardedRows
from recbase_hf.training import zero
from recbase_hf.training.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from recbase_hf.training.early_stop import EarlyStop
from recbase_hf.training.held_out import probe_figures, spread_rows, validation_sums
from recbase_hf.training.loss import give_logits_again, give_losses, group_counts, group_sums
from recbase_hf.training.objective import Objective, ObjectiveBatch
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

_MicroBatch: TypeAlias = "tuple[RowBatch | None, ObjectiveBatch | None]"


def train_language_model(
    model: Any,
    train: ShardedRows,
    validation: ShardedRows,
    training: Pretraining,
    *,
    accelerator: Any,
    folder: str | Path,
    probes: Sequence[Probe] = (),
    judges: Sequence[Probe] = (),
    objective: Objective | None = None,
    binding: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train in place; returns what was logged, and writes it to `folder/log.jsonl` as it goes.

    Losses are in nats. Those of training are means over all targets since the entry before; `validation_loss` is that
    of the weights that would be kept: their moving average, if there is one. `trained_targets` are all tokens that the
    model had to predict until then, and what an objective had it tell beside them. The speed is in `speed.jsonl`.

    Args:
        model: a `Qwen2ForCausalLM`; afterwards it has the weights to keep, those of the best evaluation if training
            has `patience`. Where it is sharded, `whole_weights` gathers them. What does not require a gradient is
            neither trained nor written to checkpoints.
        train: rows to learn from.
        validation: rows of other users; there may be none.
        training: how.
        accelerator: from `make_accelerator`, with `gradient_accumulation` of `training`.
        folder: for checkpoints and log; an interrupted run that finds its checkpoint there goes on from it, on as many
            processes as it may now have.
        probes: measured every `probe_every` steps; the same on every process.
        judges: probes that are measured at every evaluation, and before the first step.
        objective: what is learned beside next tokens, or instead of them.
        binding: JSON values that a resumed run must agree with, beside all that changes what is learned.

    Raises:
        FloatingPointError: the loss is no longer a number; the last checkpoint is untouched.
        LaunchError: frozen weights or an objective beside next tokens, where the launch shards the model.
        OSError: the folder cannot be written; checkpoints that are there stay.
        ValueError: batch size and processes do not fit, there is no level for a weight or no row to judge patience by,
            or the checkpoint is of a training with other settings.
    """
    parts = (probes, judges, objective, binding)
    try:
        return _Trainer(model, train, validation, training, accelerator, Path(folder), *parts).run()
    finally:
        give_logits_again(model)
        if objective is not None:
            objective.release(model)


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
        judges: Sequence[Probe],
        objective: Objective | None,
        binding: Mapping[str, Any] | None,
    ) -> None:
        self.training, self.layout, self.accelerator, self.folder = training, train.layout, accelerator, folder
        self.probes, self.judges, self.objective = probes, judges, objective
        self.learns_tokens = objective is None or not objective.replaces_next_tokens
        _require_fitting(training, train, validation, accelerator.num_processes)
        _require_whole(model, objective, accelerator)
        if accelerator.is_main_process:
            require_writable(folder)
        if objective is None or self.learns_tokens:
            self.num_steps = max(1, math.ceil(training.epochs * train.an_epoch / training.batch_rows))
        else:
            self.num_steps = max(1, math.ceil(training.epochs * objective.steps_an_epoch))
        if self.num_steps < training.few_steps:
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
        self.settings |= dict(binding or {})
        self.log: list[dict[str, Any]] = []
        self.since_entry = np.zeros((2, self.train_rows.num_groups))  # sums and counts of losses
        self.objective_since_entry = np.zeros(2)
        self.trained_targets = 0

        if objective is not None:
            objective.prepare(model)
        model.train()
        if training.gradient_checkpointing:
            # Renamed within transformers 5.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        if training.compile:
            for layer in model.model.layers:  # one at a time: they share what is compiled, and masks stay outside
                layer.compile()
        give_losses(model, chunk=training.loss_chunk, others=None if objective is None else objective.losses)
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
        batches = self._batches(start)
        self.sight = Sight(
            self.folder, self.accelerator, self.bare_model.config,
            total=self.num_steps, start=start, peak_tflops=self.training.peak_tflops,
            description=self.training.verb,
        )  # fmt: skip
        self.sight.restart_log(self.log)
        if self.judges and start == 0:
            self._evaluate(0, probes=self.judges)
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

    def _batches(self, start: int) -> Iterator[list[_MicroBatch]]:
        """This process's micro-batches of each step: rows, and what there is beside them."""
        accumulation, stop = self.training.gradient_accumulation, self.num_steps
        rows = shown = None
        if self.learns_tokens:
            rows = micro_batches(self.train_rows, self.training, self.accelerator, start=start, stop=stop)
        if self.objective is not None:
            shown = self.objective.micro_batches(self.accelerator, accumulation=accumulation, start=start, stop=stop)
        for _ in range(start, stop):
            of_step = [None] * accumulation if rows is None else [next(rows) for _ in range(accumulation)]
            others = [None] * accumulation if shown is None else next(shown)
            yield list(zip(of_step, others, strict=True))

    def _step(self, step: int, batches: Iterator[list[_MicroBatch]]) -> float:
        """One optimizer step; returns the mean loss over all its targets, on whichever process they were."""
        accumulation, processes = self.training.gradient_accumulation, self.accelerator.num_processes
        own = next(batches)
        # After the first fetch, which draws a random number for the loader.
        torch.manual_seed(hash((self.training.seed, step, self.accelerator.process_index)))
        counts = torch.stack([self._counts(rows, others) for rows, others in own]).sum(dim=0)
        counts = self.accelerator.reduce(counts, reduction="sum")
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        sums = torch.zeros(len(counts) - 2, device=self.accelerator.device)
        for rows, others in own:
            with self.accelerator.accumulate(self.model):
                loss = self._loss(rows, others, counts, sums)
                # DDP averages over processes and `backward` divides by the accumulation; the mean is over all targets.
                self.accelerator.backward(loss * processes * accumulation)
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
                    if self.accelerator.scaler is None:  # under fp16 the scaler skips such a step
                        self._require_finite(float(norm), "loss or its gradient", step)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if self.ema is not None:
            # Rising, or short runs would keep much of their random beginning.
            self.ema.follow(self.bare_model, decay=min(self.training.ema_decay, (1 + step) / (10 + step)))
        return self._count(self.accelerator.reduce(sums, reduction="sum"), counts, step)

    def _counts(self, rows: RowBatch | None, others: ObjectiveBatch | None) -> Tensor:
        """(groups + 3,) float32: targets of each group and losses of the objective; tokens and windows of both."""
        num_groups = self.train_rows.num_groups
        counts = torch.zeros(num_groups + 3, device=self.accelerator.device)
        if rows is not None:
            counts[:num_groups] = group_counts(rows.groups, num_groups)
            counts[num_groups + 1 :] += rows.sizes
        if others is not None:
            counts[num_groups:] += others.sizes
        return counts

    def _loss(self, rows: RowBatch | None, others: ObjectiveBatch | None, counts: Tensor, sums: Tensor) -> Tensor:
        """This micro-batch's part of the step's loss; its sums are added to `sums`, (groups + 1,)."""
        num_groups = self.train_rows.num_groups
        of_rows = () if rows is None else (rows.input_ids, rows.position_ids, rows.places, rows.targets)
        found = self.model(*of_rows) if others is None else self.model(*of_rows, others)
        losses, other_losses = (found, None) if others is None else found
        parts = []
        if rows is not None:
            weight_of_all = (counts[:num_groups] * self.group_weights).sum()
            parts.append((losses * self.group_weights[rows.groups]).sum() / weight_of_all)
            sums[:num_groups] += group_sums(losses, rows.groups, num_groups)
        if other_losses is not None and self.objective is not None:
            parts.append(self.objective.weight * other_losses.sum() / counts[num_groups])
            sums[num_groups] += other_losses.detach().sum()
        return torch.stack(parts).sum() if len(parts) > 1 else parts[0]

    def _count(self, sums: Tensor, counts: Tensor, step: int) -> float:
        """Add to what the next entry will say: sums and counts of losses, tokens and windows of a step."""
        numbers = np.array([sums.tolist(), counts[:-2].tolist()])
        losses, of_objective = numbers[:, :-1], numbers[:, -1]
        mean = float(losses[0].sum() / losses[1].sum()) if self.learns_tokens else 0.0
        if self.objective is not None:
            mean += self.objective.weight * float(of_objective[0] / of_objective[1])
        self._require_finite(mean, "loss", step)
        self.since_entry += losses
        self.objective_since_entry += of_objective
        self.trained_targets += int(numbers[1].sum())
        self.sight.speed.count(*counts[-2:].tolist())
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
        probes = [*self.judges] if evaluates else []
        probes += self.probes if last or done % self.training.probe_every == 0 else ()
        if evaluates or probes:
            self._evaluate(done, losses=evaluates, probes=probes)
        stopped = self.early_stop is not None and self.early_stop.stops
        if last or stopped or done % self.training.save_every == 0:
            self._save(done)
        if stopped and self.early_stop is not None and not last:
            logger.info("stopped at step %d: validation was best at step %d", done, self.early_stop.facts["step"])

    def _evaluate(self, done: int, *, losses: bool = True, probes: Sequence[Probe] = ()) -> None:
        """Write an entry of the log, and let early stopping take note of it."""
        entry: dict[str, Any] = {"step": done}
        self.log.append(entry)
        with self._kept_weights():
            entry |= self._losses() if losses else {}
            entry |= probe_figures(self.bare_model, probes, self.accelerator) if probes else {}
            badness = self.training.badness(entry)
            if self.early_stop is not None and badness is not None:
                self.early_stop.evaluated(self.bare_model, done, badness)
        self.sight.record(entry, self._learning_rate(max(0, done - 1)))

    def _kept_weights(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that would be kept."""
        return nullcontext() if self.ema is None else self.ema.applied(self.bare_model)

    def _losses(self) -> dict[str, float]:
        entry = {
            "trained_targets": self.trained_targets,
            **mean_losses("train", self.since_entry, self.train_rows.domains),
        }
        if self.objective is not None and self.objective_since_entry[1]:
            total, count = self.objective_since_entry.tolist()
            entry[f"train_{self.objective.name}_loss"] = total / count
        self.since_entry[:] = self.objective_since_entry[:] = 0
        if len(self.validation_rows):
            model, rows = self.bare_model, self.validation_rows
            sums = validation_sums(model, rows, self.validated, self.accelerator, rows_at_once=self.micro_batch_rows)
            entry |= mean_losses("validation", sums, self.validation_rows.domains)
        return entry

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save(self, done: int) -> None:
        more = {}
        state: dict[str, Any] = {"log": self.log, "since_entry": self.since_entry.tolist()}
        state |= {"trained_targets": self.trained_targets, "processes": self.accelerator.num_processes}
        if self.objective is not None:
            state["objective_since_entry"] = self.objective_since_entry.tolist()
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
        if self.objective is not None:
            self.objective_since_entry = np.array(state["objective_since_entry"])
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


def _require_whole(model: Any, objective: Objective | None, accelerator: Any) -> None:
    """Raise where the launch would shard a model of which only a part is trained, or with another objective."""
    is_frozen = not all(parameter.requires_grad for parameter in model.parameters())
    shards = accelerator.deepspeed_plugin is not None or getattr(accelerator, "is_fsdp2", False)
    shards = shards or getattr(accelerator.state, "fsdp_plugin", None) is not None
    if shards and (is_frozen or objective is not None):
        what = "adapters" if is_frozen else "objectives beside next items"
        raise LaunchError(
            f"{what} are trained on whole models: launch without FSDP and DeepSpeed (accelerate launch --multi_gpu "
            "--num_processes N); only full fine-tuning on next items is sharded"
        )
