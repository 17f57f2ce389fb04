"""The walk down a catalog's trie under encoded histories: what every kind of scoring and searching is made of.

A history is encoded once. A *frontier* is a set of trie nodes of one depth, each under one user's history; a step gives
the log-probabilities of the codes that may come next, another descends to chosen children, one token a node, which
attends to the history and to its own ancestors alone. Nodes that are all known beforehand go at once. The last code
needs no token: it is read from the node above. Ranking in M-FALCON (HSTU) and multi-item scoring in serving engines
share one history among candidates too; semantic IDs also share their prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.scoring.method import ScoreMethod, accumulation_dtype
from recbase_hf.scoring.tree_attention import TREE_ATTENTION, EncodedHistories, NodeStates, TreeAttention
from recbase_hf.scoring.trie_tensors import TrieTensors

__all__ = ["NAN_SCORES", "Frontier", "Walker", "evaluating"]

NAN_SCORES = (
    "the model gives NaN scores; its weights are damaged (load them again), or overflow in float16 (use bfloat16)"
)


@dataclass(frozen=True)
class Frontier:
    """Nodes of one depth, each under one user's history; ordered by user.

    Attributes:
        depth: 0 for the root.
        users: (n,) int64, positions in the encoded histories.
        nodes: (n,) int64, numbers in the trie.
        hidden: (n, width), the states that predict the next code.
        states: keys and values of the depths 1..depth.
        ancestors: for each of `states`, (n,) int64, the row there of each node's ancestor (or of itself).
    """

    depth: int
    users: Tensor
    nodes: Tensor
    hidden: Tensor
    states: tuple[NodeStates, ...] = ()
    ancestors: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def open_end(self) -> tuple[int, Tensor, Tensor]:
        """What `Walker.log_probabilities` needs."""
        return self.depth, self.nodes, self.hidden


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """In evaluation mode, without gradients; a model that is being trained goes on training afterwards."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train()


def _require_supported(model: Any) -> None:
    if any(kind != "full_attention" for kind in model.config.layer_types):
        raise ValueError("the model has layers that do not see the whole history; use_sliding_window must be False")
    adapters = getattr(model, "peft_config", {})
    if any(getattr(adapter, "is_prompt_learning", False) for adapter in adapters.values()):
        raise ValueError("the adapter adds tokens to each prompt, which scoring does not; use LoRA")


