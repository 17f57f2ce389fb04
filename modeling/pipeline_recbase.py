"""Candidate scoring as a transformers pipeline that can travel inside a checkpoint.

It needs nothing but the checkpoint: items are given as semantic IDs or as texts. The `RecBaseScorer` of the
recbase_hf package adds catalogs, catalog-normalized scores, batches of users and speed; both give the same joint score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, Pipeline

__all__ = ["RecBaseScoringPipeline"]


class RecBaseScoringPipeline(Pipeline):
    """Joint log-probability of each candidate item as the next item of a history.

    Input: `{"history": items, "candidates": items}`, where items are (n, levels) codes, or texts (which needs the
    tokenizer's text encoder; all texts of a call are centered on their shared mean, as a small catalog would be).
    Output: `{"scores": [...], "ranking": [...]}`, natural-log probabilities and the candidates' positions, best first;
    `top_k` shortens the ranking.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = False

    def _sanitize_parameters(
        self, top_k: int | None = None, candidates_per_forward: int = 256, **unknown: Any
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise TypeError(f"recbase-scoring takes top_k and candidates_per_forward, not {sorted(unknown)}")
        return {}, {"candidates_per_forward": candidates_per_forward}, {"top_k": top_k}

    def preprocess(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        missing = {"history", "candidates"} - set(inputs)
        if missing:
            raise ValueError(
                f"recbase-scoring takes a dictionary with history and candidates; {sorted(missing)} missing"
            )
        history, candidates = list(inputs["history"]), list(inputs["candidates"])
        if not candidates:
            raise ValueError("recbase-scoring: candidates is empty; give at least one item")
        items = history + candidates
        codes = self.tokenizer.encode_items(items) if isinstance(items[0], str) else np.asarray(items)
        layout = self.tokenizer.layout
        return {
            "history": torch.from_numpy(layout.history_ids(codes[: len(history)]))[None],
            "candidates": torch.from_numpy(layout.codes_to_ids(codes[len(history) :])),
        }

    def _forward(
        self, model_inputs: dict[str, torch.Tensor], candidates_per_forward: int = 256
    ) -> dict[str, torch.Tensor]:
        history, candidates = model_inputs["history"], model_inputs["candidates"]
        candidates = candidates.reshape(-1, candidates.shape[-1])
        prefix = DynamicCache(config=self.model.config)
        first = self.model(history, past_key_values=prefix, use_cache=True, logits_to_keep=1).logits
        scores = []
        for chunk in candidates.split(candidates_per_forward):
            cache = DynamicCache(config=self.model.config)
            for layer, (keys, values, *_) in enumerate(prefix):
                cache.update(keys.expand(len(chunk), -1, -1, -1), values.expand(len(chunk), -1, -1, -1), layer)
            logits = self.model(chunk[:, :-1], past_key_values=cache, use_cache=True).logits
            scores.append(self._joint(torch.cat([first.expand(len(chunk), -1, -1), logits], dim=1), chunk))
        return {"scores": torch.cat(scores)}

    def _joint(self, logits: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        layout, total = self.tokenizer.layout, torch.zeros(len(candidates), device=logits.device)
        for level in range(layout.num_levels):
            ids = layout.level_ids(level)
            log_probabilities = logits[:, level, ids].float().log_softmax(dim=-1)
            total = total + log_probabilities.gather(1, candidates[:, level : level + 1] - ids.start).squeeze(1)
        return total

    def postprocess(self, model_outputs: dict[str, torch.Tensor], top_k: int | None = None) -> dict[str, list]:
        scores = model_outputs["scores"]
        ranking = scores.argsort(descending=True, stable=True)[:top_k]
        return {"scores": scores.tolist(), "ranking": ranking.tolist()}
