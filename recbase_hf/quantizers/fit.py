"""From item vectors to a fitted quantizer: one function for every kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from recbase_hf.auto import Quantizer, QuantizerConfig, ResidualKMeansConfig, new_quantizer
from recbase_hf.errors import DataError
from recbase_hf.quantizers.gradient import require_shareable, train_quantizer
from recbase_hf.quantizers.sample import FitSample, VectorSource, draw_sample, hold_out
from recbase_hf.quantizers.starts import start_quantizer
from recbase_hf.quantizers.training import LevelReport, QuantizerTraining

__all__ = ["fit_quantizer", "fit_sample"]

MEASURED_ITEMS = 100_000
"""The reports are about so many of the fitted items at most."""


def fit_quantizer(
    sources: Mapping[str, VectorSource],
    config: QuantizerConfig,
    training: QuantizerTraining | None = None,
    *,
    accelerator: Accelerator | None = None,
    checkpoints: str | Path | None = None,
) -> tuple[Quantizer, list[LevelReport]]:
    """Fit a quantizer of any kind on the item vectors of some domains.

    Memory is bounded: sources are read in batches, twice, and at most `training.max_items` of their vectors are kept.

    Args:
        sources: for each domain its (items, width) vectors as the text encoder gave them, not centered: an array, which
            may be memory-mapped, or a `datasets.Dataset` with a column `vector`.
        config: kind and shape.
        training: how; default `QuantizerTraining()`.
        accelerator: shares the work out to the processes of `accelerate launch`; default this process alone.
        checkpoints: folder for the state of a training by gradient; an interrupted run that finds its state there goes
            on from it.

    Returns:
        The quantizer on the CPU, and one report a level.

    Raises:
        DataError: a source is empty, or its vectors are not finite or not as wide as the configuration says.
        ValueError: the batches cannot be shared out to the processes, or the state in `checkpoints` is of a training
            with other settings.

    >>> from recbase_hf import ProductQuantizerConfig
    >>> vectors = np.random.default_rng(0).normal(size=(60, 8))
    >>> config = ProductQuantizerConfig(input_dim=8, num_levels=2, codebook_size=4, level_dim=2)
    >>> quantizer, reports = fit_quantizer({"shop": vectors}, config, QuantizerTraining(max_steps_per_level=0))
    >>> [report.used_codes for report in reports]
    [4, 4]
    """
    training = training or QuantizerTraining()
    accelerator = accelerator or Accelerator()
    if _learns(config, training):
        require_shareable(training, accelerator.num_processes)
    sample = draw_sample(
        sources,
        max_items=training.max_items,
        domain_balance=training.domain_balance,
        mean_shrinkage=config.mean_shrinkage,
        seed=training.seed,
    )
    return fit_sample(sample, config, training, accelerator=accelerator, checkpoints=checkpoints)


def fit_sample(
    sample: FitSample,
    config: QuantizerConfig,
    training: QuantizerTraining,
    *,
    accelerator: Accelerator,
    checkpoints: str | Path | None = None,
) -> tuple[Quantizer, list[LevelReport]]:
    """`fit_quantizer` for item vectors that are drawn and centered already.

    Raises:
        DataError: the vectors are not as wide as the configuration says.
    """
    if sample.vectors.shape[1] != config.input_dim:
        raise DataError(
            f"the item vectors are {sample.vectors.shape[1]} wide, the quantizer's configuration says "
            f"{config.input_dim}; set input_dim to the text encoder's width"
        )
    torch.manual_seed(training.seed)
    quantizer = new_quantizer(config).to(accelerator.device)
    quantizer.corpus_mean.copy_(torch.from_numpy(sample.corpus_mean))
    fitted, held_out = hold_out(sample, training.validation_share, seed=training.seed)
    start_quantizer(
        quantizer,
        torch.from_numpy(fitted.vectors).to(accelerator.device),
        torch.from_numpy(fitted.weights),
        training,
        accelerator,
    )
    steps = [0] * config.num_levels
    if _learns(config, training):
        quantizer, steps = train_quantizer(
            quantizer, fitted, held_out, training, accelerator=accelerator, checkpoints=checkpoints
        )
    quantizer = quantizer.cpu().eval()
    # Of items that were held out: those that codes were fitted to lie nearer than any new one will.
    judged = torch.from_numpy(held_out)
    cosines = torch.nn.functional.cosine_similarity(quantizer.decode(quantizer.encode(judged)), judged)
    quantizer.fitted_cosines.copy_(torch.from_numpy(np.percentile(cosines.numpy(), np.arange(101))))
    rows = np.random.default_rng(training.seed).permutation(len(sample.vectors))[:MEASURED_ITEMS]
    return quantizer, _reports(quantizer, torch.from_numpy(sample.vectors[np.sort(rows)]), steps)


def _learns(config: QuantizerConfig, training: QuantizerTraining) -> bool:
    """Whether there is a training by gradient after the start."""
    return training.max_steps_per_level > 0 and config.model_type != ResidualKMeansConfig.model_type


def _reports(quantizer: Quantizer, vectors: Tensor, steps_of_level: list[int]) -> list[LevelReport]:
    codes = quantizer.encode(vectors)
    reports = []
    for level, steps in enumerate(steps_of_level):
        counts = torch.bincount(codes[:, level], minlength=quantizer.config.codebook_size)
        shares = counts[counts > 0] / len(codes)
        error = 0.0
        for rows in torch.arange(len(codes)).split(8192):
            error += float((quantizer.decode(codes[rows, : level + 1]) - vectors[rows]).square().sum())
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