class Walker:
    """A language model and a trie.

    Args:
        model: a `Qwen2ForCausalLM` with the attention `recbase_tree`.
        trie: on the model's device.
        method: from which softmax a code's probability is taken.
    """

    def __init__(self, model: Any, trie: TrieTensors, method: ScoreMethod) -> None:
        if model.config._attn_implementation != TREE_ATTENTION:
            model.set_attn_implementation(TREE_ATTENTION)
        _require_supported(model)
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings()
        self.config = model.config
        self.trie = trie
        self.layout = TokenLayout(trie.num_levels, trie.codebook_size)
        self.method = method
        self.dtype = accumulation_dtype(model)
        self.device = model.device

    @property
    def num_leaves(self) -> int:
        """Semantic IDs of the catalog."""
        return self.trie.trie.num_nodes(self.trie.num_levels)

    @property
    def numpy_dtype(self) -> type[np.floating]:
        """In which scores come back."""
        return np.float64 if self.dtype == torch.float64 else np.float32

    def encode(self, histories: Sequence[np.ndarray]) -> EncodedHistories:
        """Run the model over token ids, a (tokens,) array a user, `<bos>` first."""
        lengths = torch.tensor([len(history) for history in histories])
        # Padding stands on the right, where no real token sees it, so that no mask is needed.
        ids = torch.full((len(histories), int(lengths.max())), self.layout.pad)
        for row, history in enumerate(histories):
            ids[row, : len(history)] = torch.from_numpy(history)
        return self._run(ids, lengths, self._new_cache())

    def extend(self, histories: EncodedHistories, ids: np.ndarray) -> EncodedHistories:
        """One user's encoded history with further token ids, (n,), behind it."""
        cache = self._new_cache()
        for layer, (keys, values) in enumerate(zip(histories.keys, histories.values, strict=True)):
            cache.update(keys, values, layer)
        return self._run(torch.from_numpy(ids)[None], torch.tensor([len(ids)]), cache)

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.config)

    def _run(self, ids: Tensor, lengths: Tensor, cache: Any) -> EncodedHistories:
        """Run the model over (users, n) token ids, of which (users,) lengths are no padding, behind what is cached."""
        past = cache.get_seq_length()
        hidden = self.decoder(ids.to(self.device), past_key_values=cache, use_cache=True).last_hidden_state
        lengths = lengths.to(self.device)
        last_hidden = hidden[torch.arange(len(ids), device=self.device), lengths - 1]
        keys, values = ([getattr(layer, name) for layer in cache.layers] for name in ("keys", "values"))
        return EncodedHistories(keys, values, lengths + past, last_hidden)

    def start(self, histories: EncodedHistories) -> Frontier:
        """The root, once a user."""
        users = torch.arange(len(histories), device=self.device)
        return Frontier(0, users, torch.zeros_like(users), histories.last_hidden)

    def log_probabilities(self, depth: int, nodes: Tensor, hidden: Tensor) -> Tensor:
        """Of the code that follows (n,) nodes of a depth, (n, codebook size), in float32 at least.

        With `catalog`, -inf where the catalog has no child. `hidden`, (n, width), is what predicts it.

        Raises:
            ValueError: a probability is not a number.
        """
        logits = self._logits(self.layout.level_ids(depth), hidden)
        if self.method == "catalog":
            logits.masked_fill_(~self.trie.legal_codes(depth, nodes), float("-inf"))
        log_probabilities = logits.log_softmax(dim=-1)
        if bool(log_probabilities[:, 0].isnan().any()):  # one NaN in a row makes all of the row NaN
            raise ValueError(NAN_SCORES)
        return log_probabilities

    def _logits(self, tokens: slice, hidden: Tensor) -> Tensor:
        """Of one level's tokens alone: probability on other levels' tokens is none of an item's."""
        if type(self.head) is not torch.nn.Linear:  # an adapter changes what it does
            return self.head(hidden)[:, tokens].to(self.dtype)
        # In half precision different logits would become equal.
        return hidden.to(self.dtype) @ self.head.weight[tokens].to(self.dtype).T

    def descend(self, histories: EncodedHistories, frontier: Frontier, parents: Tensor, nodes: Tensor) -> Frontier:
        """Go to chosen children.

        Args:
            parents: (m,) int64, rows of the frontier, in the order of their users.
            nodes: (m,) int64, the children's numbers at the next depth.
        """
        depth, users = frontier.depth + 1, frontier.users[parents]
        ancestors = tuple(rows[parents] for rows in frontier.ancestors)
        tree = TreeAttention(histories, users, [*zip(frontier.states, ancestors, strict=True), (None, None)])
        codes = self.trie.codes[frontier.depth][nodes].long()
        hidden = self._run_codes(histories, users, torch.full_like(nodes, depth), codes, tree)
        own = torch.arange(len(nodes), device=self.device)
        return Frontier(depth, users, nodes, hidden, (*frontier.states, tree.own), (*ancestors, own))

    def descend_at_once(
        self, histories: EncodedHistories, users: Tensor, depths: Tensor, nodes: Tensor, ancestors: Tensor
    ) -> Tensor:
        """The states behind nodes of several depths, with all their ancestors, in one forward.

        Args:
            users: (m,) int64, ascending.
            depths: (m,) int64, from 1.
            nodes: (m,) int64, numbers at their depth.
            ancestors: (m, levels - 1) int64, for the depths from 1 on, the node's ancestor (or itself) among these m;
                below the node's own depth any number.

        Returns:
            (m, width).
        """
        absent = torch.arange(1, ancestors.shape[1] + 1, device=self.device) > depths[:, None]
        above = [(None, rows) for rows in ancestors.masked_fill(absent, 0).T]
        codes = torch.empty_like(nodes)
        for depth in range(1, self.layout.num_levels):
            codes[depths == depth] = self.trie.codes[depth - 1][nodes[depths == depth]].long()
        return self._run_codes(histories, users, depths, codes, TreeAttention(histories, users, above, absent))

    def _run_codes(
        self, histories: EncodedHistories, users: Tensor, depths: Tensor, codes: Tensor, tree: TreeAttention
    ) -> Tensor:
        """(m, width), one token each: the code that leads to a node of a depth."""
        result: Tensor = self.decoder(
            (1 + codes + self.layout.codebook_size * (depths - 1))[None],
            # In the form of a dictionary masks are taken as they are: none is built.
            attention_mask=dict.fromkeys(self.config.layer_types),
            position_ids=(histories.lengths[users] + depths - 1)[None],
            use_cache=False,
            tree=tree,
        ).last_hidden_state[0]
        return result

    def leads_to_one_leaf(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """For each of (n,) nodes whether the probability of all codes below it is 1, and the first leaf below it.

        So it is with `catalog` where a single semantic ID is left: the model need not be asked.
        """
        is_single, leaf = self.trie.leads_to_one_leaf(depth, nodes)
        if self.method == "joint" and depth < self.trie.num_levels:
            is_single = torch.zeros_like(is_single)
        return is_single, leaf

    def leaf_terms(self, leaves: Tensor) -> Tensor:
        """What is added to the last code's log-probability, (n,): `catalog` shares it among the colliding items."""
        if self.method == "catalog":
            return -self.trie.log_bucket_sizes[leaves].to(self.dtype)
        return torch.zeros(len(leaves), dtype=self.dtype, device=self.device)
