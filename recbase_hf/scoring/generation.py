"""Recommending through the `generate` of transformers: a logits processor for its search and sampling, and our search.

Both give token ids of a catalog's items only. `CatalogLogitsProcessor` works with whatever `generate` does, which runs
the prompt once a beam; `catalog_generate` stands in for its beam search, runs the prompt once, and is several times
faster. `RecBaseScorer.recommend` has item ids in place of tokens, exact search, and filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.generation import GenerateBeamDecoderOnlyOutput

from recbase_hf.catalog import ItemCatalog
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.scoring.choice import NamedItems
from recbase_hf.scoring.item_filter import ItemFilter
from recbase_hf.scoring.method import ScoreMethod, checked_method
from recbase_hf.scoring.search import FoundLeaves, Search
from recbase_hf.scoring.trie_tensors import TrieTensors
from recbase_hf.scoring.walk import NAN_SCORES, Walker, evaluating

__all__ = ["CatalogLogitsProcessor", "catalog_generate"]

_DEAD_END = -1e30
"""The score of `<eos>` where nothing is legal: finite, because sampling cannot choose from a row of -inf, even once a
temperature has divided it; and below the -1e9 of the beams that beam search fills up with."""


class CatalogLogitsProcessor(LogitsProcessor):
    """Lets `generate` write nothing but items of a catalog, one after the other, with the scores of this package.

    Example:

        history = tokenizer(["<a_3><b_1><c_0><d_7>"], return_tensors="pt")
        found = model.generate(
            **history,
            logits_processor=[CatalogLogitsProcessor(catalog, history.input_ids.shape[1])],
            num_beams=20,
            num_return_sequences=10,
            max_new_tokens=4,
            length_penalty=0.0,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )

    Give `max_new_tokens` as many as an item has codes, or a multiple for several items in a row: no `<eos>` comes. With
    `length_penalty=0.0`, `sequences_scores` are the log-probabilities that `RecBaseScorer.score` gives, in float32; by
    default they are divided by the number of tokens.

    Where the catalog has fewer semantic IDs than `num_return_sequences`, the beam search of `generate` fills up with
    sequences that repeat or are not legal, with scores of -1e9 and lower. `catalog_generate` raises an error instead.

    For sampling give `joint`: a semantic ID is then drawn with the probability that all its items together have under
    `catalog`. `catalog` itself takes a last code for one item, and draws colliding ones less often.

    Where nothing is legal (another processor banned all legal codes, or wrote a token that continues no item), only
    `<eos>` is left, with a score of -1e30: sampling ends there, and beam search prefers anything else.

    Args:
        catalog: of whose tokens the model is; that is not seen here, except in the size of the vocabulary.
        prompt_length: tokens before the first generated one, padding included: `input_ids.shape[1]`.
        method: `catalog` or `joint`, as in `RecBaseScorer.score`.

    Raises:
        ValueError: the method is unknown or the length negative.

    >>> items = [{"item_id": "a"}, {"item_id": "b"}, {"item_id": "c"}]
    >>> catalog = ItemCatalog.from_codes(items, [[0, 3], [1, 0], [1, 2]], codebook_size=4)
    >>> processor = CatalogLogitsProcessor(catalog, prompt_length=1)
    >>> bos, logits = processor.layout.bos, torch.zeros(1, processor.layout.num_tokens)
    >>> processor(torch.tensor([[bos]]), logits).exp().nonzero()[:, 1].tolist()  # codes 0 and 1
    [1, 2]
    >>> processor(torch.tensor([[bos, 2]]), logits).exp().nonzero()[:, 1].tolist()  # below 1: codes 0 and 2
    [5, 7]
    """

    supports_continuous_batching = False  # there rows have prompts of different lengths

    def __init__(self, catalog: ItemCatalog, prompt_length: int, *, method: ScoreMethod = "catalog") -> None:
        if prompt_length < 0:
            raise ValueError(
                f"prompt_length is {prompt_length}; it must be the width of the prompts, input_ids.shape[1]"
            )
        self.layout = _layout(catalog)
        self.prompt_length = prompt_length
        self.method = checked_method(method)
        self._trie = catalog.trie

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The log-probabilities of the codes that may come next.

        Args:
            input_ids: (n, tokens) int64, prompts and what was generated.
            scores: (n, vocabulary), logits or log-probabilities.

        Returns:
            (n, vocabulary) in float32 at least, -inf where a token is not legal.

        Raises:
            ValueError: the prompts are shorter than was said, the vocabulary is smaller than the catalog's, or a score
                is not a number.
        """
        self._require_fitting(input_ids, scores)
        trie = TrieTensors.of(self._trie, scores.device)
        depth = (input_ids.shape[1] - self.prompt_length) % self.layout.num_levels
        nodes, is_known = self._walk(trie, input_ids[:, input_ids.shape[1] - depth :])
        of_level = scores[:, self.layout.level_ids(depth)]
        legal = trie.legal_codes(depth, nodes) & is_known[:, None] & (of_level != float("-inf"))

        of_codes = self._log_probabilities(of_level, legal)
        if self.method == "catalog" and depth + 1 == self.layout.num_levels:
            rows, leaves = trie.children(depth, nodes)
            of_codes[rows, trie.codes[depth][leaves].long()] -= trie.log_bucket_sizes[leaves].to(of_codes.dtype)
        result = torch.full_like(scores, float("-inf"), dtype=of_codes.dtype)
        result[:, self.layout.level_ids(depth)] = of_codes
        result[~legal.any(dim=1), self.layout.bos + 1] = _DEAD_END
        return result

    def _log_probabilities(self, scores: Tensor, legal: Tensor) -> Tensor:
        """Of the codes of a level, (n, codebook size), -inf where not legal."""
        if self.method == "catalog":
            scores = scores.masked_fill(~legal, float("-inf"))
        scores = scores.masked_fill(~legal.any(dim=1, keepdim=True), 0.0)  # a softmax over nothing would be NaN
        log_probabilities = scores.log_softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        if bool(log_probabilities[:, 0].isnan().any()):  # one NaN in a row makes all of the row NaN
            raise ValueError(NAN_SCORES)
        return log_probabilities.masked_fill(~legal, float("-inf"))

    def _walk(self, trie: TrieTensors, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes that (n, depth) token ids lead to, and whether there are such; both (n,)."""
        nodes = torch.zeros(len(ids), dtype=torch.long, device=trie.device)
        is_known = torch.ones_like(nodes, dtype=torch.bool)
        for depth, of_level in enumerate(ids.to(trie.device).unbind(dim=1)):
            codes = of_level - 1 - self.layout.codebook_size * depth
            children = trie.child_of(depth, nodes, codes.clamp(0, self.layout.codebook_size - 1))
            # For a code that is not legal, `child_of` gives any number up to one beyond the last.
            found = trie.codes[depth][children.clamp_max(len(trie.codes[depth]) - 1)]
            is_known &= (found == codes) & (children < trie.first_child[depth][nodes + 1])
            nodes = children.masked_fill(~is_known, 0)
        return nodes, is_known

    def _require_fitting(self, input_ids: Tensor, scores: Tensor) -> None:
        if input_ids.shape[1] < self.prompt_length:
            raise ValueError(
                f"prompt_length is {self.prompt_length}, but the input has {input_ids.shape[1]} tokens; make a "
                "processor for each width of prompts, input_ids.shape[1]"
            )
        if scores.shape[1] < self.layout.num_tokens:
            raise ValueError(_wrong_vocabulary(scores.shape[1], self.layout))


def catalog_generate(
    model: Any,
    input_ids: Tensor,
    *,
    generation_config: Any,
    catalog: ItemCatalog,
    method: ScoreMethod = "catalog",
    logits_processor: Sequence[Any] = (),
    **model_inputs: Any,
) -> Any:
    """The best semantic IDs of a catalog behind each prompt, by beams; for `generate(custom_generate=...)`.

    Example:

        found = model.generate(
            **tokenizer(histories, padding=True, return_tensors="pt"),
            custom_generate=catalog_generate,
            catalog=catalog,
            num_beams=20,
            num_return_sequences=10,
            max_new_tokens=4,
            return_dict_in_generate=True,
        )

    Prompts begin with `<bos>` and may be padded on either side. Each gets distinct semantic IDs, best first, with the
    scores of `RecBaseScorer.score`, whatever the `length_penalty`. The model keeps the attention `recbase_tree`, which
    is sdpa in all other uses.

    Args:
        model: a `Qwen2ForCausalLM` over the tokens of the catalog.
        input_ids: from `generate`, each prompt as often as there are beams.
        generation_config: from `generate`; `num_beams`, `num_return_sequences` and `return_dict_in_generate` are used.
        catalog: what to choose from.
        method: `catalog` or `joint`, as in `RecBaseScorer.score`.
        logits_processor: from `generate`; must be empty.
        **model_inputs: from `generate`; `attention_mask` is used. What else `generate` takes (`max_length`,
            `output_scores`, stopping criteria) changes nothing.

    Returns:
        With `return_dict_in_generate` a `GenerateBeamDecoderOnlyOutput` that has `sequences`, (prompts *
        num_return_sequences, prompt length + levels) int64, and `sequences_scores`, (prompts * num_return_sequences,)
        log-probabilities in float32 (float64 for a model in float64); otherwise the sequences alone.

    Raises:
        ValueError: the catalog has fewer semantic IDs than `num_return_sequences`, the model's vocabulary is smaller
            than the catalog's, a prompt has no token, the method is unknown, or `generate` was asked to sample, to
            process logits, or for other `max_new_tokens` than an item has codes.
        FingerprintMismatchError: the model comes from a bundle with another tokenizer than the catalog's.
    """
    layout, num_beams, k = _layout(catalog), generation_config.num_beams, generation_config.num_return_sequences
    _require_matching(model, catalog, layout)
    _require_plain_beams(generation_config, logits_processor, layout)
    num_ids = catalog.trie.num_nodes(layout.num_levels)
    if k > num_ids:
        raise ValueError(f"num_return_sequences is {k}, but the catalog has {num_ids} semantic IDs; ask for fewer")
    prompts, mask = input_ids[::num_beams], model_inputs.get("attention_mask")
    histories = _without_padding(prompts, None if mask is None else mask[::num_beams])

    walker = Walker(model, TrieTensors.of(catalog.trie, model.device), checked_method(method))
    everything = ItemFilter(walker.trie, [NamedItems(np.empty(0, dtype=np.int64), False)] * len(prompts))
    options = {"alpha": 0.0, "prior": None, "max_nodes": num_beams * len(prompts)}
    with evaluating(model):
        found = Search(walker, walker.encode(histories), everything, **options).beam(num_beams)
    ids, scores = _best(catalog, layout, found, k)
    sequences = torch.cat([prompts.repeat_interleave(k, dim=0), ids.to(prompts.device)], dim=1)
    if not generation_config.return_dict_in_generate:
        return sequences
    return GenerateBeamDecoderOnlyOutput(sequences=sequences, sequences_scores=scores.to(prompts.device))


def _without_padding(prompts: Tensor, mask: Tensor | None) -> list[np.ndarray]:
    """The tokens of each of (users, tokens) prompts; `generate` gives no mask where there is no padding."""
    if mask is None:
        return list(prompts.cpu().numpy())
    histories = [prompt[keep] for prompt, keep in zip(prompts.cpu().numpy(), mask.bool().cpu().numpy(), strict=True)]
    for row, history in enumerate(histories):
        if not len(history):
            raise ValueError(f"prompt {row} has no token; begin each with <bos>")
    return histories


def _best(catalog: ItemCatalog, layout: TokenLayout, found: Sequence[FoundLeaves], k: int) -> tuple[Tensor, Tensor]:
    """Token ids, (users * k, levels), and scores, (users * k,), of the k best leaves of each user."""
    leaves = np.concatenate([part.leaves[:k] for part in found])
    rows = catalog.trie.items[catalog.trie.first_item[leaves]]
    scores = np.concatenate([part.scores[:k] for part in found])
    return torch.from_numpy(layout.codes_to_ids(catalog.codes[rows])), torch.from_numpy(scores)


def _layout(catalog: ItemCatalog) -> TokenLayout:
    return TokenLayout(catalog.trie.num_levels, catalog.codebook_size)


def _require_matching(model: Any, catalog: ItemCatalog, layout: TokenLayout) -> None:
    if model.config.vocab_size < layout.num_tokens:
        raise ValueError(_wrong_vocabulary(model.config.vocab_size, layout))
    recorded = getattr(model.config, "recbase", None)
    if recorded is not None:
        require_same_fingerprint(model=recorded["fingerprint"], catalog=catalog.fingerprint)


def _wrong_vocabulary(size: int, layout: TokenLayout) -> str:
    return (
        f"the model has {size} tokens, but {layout.num_levels} levels of {layout.codebook_size} codes need "
        f"{layout.num_tokens}: the model and the catalog do not belong together"
    )


def _require_plain_beams(generation_config: Any, logits_processor: Sequence[Any], layout: TokenLayout) -> None:
    if generation_config.do_sample:
        raise ValueError("catalog_generate does not sample; give do_sample=False, or use CatalogLogitsProcessor")
    if generation_config.max_new_tokens not in (None, layout.num_levels):
        raise ValueError(
            f"max_new_tokens is {generation_config.max_new_tokens}, but catalog_generate generates one item of "
            f"{layout.num_levels} codes; leave it out, or use CatalogLogitsProcessor"
        )
    if logits_processor:
        names = ", ".join(type(processor).__name__ for processor in logits_processor)
        raise ValueError(
            f"catalog_generate takes no logits processors, got {names}; use CatalogLogitsProcessor with them"
        )
