"""Training of the CL-VAE quantizer with its curriculum (RecBase section 3.1).

Level 1 learns alone; the next level opens when validation loss and code use of the newest one have settled, starting
from k-means of the residuals of a large sample. Unused codes are moved onto current residuals. The authors' released
code opens levels at fixed epochs, re-fits level 1 from one batch every 17 epochs and has an entropy term without
gradient; none of that is repeated here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from recbase_hf.auto import ClVaeConfig, ClVaeModel
from recbase_hf.config import option, require_positive
from recbase_hf.modeling.centering import center, shrunk_mean
from recbase_hf.progress import progress
from recbase_hf.training.batches import SeededBatches
from recbase_hf.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint

__all__ = ["LevelReport", "QuantizerTraining", "train_quantizer"]

logger = logging.getLogger(__name__)

MAX_VALIDATION_ITEMS = 10_000
"""They go through the model at once, and judge settling as well as any number more."""


@dataclass(frozen=True)
class QuantizerTraining:
    """How the quantizer is trained."""

    batch_size: int = option(512, help="items a step, over all processes")
    learning_rate: float = option(1e-3, help="of AdamW, after 20 steps of warm-up")
    max_steps_per_level: int = option(400, help="a level that has not settled by then is taken as settled")
    evaluate_every: int = option(50, help="steps between evaluations, at which unused codes are replaced too")
    patience: int = option(2, help="evaluations over which change is judged")
    tolerance: float = option(
        0.01, help="relative change of validation loss and code use below which a level has settled"
    )
    validation_share: float = option(0.1, help="of the items, held out to judge settling")
    kmeans_sample: int = option(64, help="items for each code, at most, whose residuals start a level")
    save_every: int = option(200, help="steps between checkpoints")
    seed: int = option(0, help="of everything")

    def __post_init__(self) -> None:
        require_positive(self, "batch_size", "learning_rate", "max_steps_per_level", "evaluate_every", "patience")
        require_positive(self, "kmeans_sample", "save_every")


@dataclass(frozen=True)
class LevelReport:
    """One level at the end of training, over all items.

    Attributes:
        level: 1 is the first.
        steps: trained while it was the newest.
        reconstruction_loss: mean squared distance of centered vectors to what the codes up to here decode to.
        used_codes: codes that at least one item has.
        perplexity: e to the entropy of the code use; `codebook_size` when all are used alike.
    """

    level: int
    steps: int
    reconstruction_loss: float
    used_codes: int
    perplexity: float


@dataclass
class _Curriculum:
    """Which level is newest, and how its evaluations have gone."""

    level: int = 0
    opened_at: int = 0
    evaluations: list[tuple[float, float]] = field(default_factory=list)
    steps_of_level: list[int] = field(default_factory=list)

    def settled(self, step: int, training: QuantizerTraining) -> bool:
        if step - self.opened_at >= training.max_steps_per_level:
            return True
        if len(self.evaluations) <= training.patience:
            return False
        then, now = self.evaluations[-1 - training.patience], self.evaluations[-1]
        return all(abs(new - old) <= training.tolerance * abs(old) for old, new in zip(then, now, strict=True))

    def open_next(self, step: int) -> None:
        self.steps_of_level.append(step - self.opened_at)
        self.level, self.opened_at, self.evaluations = self.level + 1, step, []


def train_quantizer(
    vectors: Mapping[str, np.ndarray],
    config: ClVaeConfig,
    training: QuantizerTraining,
    *,
    accelerator: Accelerator,
    checkpoints: str | Path | None = None,
) -> tuple[ClVaeModel, list[LevelReport]]:
    """Train a `ClVaeModel` on the item vectors of some domains.

    Args:
        vectors: for each domain its (items, width) unit vectors, as the text encoder gave them.
        config: shape and loss weights; its `input_dim` must be the vectors' width.
        training: how.
        accelerator: prepares model, optimizer and batches.
        checkpoints: folder for the training state; an interrupted run that finds its state there goes on from it.

    Returns:
        The trained model on the CPU and one report a level.

    Raises:
        ValueError: the widths differ, or the state in `checkpoints` is of a training with other settings.
    """
    for name, domain in vectors.items():
        if domain.shape[1] != config.input_dim:
            raise ValueError(
                f"the vectors of {name} are {domain.shape[1]} wide, the configuration says {config.input_dim}"
            )
    torch.manual_seed(training.seed)
    model = ClVaeModel(config)
    corpus_mean = np.mean([domain.mean(axis=0, dtype=np.float64) for domain in vectors.values()], axis=0)
    model.corpus_mean.copy_(torch.from_numpy(corpus_mean))
    trainer = _Trainer(model, _centered(vectors, corpus_mean, config), training, accelerator)
    trainer.run(checkpoints)
    model = accelerator.unwrap_model(trainer.model).cpu().eval()
    del model.forward  # the wrapper of the trainer
    return model, _report(model, trainer.vectors.cpu(), trainer.curriculum.steps_of_level)


def _centered(vectors: Mapping[str, np.ndarray], corpus_mean: np.ndarray, config: ClVaeConfig) -> Tensor:
    means = {name: shrunk_mean(domain, corpus_mean, config.mean_shrinkage) for name, domain in vectors.items()}
    return torch.from_numpy(np.concatenate([center(domain, means[name]) for name, domain in vectors.items()]))


class _Trainer:
    def __init__(
        self, model: ClVaeModel, vectors: Tensor, training: QuantizerTraining, accelerator: Accelerator
    ) -> None:
        self.training = training
        self.accelerator = accelerator
        self.vectors = vectors
        held_out = max(1, int(len(vectors) * training.validation_share)) if len(vectors) > 10 else 0
        held_out = min(held_out, MAX_VALIDATION_ITEMS)
        order = torch.from_numpy(np.random.default_rng(training.seed).permutation(len(vectors)))
        self.train_rows = vectors[order[held_out:]]
        self.valid_rows = (vectors[order[:held_out]] if held_out else vectors).to(accelerator.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.0)
        self.curriculum = _Curriculum()
        # Which code is nearest takes float32, also from an accelerator that was made for a language model in bf16.
        model.forward = torch.autocast(accelerator.device.type, enabled=False)(model.forward)  # type: ignore[method-assign]
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.inner: ClVaeModel = accelerator.unwrap_model(self.model)

    def run(self, checkpoints: str | Path | None) -> None:
        training, inner = self.training, self.inner
        step = self._resume(checkpoints)
        batches = self._batches(step)
        last = inner.config.num_levels * training.max_steps_per_level
        bar = progress(description="train quantizer", total=last, initial=step)
        while self.curriculum.level < inner.config.num_levels:
            if step == self.curriculum.opened_at:
                self._open_level()
            (batch,) = next(batches)
            # After the first fetch, which draws a random number for the loader.
            torch.manual_seed(hash((training.seed, step, self.accelerator.process_index)))
            self._step(batch, step)
            step += 1
            bar.update()
            evaluated = step % training.evaluate_every == 0
            if evaluated:
                loss, used = self._evaluate()
                bar.set_postfix(level=self.curriculum.level + 1, loss=f"{loss:.4f}", used=int(used))
            if self.curriculum.settled(step, training):
                self.curriculum.open_next(step)
            elif evaluated:  # a code that is moved needs steps to settle, so not when the level is done
                self._replace_unused()
            if checkpoints is not None and step % training.save_every == 0:
                self._save(checkpoints, step)
        bar.close()

    def _batches(self, start: int) -> Any:
        processes = self.accelerator.num_processes
        if self.training.batch_size % processes:
            raise ValueError(f"batch_size {self.training.batch_size} must be a multiple of the {processes} processes")
        most = self.inner.config.num_levels * self.training.max_steps_per_level
        sampler = SeededBatches(
            num_rows=len(self.train_rows),
            batch_size=self.training.batch_size // processes,
            start=start * processes,
            stop=most * processes,
            seed=self.training.seed,
        )
        return iter(self.accelerator.prepare(DataLoader(TensorDataset(self.train_rows), batch_sampler=sampler)))

    def _step(self, batch: Tensor, step: int) -> None:
        self.inner.active_levels = self.curriculum.level + 1
        self.model.train()
        warm_up = min(1.0, (step - self.curriculum.opened_at + 1) / 20)
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * warm_up
        # `backward` divides by the micro-batches of the accelerator's steps; here every batch is a step.
        loss = self.model(batch).loss
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the quantizer's loss is {float(loss)} at step {step + 1}; lower learning_rate")
        self.accelerator.backward(loss * self.accelerator.gradient_accumulation_steps)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _open_level(self) -> None:
        """Start the newest level from k-means of what is left to quantize."""
        self.inner.eval()
        config, level = self.inner.config, self.curriculum.level
        sample = self._sample(self.training.kmeans_sample * config.codebook_size, seed=level)
        residuals = self.inner.residuals(sample, level)
        centers = _kmeans(residuals.cpu().numpy(), config.codebook_size, seed=self.training.seed)
        book = broadcast(torch.from_numpy(centers).to(residuals))
        with torch.no_grad():
            self.inner.codebooks[level] = book
        self._forget_moments(level, torch.arange(config.codebook_size))
        if config.freeze_earlier_levels:
            for earlier in range(level):  # which momentum would go on moving
                self._forget_moments(earlier, torch.arange(config.codebook_size))

    def _evaluate(self) -> tuple[float, float]:
        """Validation loss and used codes of the newest level; both are recorded."""
        self.inner.eval()
        with torch.no_grad():
            loss = float(self.inner(self.valid_rows).reconstruction_loss)
        counts, _ = self._code_use(self.curriculum.level)
        self.curriculum.evaluations.append((loss, float((counts > 0).sum())))
        return self.curriculum.evaluations[-1]

    def _replace_unused(self) -> None:
        """Give the unused codes of all levels that still learn new places."""
        first = self.curriculum.level if self.inner.config.freeze_earlier_levels else 0
        for level in range(first, self.curriculum.level + 1):
            counts, residuals = self._code_use(level)
            self._replace(level, torch.nonzero(counts == 0)[:, 0], residuals)

    def _code_use(self, level: int) -> tuple[Tensor, Tensor]:
        """How often a sample of items uses each code of a level, and the sample's residuals there."""
        residuals = self.inner.residuals(self._sample(16 * self.inner.config.codebook_size, seed=1_000_000), level)
        codes = torch.cdist(residuals, self.inner.codebooks[level]).argmin(dim=1)
        return torch.bincount(codes, minlength=self.inner.config.codebook_size), residuals

    def _replace(self, level: int, unused: Tensor, residuals: Tensor) -> None:
        if len(unused) == 0:
            return
        book = self.inner.codebooks[level]
        # Far residuals are where codes are missing.
        distances = torch.cdist(residuals, book).min(dim=1).values
        chosen = torch.multinomial(distances + 1e-9, len(unused), replacement=len(unused) > len(residuals))
        with torch.no_grad():
            book[unused] = broadcast(residuals[chosen])
        self._forget_moments(level, unused)

    def _forget_moments(self, level: int, rows: Tensor) -> None:
        state = self.optimizer.state.get(self.inner.codebooks, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][level, rows.to(state[name].device)] = 0.0

    def _sample(self, size: int, *, seed: int) -> Tensor:
        rows = np.random.default_rng((self.training.seed, seed)).permutation(len(self.train_rows))[:size]
        return self.train_rows[torch.from_numpy(rows)].to(self.accelerator.device)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What a resumed run must agree with; how often to save is free, and so is the version of a library."""
        config, training = self.inner.config.to_dict(), asdict(self.training)
        config = {key: value for key, value in config.items() if key != "transformers_version" and key[0] != "_"}
        del training["save_every"]
        vectors = hashlib.sha256(self.vectors.numpy().data).hexdigest()
        return {"config": config, "training": training, "vectors": vectors}

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
        logger.info("resumed from %s", checkpoint)
        return step


def _kmeans(points: np.ndarray, num_clusters: int, *, seed: int) -> np.ndarray:
    """(num_clusters, width) float32 centers. Where there are fewer distinct points than clusters, the points themselves
    and copies of them with a little noise, which never win a nearest-code search until training moves them."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError('training a tokenizer needs scikit-learn: pip install "recbase-hf[train]"') from error

    distinct = np.unique(points, axis=0)
    if len(distinct) > num_clusters:
        fitted = KMeans(num_clusters, n_init=1, max_iter=20, random_state=seed).fit(points)
        return fitted.cluster_centers_.astype(np.float32)
    rng = np.random.default_rng(seed)
    copies = distinct[rng.integers(0, len(distinct), num_clusters - len(distinct))]
    noise = rng.normal(size=copies.shape) * (1e-3 + 0.1 * points.std(axis=0))
    return np.concatenate([distinct, copies + noise]).astype(np.float32)


@torch.no_grad()
def _report(model: ClVaeModel, vectors: Tensor, steps_of_level: list[int]) -> list[LevelReport]:
    codes = model.encode(vectors)
    reports = []
    for level, steps in enumerate(steps_of_level):
        counts = torch.bincount(codes[:, level], minlength=model.config.codebook_size)
        shares = counts[counts > 0] / len(codes)
        error = 0.0
        for start in range(0, len(codes), 8192):
            batch = slice(start, start + 8192)
            error += float((model.decode(codes[batch, : level + 1]) - vectors[batch]).square().sum())
        reports.append(
            LevelReport(
                level=level + 1,
                steps=steps,
                reconstruction_loss=error / len(codes),
                used_codes=int((counts > 0).sum()),
                perplexity=float(torch.exp(-(shares * shares.log()).sum())),
            )
        )
    return reports
