"""The reference scorer: one full forward per (user, candidate), legal codes found by comparing whole catalogs.

Slow and plain on purpose. The fast scorer is tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recbase_hf.catalog import ItemCatalog
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.scoring.method import ScoreMethod, accumulation_dtype

__all__ = ["score_naively"]


@torch.inference_mode()
def score_naively(
    model: Any,
    catalog: ItemCatalog,
    histories: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    *,
    method: ScoreMethod,
    batch_size: int = 64,
) -> list[np.ndarray]:
    """Scores of each user's candidates.

    Args:
        model: a `Qwen2ForCausalLM`.
        histories: for each user the catalog rows of the history, oldest first.
        candidates: for each user the catalog rows to score.

    Returns:
        For each user (candidates, levels) natural-log probabilities, code by code; rows sum to the scores.
    """
    layout = TokenLayout(catalog.codes.shape[1], catalog.codebook_size)
    pairs = [(user, row) for user, rows in enumerate(candidates) for row in rows]
    scores: list[list[float]] = []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        sequences = [
            np.concatenate(
                [layout.history_ids(catalog.codes[histories[user]]), layout.codes_to_ids(catalog.codes[row])[0]]
            )
            for user, row in batch
        ]
        length = max(len(sequence) for sequence in sequences)
        ids = torch.full((len(batch), length), layout.pad)
        for index, sequence in enumerate(sequences):
            ids[index, length - len(sequence) :] = torch.from_numpy(sequence)
        mask = (ids != layout.pad).long()
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=(mask.cumsum(1) - 1).clamp_min(0).to(model.device),
            use_cache=False,
            logits_to_keep=layout.num_levels + 1,
        ).logits[:, :-1]
        logits = logits.to(accumulation_dtype(model)).cpu()
        for index, (_, row) in enumerate(batch):
            scores.append(_score_item(logits[index], catalog, int(row), layout, method))
    dtype = np.float64 if model.dtype == torch.float64 else np.float32
    array = np.array(scores, dtype=dtype).reshape(-1, layout.num_levels)
    if np.isnan(array).any():
        raise ValueError("the model gives NaN scores; its weights are damaged: load them again")
    return np.split(array, np.cumsum([len(rows) for rows in candidates])[:-1])


def _score_item(
    logits: torch.Tensor, catalog: ItemCatalog, row: int, layout: TokenLayout, method: ScoreMethod
) -> list[float]:
    codes = catalog.codes[row]
    scores = []
    for level in range(layout.num_levels):
        level_logits = logits[level, layout.level_ids(level)]
        if method == "catalog":
            same_prefix = (catalog.codes[:, :level] == codes[:level]).all(axis=1)
            illegal = np.setdiff1d(np.arange(layout.codebook_size), catalog.codes[same_prefix, level])
            level_logits = level_logits.index_fill(0, torch.from_numpy(illegal), float("-inf"))
        scores.append(float(level_logits.log_softmax(dim=0)[codes[level]]))
    if method == "catalog":
        scores[-1] -= float(np.log((catalog.codes == codes).all(axis=1).sum()))
    return scores
