"""Pretraining of the language model: next-token prediction over packed histories of semantic IDs (RecBase section 3.2).

Everything that a step does follows from (seed, step): which rows it sees, its learning rate, its dropout. So a resumed
run equals an uninterrupted one, and two processes equal one at the same global batch.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from recbase_hf.config import option, require_positive
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.progress import progress
from recbase_hf.shards.packing import IGNORED
from recbase_hf.shards.token_shards import ShardedRows
from recbase_hf.training.batches import SeededBatches
from recbase_hf.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Pretraining", "level_losses", "train_language_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretraining:
    """How the language model is trained."""

    epochs: float = option(3.0, help="passes over the packed rows")
    temperature: float = option(
        1.0, help="of mixing data sets: 1 takes them as large as they are, higher takes small ones more often"
    )
    batch_rows: int = option(16, help="rows a step, over all processes and micro-batches")
    gradient_accumulation: int = option(1, help="micro-batches a step")
    learning_rate: float = option(2e-3, help="of AdamW, at its peak")
    warm_up_share: float = option(
        0.05, help="of the steps, in which the learning rate rises; a cosine then lowers it to a tenth"
    )
    weight_decay: float = option(0.1, help="on matrices, not on norms and biases")
    clip_norm: float = option(1.0, help="largest norm of the gradient")
    evaluate_every: int = option(100, help="steps between evaluations on the validation rows")
    save_every: int = option(100, help="steps between checkpoints")
    seed: int = option(0, help="of initialization, order and dropout")

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_rows", "gradient_accumulation", "clip_norm")
        require_positive(self, "evaluate_every", "save_every")


def train_language_model(
    model: Any,
    train: ShardedRows,
    validation: ShardedRows,
    training: Pretraining,
    *,
    accelerator: Any,
    folder: str | Path,
) -> list[dict[str, Any]]:
    """Train in place; returns what was logged, and writes it to `folder/log.jsonl` as it goes.

    Args:
        model: a `Qwen2ForCausalLM`.
        train: rows to learn from.
        validation: rows of other users, for the loss a level; there may be none.
        training: how.
        accelerator: from `make_accelerator`, with `gradient_accumulation` of `training`.
        folder: for checkpoints and log; an interrupted run that finds its checkpoint there goes on from it.

    Raises:
        FloatingPointError: the loss is no longer a number; the last checkpoint is untouched.
        ValueError: batch size and processes do not fit, or the checkpoint is of a training with other settings.
    """
    return _Trainer(model, train, validation, training, accelerator, Path(folder)).run()


def level_losses(logits: Tensor, labels: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """Sums of the cross-entropy and numbers of targets a level: two (levels,) tensors."""
    losses = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=IGNORED)
    kept = labels.flatten() != IGNORED
    levels = (labels.flatten()[kept] - 1) // layout.codebook_size
    sums = torch.zeros(layout.num_levels, device=losses.device).index_add_(0, levels, losses[kept])
    return sums, torch.bincount(levels, minlength=layout.num_levels).to(sums)


class _Trainer:
    def __init__(
        self,
        model: Any,
        train: ShardedRows,
        validation: ShardedRows,
        training: Pretraining,
        accelerator: Any,
        folder: Path,
    ) -> None:
        self.training, self.layout, self.accelerator, self.folder = training, train.layout, accelerator, folder
        micro_batches = training.gradient_accumulation * accelerator.num_processes
        if training.batch_rows % micro_batches:
            raise ValueError(
                f"batch_rows {training.batch_rows} must be a multiple of gradient_accumulation x processes, "
                f"{micro_batches} here"
            )
        self.rows_per_micro_batch = training.batch_rows // micro_batches
        self.num_steps = max(1, math.ceil(training.epochs * len(train) / training.batch_rows))
        self.train_rows, self.validation_rows = train, validation
        # What a resumed run must agree with; how often to save or evaluate is free, and so is the version of a library.
        self.settings = {
            "training": {key: value for key, value in asdict(training).items() if not key.endswith("_every")},
            "model": {
                key: value for key, value in model.config.to_diff_dict().items() if key != "transformers_version"
            },
            "rows": train.hash,
        }
        model.train()
        optimizer = torch.optim.AdamW(_parameter_groups(model, training.weight_decay), betas=(0.9, 0.95))
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.log: list[dict[str, Any]] = []

    def run(self) -> list[dict[str, Any]]:
        start = self._resume()
        micro_batches = self._micro_batches(start)
        bar = progress(description="pretrain", total=self.num_steps, initial=start)
        for step in range(start, self.num_steps):
            loss = self._step(step, micro_batches)
            done = step + 1
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")
            if done % self.training.evaluate_every == 0 or done == self.num_steps:
                self._record(done, loss)
            if done % self.training.save_every == 0 or done == self.num_steps:
                self._save(done)
        bar.close()
        self.accelerator.wait_for_everyone()
        return self.log

    def _step(self, step: int, micro_batches: Iterator[list[Tensor]]) -> float:
        """One optimizer step; returns the mean loss over all its targets, on whichever process they were."""
        accumulation, processes = self.training.gradient_accumulation, self.accelerator.num_processes
        batches = [next(micro_batches) for _ in range(accumulation)]
        # After the first fetch, which draws a random number for the loader.
        torch.manual_seed(hash((self.training.seed, step, self.accelerator.process_index)))
        targets = torch.stack([(labels != IGNORED).sum() for _, _, labels in batches]).sum()
        targets = self.accelerator.reduce(targets, reduction="sum")
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        total = torch.zeros((), device=self.accelerator.device)
        for input_ids, position_ids, labels in batches:
            with self.accelerator.accumulate(self.model):
                loss = self._loss_sum(input_ids, position_ids, labels) / targets
                # DDP averages over processes and `backward` divides by the accumulation; the mean is over all targets.
                self.accelerator.backward(loss * processes * accumulation)
                total += loss.detach()
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
                    if self.accelerator.scaler is None:  # under fp16 the scaler skips such a step
                        self._require_finite(float(norm), "loss or its gradient", step)
                self.optimizer.step()
                self.optimizer.zero_grad()
        mean = float(self.accelerator.reduce(total, reduction="sum"))
        self._require_finite(mean, "loss", step)
        return mean

    def _require_finite(self, number: float, what: str, step: int) -> None:
        if not math.isfinite(number):
            last = latest_checkpoint(self.folder / "checkpoints")
            raise FloatingPointError(
                f"the {what} is {number} at step {step + 1}; the last good state is {last or 'none yet'}. "
                "Lower learning_rate, or look at the data of this step"
            )

    def _loss_sum(self, input_ids: Tensor, position_ids: Tensor, labels: Tensor) -> Tensor:
        logits = self._logits(self.model, input_ids, position_ids)
        return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum", ignore_index=IGNORED)

    @staticmethod
    def _logits(model: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        # Without `use_cache=False` transformers does not see the packing, and users attend to each other.
        return model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits

    def _learning_rate(self, step: int) -> float:
        warm_up = max(1, round(self.training.warm_up_share * self.num_steps))
        if step < warm_up:
            return self.training.learning_rate * (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.num_steps - warm_up)
        return self.training.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def _micro_batches(self, start: int) -> Iterator[list[Tensor]]:
        per_step = self.training.gradient_accumulation * self.accelerator.num_processes
        sampler = SeededBatches(
            sizes=list(self.train_rows.sizes.values()),
            batch_size=self.rows_per_micro_batch,
            start=start * per_step,
            stop=self.num_steps * per_step,
            temperature=self.training.temperature,
            seed=self.training.seed,
        )
        rows = _Rows(self.train_rows)
        return iter(self.accelerator.prepare_data_loader(DataLoader(rows, batch_sampler=sampler, collate_fn=rows.read)))

    @torch.no_grad()
    def _validation_losses(self) -> list[float]:
        """Mean loss a level over all validation rows, shared out over the processes."""
        # Not the distributed wrapper: its forwards wait for each other, and a process may have fewer rows than another.
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        sums = torch.zeros(2, self.layout.num_levels, device=self.accelerator.device)
        mine = range(self.accelerator.process_index, len(self.validation_rows), self.accelerator.num_processes)
        for start in range(0, len(mine), self.rows_per_micro_batch):
            rows = mine[start : start + self.rows_per_micro_batch]
            batch = [tensor.to(self.accelerator.device) for tensor in _Rows(self.validation_rows).read(list(rows))]
            sums += torch.stack(level_losses(self._logits(model, batch[0], batch[1]), batch[2], self.layout))
        self.model.train()
        sums = self.accelerator.reduce(sums, reduction="sum")
        return (sums[0] / sums[1].clamp_min(1)).tolist()

    def _record(self, step: int, loss: float) -> None:
        entry = {"step": step, "train_loss": loss}
        if len(self.validation_rows):
            levels = self._validation_losses()
            entry["validation_loss"] = sum(levels) / len(levels)
            entry.update({f"validation_loss_level_{level}": value for level, value in enumerate(levels, start=1)})
        self.log.append(entry)
        self.accelerator.log({key: value for key, value in entry.items() if key != "step"}, step=step)
        if self.accelerator.is_main_process:
            logger.info(
                "step %d: %s", step, " ".join(f"{key} {value:.4f}" for key, value in entry.items() if key != "step")
            )
            with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def _save(self, step: int) -> None:
        folder, state = self.folder / "checkpoints", {"log": self.log}
        save_checkpoint(folder, step, self.model, self.optimizer.optimizer, state, settings=self.settings)

    def _resume(self) -> int:
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        step = 0
        if checkpoint is not None:
            step, state = load_checkpoint(checkpoint, self.model, self.optimizer.optimizer, settings=self.settings)
            self.log = state["log"]
            logger.info("resumed from %s", checkpoint)
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(entry) + "\n" for entry in self.log)
            (self.folder / "log.jsonl").write_text(text, encoding="utf-8")  # entries after the checkpoint come again
        return step


class _Rows(Dataset):
    """Row numbers, which become tensors a batch at a time."""

    def __init__(self, rows: ShardedRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> int:
        return row

    def read(self, rows: list[int]) -> list[Tensor]:
        """Input ids, position ids and labels, each (rows, row_length) int64."""
        packed = self.rows.read(rows)
        arrays = (packed.input_ids, packed.position_ids, packed.labels)
        return [torch.from_numpy(array.astype(np.int64)) for array in arrays]


def _parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
