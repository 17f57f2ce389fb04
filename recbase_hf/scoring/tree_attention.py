"""Attention of trie nodes to their user's history and to their own ancestors, and to nothing else.

Registered with transformers under the name `recbase_tree`: the model's own layers run, only what each token looks at is
ours. A packed tree under a square mask would compare all nodes with all others; here n nodes below h history tokens and
t ancestors cost n (h + t) comparisons. Without the keyword `tree` the function is the ordinary causal one (sdpa), so
that a model with this attention still trains and generates as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["TREE_ATTENTION", "EncodedHistories", "NodeStates", "TreeAttention"]

TREE_ATTENTION = "recbase_tree"


@dataclass(frozen=True)
class EncodedHistories:
    """What the model knows of each user's history.

    Attributes:
        keys: for each layer (users, key-value heads, longest history, head width), right-padded.
        values: likewise.
        lengths: (users,) int64, tokens of each history.
        last_hidden: (users, hidden), the state behind each history's last token; it predicts the first code.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    lengths: Tensor
    last_hidden: Tensor

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class NodeStates:
    """Keys and values of the nodes of one depth: for each layer (key-value heads, nodes, head width)."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class TreeAttention:
    """What the tokens of one forward, one a node, attend to.

    Args:
        histories: of all users.
        users: (nodes,) int64, ascending: whose each node is.
        above: from which states, and from which rows of them, (nodes,) int64, each node's ancestors come, one pair a
            depth. States None are those of this forward, rows None the node itself.
        absent: (nodes, len(above)) bool, True where a node has no such ancestor; None if all have all.

    Attributes:
        own: keys and values of the nodes themselves, filled as the layers run.
    """

    def __init__(
        self,
        histories: EncodedHistories,
        users: Tensor,
        above: Sequence[tuple[NodeStates | None, Tensor | None]],
        absent: Tensor | None = None,
    ) -> None:
        self.own = NodeStates()
        self._histories, self._above, self._absent = histories, above, absent
        self._bands = _bands(users, histories)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Attention of (1, heads, nodes, width) queries, (1, nodes, heads, width)."""
        self.own.keys.append(keys[0])
        self.own.values.append(values[0])
        key_value_heads, width = keys.shape[1], query.shape[3]
        query = query[0].unflatten(0, (key_value_heads, -1)) * scaling
        above_keys, above_values = zip(*(self._ancestors(layer, *source) for source in self._above), strict=True)
        to_above = torch.stack([(query * part[:, None]).sum(dim=-1) for part in above_keys], dim=-1)
        if self._absent is not None:
            to_above = to_above.masked_fill(self._absent, float("-inf"))

        past = self._histories.keys[layer], self._histories.values[layer]
        parts = [band.attend(query[:, :, band.nodes], to_above[:, :, band.nodes], *past) for band in self._bands]
        output, of_above = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        for column, part in zip(of_above.unbind(dim=-1), above_values, strict=True):
            output = output + column[..., None] * part[:, None]
        return output.reshape(-1, output.shape[2], width).transpose(0, 1)[None]

    def _ancestors(self, layer: int, states: NodeStates | None, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Keys and values of the ancestors of one depth, each (key-value heads, nodes, width)."""
        states = states or self.own
        keys, values = states.keys[layer], states.values[layer]
        return (keys, values) if rows is None else (keys[:, rows], values[:, rows])


class _Band:
    """Neighboring users with about as many nodes each: a row of a grid for every user.

    A matrix product takes no ragged batch, so that users with fewer nodes than the longest row are padded.
    """

    def __init__(self, users: slice, nodes: slice, counts: Tensor, histories: EncodedHistories) -> None:
        self.nodes = nodes
        self._users, self._longest = users, int(counts.max())
        size, total = len(counts) * self._longest, nodes.stop - nodes.start
        self._position: Tensor | None = None
        if total < size:
            row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts, output_size=total)
            rank = torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts)[row]
            self._position = row * self._longest + rank
        lengths, longest_history = histories.lengths[users], histories.keys[0].shape[2]
        self._padding: Tensor | None = None
        if bool((lengths < longest_history).any()):
            columns = torch.arange(longest_history, device=counts.device)
            self._padding = (columns >= lengths[:, None])[:, None, None, :]

    def attend(self, query: Tensor, to_above: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What the nodes take from the history, and the weights of their ancestors."""
        to_history = self._to_grid(query) @ keys[self._users].transpose(2, 3)
        if self._padding is not None:
            to_history = to_history.masked_fill(self._padding, float("-inf"))
        both = torch.cat([to_history, self._to_grid(to_above)], dim=-1)
        weights = both.softmax(dim=-1, dtype=torch.promote_types(both.dtype, torch.float32)).to(both.dtype)
        of_history, of_above = weights.split([to_history.shape[-1], to_above.shape[-1]], dim=-1)
        return self._from_grid(of_history @ values[self._users]), self._from_grid(of_above)

    def _to_grid(self, nodes: Tensor) -> Tensor:
        """(key-value heads, group, nodes, c) as (users, key-value heads, group * longest, c)."""
        if self._position is not None:
            size = (self._users.stop - self._users.start) * self._longest
            grid = nodes.new_zeros(*nodes.shape[:2], size, nodes.shape[3])
            nodes = grid.index_copy_(2, self._position, nodes)
        return nodes.unflatten(2, (-1, self._longest)).permute(2, 0, 1, 3, 4).flatten(2, 3)

    def _from_grid(self, grid: Tensor) -> Tensor:
        """The reverse of `_to_grid`."""
        nodes = grid.unflatten(2, (-1, self._longest)).permute(1, 2, 0, 3, 4).flatten(2, 3)
        return nodes if self._position is None else nodes[:, :, self._position]


def _bands(users: Tensor, histories: EncodedHistories) -> list[_Band]:
    """The users in as few bands as leave at most half of each grid empty."""
    first = int(users[0])
    counts = torch.bincount(users - first)
    sizes = counts.tolist()
    bands: list[_Band] = []
    start = node = 0
    while start < len(sizes):
        stop, total, longest = start, 0, 0
        while stop < len(sizes):
            grown, highest = total + sizes[stop], max(longest, sizes[stop])
            if stop > start and (stop + 1 - start) * highest > 2 * grown:
                break
            stop, total, longest = stop + 1, grown, highest
        if total:
            own = slice(first + start, first + stop)
            bands.append(_Band(own, slice(node, node + total), counts[start:stop], histories))
        start, node = stop, node + total
    return bands


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: TreeAttention | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return tree.attend(module.layer_idx, query, key, value, options["scaling"]), None  # type: ignore[arg-type]


AttentionInterface.register(TREE_ATTENTION, _attention)
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
