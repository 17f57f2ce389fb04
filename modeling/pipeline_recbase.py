"""Candidate scoring as a transformers pipeline that can travel inside a checkpoint.

It needs nothing but the checkpoint: items are given as semantic IDs or as texts. The `RecBaseScorer` of the
recbase_hf package adds catalogs (on whose own mean the vectors are centered), catalog-normalized scores, batches of
users and speed; for the same semantic IDs both give the same joint score.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, Pipeline

__all__ = ["RecBaseScoringPipeline"]


class RecBaseScoringPipeline(Pipeline):
    """Joint log-probability of each candidate item as the next item of a history.

    Input: `{"history": items, "candidates": items}`, where items are (n, levels) codes, or strings of code tokens such
    as `<a_3><b_0><c_17><d_5>`, or texts (which needs the tokenizer's text encoder; their vectors are centered on the
    mean of the training corpus, there being no catalog here).
    Output: `{"scores": [...], "ranking": [...]}`, natural-log probabilities and the candidates' positions, best first;
    `top_k` shortens the ranking. Items of a history beyond the model's context are dropped, the oldest first.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = False

    def _sanitize_parameters(
        self, top_k: int | None = None, candidates_per_forward: int | None = None, **unknown: Any
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise TypeError(f"recbase-scoring takes top_k and candidates_per_forward, not {sorted(unknown)}")
        given = {"top_k": top_k, "candidates_per_forward": candidates_per_forward}
        for name, number in given.items():
            if number is not None and number < 1:
                raise ValueError(f"recbase-scoring: {name} is {number}, it must be at least 1")
        # What a call leaves out must stay as it was given to the constructor.
        forward = {} if candidates_per_forward is None else {"candidates_per_forward": candidates_per_forward}
        return {}, forward, {} if top_k is None else {"top_k": top_k}

    def preprocess(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        missing = {"history", "candidates"} - set(inputs)
        if missing:
            raise ValueError(
                f"recbase-scoring takes a dictionary with history and candidates; {sorted(missing)} missing"
            )
        history, candidates = list(inputs["history"]), list(inputs["candidates"])
        if not candidates:
            raise ValueError("recbase-scoring: candidates is empty; give at least one item")
        items, layout = history + candidates, self.tokenizer.layout
        are_texts = {isinstance(item, str) for item in items}
        if len(are_texts) == 2:
            raise ValueError("recbase-scoring: give history and candidates both as texts or both as codes, not mixed")
        codes = self._codes_of_strings(items) if are_texts == {True} else layout.checked(items)
        max_history = (self.model.config.max_position_embeddings - 1) // layout.num_levels - 1
        kept = codes[max(0, len(history) - max_history) : len(history)]
        return {
            "history": torch.from_numpy(layout.history_ids(kept))[None],
            "candidates": torch.from_numpy(layout.codes_to_ids(codes[len(history) :])),
        }

    def _codes_of_strings(self, items: list[str]) -> Any:
        """Codes of strings such as `<a_3><b_0><c_17><d_5>`, or of texts."""
        tokens = [self.tokenizer.tokenize(item) for item in items]
        are_codes = {"".join(parts) == item.strip() for parts, item in zip(tokens, items, strict=True)}
        if len(are_codes) == 2:
            raise ValueError("recbase-scoring: give all items as code tokens or all as texts, not mixed")
        if are_codes == {True}:
            return self.tokenizer.layout.ids_to_codes([self.tokenizer.convert_tokens_to_ids(parts) for parts in tokens])
        if self.tokenizer.collisions != "keep":
            raise ValueError(
                f"recbase-scoring: with collisions={self.tokenizer.collisions!r} a text has a semantic ID only within "
                "a catalog; give codes, or score with RecBaseScorer"
            )
        return self.tokenizer.encode_items(items)

    def _forward(
        self, model_inputs: dict[str, torch.Tensor], candidates_per_forward: int = 256
    ) -> dict[str, torch.Tensor]:
        history, candidates = model_inputs["history"], model_inputs["candidates"]
        if len(history) > 1:
            raise ValueError("recbase-scoring takes one request at a time; leave batch_size at 1, or use RecBaseScorer")
        candidates = candidates.reshape(-1, candidates.shape[-1])
        prefix = DynamicCache(config=self.model.config)
        first = self.model(history, past_key_values=prefix, use_cache=True, logits_to_keep=1).logits
        scores = []
        for chunk in candidates.split(candidates_per_forward):
            logits = first.expand(len(chunk), -1, -1)
            if chunk.shape[1] > 1:  # the first code's logits come from the history
                logits = torch.cat([logits, self._continued(prefix, chunk[:, :-1])], dim=1)
            scores.append(self._joint(logits, chunk))
        return {"scores": torch.cat(scores)}

    def _continued(self, prefix: DynamicCache, tokens: torch.Tensor) -> torch.Tensor:
        """Logits behind each of (candidates, n) tokens, every row continuing the one history in `prefix`."""
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values, *_) in enumerate(prefix):
            cache.update(keys.expand(len(tokens), -1, -1, -1), values.expand(len(tokens), -1, -1, -1), layer)
        return self.model(tokens, past_key_values=cache, use_cache=True).logits

    def _joint(self, logits: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        layout, dtype = self.tokenizer.layout, torch.promote_types(logits.dtype, torch.float32)
        total = torch.zeros(len(candidates), dtype=dtype, device=logits.device)
        for level in range(layout.num_levels):
            ids = layout.level_ids(level)
            log_probabilities = logits[:, level, ids].log_softmax(dim=-1, dtype=dtype)
            total = total + log_probabilities.gather(1, candidates[:, level : level + 1] - ids.start).squeeze(1)
        return total

    def postprocess(self, model_outputs: dict[str, torch.Tensor], top_k: int | None = None) -> dict[str, list]:
        scores = model_outputs["scores"]
        ranking = scores.argsort(descending=True, stable=True)[:top_k]
        return {"scores": scores.tolist(), "ranking": ranking.tolist()}
