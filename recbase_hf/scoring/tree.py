"""The fast exact scorer: each history is encoded once, each distinct prefix of the candidates' codes once under it.

A user's candidates form a trie. Its nodes (prefixes of 1 to levels - 1 codes; the last code needs no forward, its
probability is read from its parent) go through the model in one forward on top of the history's keys and values, each
node attending to the history and to its own ancestors. Siblings share a position. The output head is computed for the
needed nodes and the next level's codes only. The same idea serves ranking in M-FALCON (HSTU) and multi-item scoring in
serving engines; here items are short and share prefixes, so the trie is small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbase_hf.catalog import ItemCatalog
from recbase_hf.catalog.trie import CodeTrie
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.scoring.method import ScoreMethod, accumulation_dtype

__all__ = ["score_by_tree"]


@torch.inference_mode()
def score_by_tree(
    model: Any,
    catalog: ItemCatalog,
    histories: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    *,
    method: ScoreMethod,
    users_per_forward: int = 32,
    candidates_per_forward: int = 256,
) -> list[np.ndarray]:
    """Scores of each user's candidates; the arguments and the result of `score_naively`.

    Args:
        users_per_forward: users whose histories are encoded together.
        candidates_per_forward: candidates of one user whose trie is encoded together; bounds the memory.
    """
    scorer = _TreeScorer(model, catalog, method)
    scores: list[np.ndarray] = [np.empty(0, dtype=scorer.numpy_dtype)] * len(histories)
    for users in _batches(histories, candidates, users_per_forward, candidates_per_forward):
        prefix = scorer.encode_histories([histories[user] for user in users])
        rows = [candidates[user] for user in users]
        if len(users) == 1 and len(rows[0]) > candidates_per_forward:
            scores[users[0]] = _score_in_chunks(scorer, prefix, rows[0], candidates_per_forward)
        else:
            for user, part in zip(users, scorer.score(prefix, rows), strict=True):
                scores[user] = part
    return scores


def _score_in_chunks(scorer: _TreeScorer, prefix: _EncodedHistories, rows: np.ndarray, size: int) -> np.ndarray:
    # In trie order, so that a prefix falls into few chunks.
    order = np.argsort(scorer.trie.paths[rows, -1], kind="stable")
    scores = np.empty(len(rows), dtype=scorer.numpy_dtype)
    for start in range(0, len(rows), size):
        chunk = order[start : start + size]
        scores[chunk] = scorer.score(prefix, [rows[chunk]])[0]
    return scores


def _batches(
    histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray], users_per_forward: int, large: int
) -> Iterator[list[int]]:
    """Groups of users with histories of like length; a user with many candidates comes alone."""
    by_length = sorted(range(len(histories)), key=lambda user: len(histories[user]))
    small = [user for user in by_length if 0 < len(candidates[user]) <= large]
    for start in range(0, len(small), users_per_forward):
        yield small[start : start + users_per_forward]
    yield from ([user] for user in by_length if len(candidates[user]) > large)


@dataclass(frozen=True)
class _EncodedHistories:
    """Keys and values of right-padded histories, and what each history's last token predicts from."""

    cache: Any
    lengths: Tensor  # (users,) tokens
    last_hidden: Tensor  # (users, hidden)


@dataclass(frozen=True)
class _CandidateTrie:
    """The prefixes of one user's candidates, as rows of a forward; row 0 stands for the root (the history's end)."""

    ids: np.ndarray  # (nodes,) token ids of the prefixes of 1 .. levels-1 codes
    depths: np.ndarray  # (nodes,)
    is_ancestor: np.ndarray  # (nodes, nodes) bool: column is the row itself or above it
    catalog_nodes: list[np.ndarray]  # for each depth 0 .. levels-1, node numbers in the catalog's trie
    offsets: np.ndarray  # (levels,) where each depth's nodes start among (root, nodes)
    row_of_candidate: np.ndarray  # (candidates, levels), the row among (root, nodes) that predicts each code


class _TreeScorer:
    def __init__(self, model: Any, catalog: ItemCatalog, method: ScoreMethod) -> None:
        self.model = model
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings().weight
        self.trie: CodeTrie = catalog.trie
        self.codes = catalog.codes
        self.layout = TokenLayout(catalog.codes.shape[1], catalog.codebook_size)
        self.method = method
        self.dtype = accumulation_dtype(model)
        self.numpy_dtype = np.float64 if self.dtype == torch.float64 else np.float32

    def encode_histories(self, histories: list[np.ndarray]) -> _EncodedHistories:
        """Prefill. Padding stands on the right, where no real token sees it, so that no mask is needed."""
        from transformers import DynamicCache

        sequences = [self.layout.history_ids(self.codes[rows]) for rows in histories]
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        ids = torch.full((len(sequences), int(lengths.max())), self.layout.pad)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.from_numpy(sequence)
        cache = DynamicCache(config=self.model.config)
        hidden = self.decoder(ids.to(self.model.device), past_key_values=cache, use_cache=True).last_hidden_state
        last_hidden = hidden[torch.arange(len(lengths)), (lengths - 1).to(hidden.device)]
        return _EncodedHistories(cache, lengths, last_hidden)

    def score(self, prefix: _EncodedHistories, candidates: list[np.ndarray]) -> list[np.ndarray]:
        tries = [self._candidate_trie(rows) for rows in candidates]
        hidden = self._encode_tries(prefix, tries)
        starts = np.cumsum([0] + [len(trie.ids) + 1 for trie in tries])
        rows = np.concatenate([trie.row_of_candidate + start for trie, start in zip(tries, starts, strict=False)])
        codes = self.codes[np.concatenate(candidates)]
        total = torch.zeros(len(codes), dtype=self.dtype, device=hidden.device)
        for level in range(self.layout.num_levels):
            total += self._level_scores(hidden, tries, starts, level, rows[:, level], codes[:, level])
        if self.method == "catalog":
            leaves = self.trie.paths[np.concatenate(candidates), -1]
            total -= torch.from_numpy(np.log(self.trie.bucket_sizes[leaves])).to(total)
        scores = total.cpu().numpy()
        return np.split(scores, np.cumsum([len(part) for part in candidates])[:-1])

    def _level_scores(
        self,
        hidden: Tensor,
        tries: list[_CandidateTrie],
        starts: np.ndarray,
        level: int,
        rows: np.ndarray,
        codes: np.ndarray,
    ) -> Tensor:
        """Log-probability of each candidate's code of one level, (candidates,)."""
        nodes = np.concatenate([trie.catalog_nodes[level] for trie in tries])
        node_rows = np.concatenate(
            [
                start + trie.offsets[level] + np.arange(len(trie.catalog_nodes[level]))
                for trie, start in zip(tries, starts, strict=False)
            ]
        )
        parents = hidden[torch.from_numpy(node_rows).to(hidden.device)]
        logits = (parents @ self.head[self.layout.level_ids(level)].T).to(self.dtype)
        if self.method == "catalog":
            legal = torch.from_numpy(self.trie.legal_codes(level, nodes)).to(logits.device)
            logits = logits.masked_fill(~legal, float("-inf"))
        log_probabilities = logits.log_softmax(dim=-1)
        position = np.empty(int(starts[-1]), dtype=np.int64)
        position[node_rows] = np.arange(len(node_rows))
        return log_probabilities[torch.from_numpy(position[rows]), torch.from_numpy(codes)]

    def _candidate_trie(self, rows: np.ndarray) -> _CandidateTrie:
        paths = self.trie.paths[rows]
        num_levels = self.layout.num_levels
        catalog_nodes, ids, depths = [np.zeros(1, dtype=np.int64)], [], []
        row_of_candidate = np.zeros((len(rows), num_levels), dtype=np.int64)
        ancestors, offsets, size = np.zeros((0, 0), dtype=np.int64), [0], 1
        for level in range(num_levels - 1):
            nodes, inverse = np.unique(paths[:, level], return_inverse=True)
            catalog_nodes.append(nodes)
            ids.append(1 + self.trie.codes[level][nodes] + self.layout.codebook_size * level)
            depths.append(np.full(len(nodes), level + 1))
            row_of_candidate[:, level + 1] = inverse + size
            offsets.append(size)
            # Any candidate below a node stands for the node: they share the whole path to it.
            example = np.empty(len(nodes), dtype=np.int64)
            example[inverse] = np.arange(len(rows))
            above = np.full((len(nodes), num_levels - 1), -1)
            above[:, : level + 1] = row_of_candidate[example, 1 : level + 2] - 1
            ancestors = np.concatenate([ancestors.reshape(-1, num_levels - 1), above])
            size += len(nodes)
        is_ancestor = np.zeros((size - 1, size), dtype=bool)
        is_ancestor[np.arange(size - 1)[:, None], ancestors] = True  # -1 lands in the last column, cut off below
        return _CandidateTrie(
            ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64),
            depths=np.concatenate(depths) if depths else np.zeros(0, dtype=np.int64),
            is_ancestor=is_ancestor[:, :-1],
            catalog_nodes=catalog_nodes,
            offsets=np.array(offsets),
            row_of_candidate=row_of_candidate,
        )

    def _encode_tries(self, prefix: _EncodedHistories, tries: list[_CandidateTrie]) -> Tensor:
        """Hidden states of (root, nodes) of all users, one after the other: (rows, hidden)."""
        num_nodes = max(len(trie.ids) for trie in tries)
        if num_nodes == 0:  # one-level semantic IDs are read from the histories alone
            return prefix.last_hidden
        history_length = prefix.cache.get_seq_length()
        ids = torch.full((len(tries), num_nodes), self.layout.pad)
        positions = torch.zeros(len(tries), num_nodes, dtype=torch.long)
        visible = torch.zeros(len(tries), 1, num_nodes, history_length + num_nodes, dtype=torch.bool)
        for user, trie in enumerate(tries):
            size, length = len(trie.ids), int(prefix.lengths[user])
            ids[user, :size] = torch.from_numpy(trie.ids)
            positions[user, :size] = torch.from_numpy(length - 1 + trie.depths)
            visible[user, 0, :, :length] = True  # for padding rows too: a row that sees nothing is not a number
            visible[user, 0, :size, history_length : history_length + size] = torch.from_numpy(trie.is_ancestor)
        # Additive, because eager attention would add a boolean mask as 0 and 1.
        mask = torch.zeros(visible.shape, dtype=self.model.dtype).masked_fill(
            ~visible, torch.finfo(self.model.dtype).min
        )
        hidden = self.decoder(
            ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            position_ids=positions.to(self.model.device),
            past_key_values=prefix.cache,
            use_cache=True,
        ).last_hidden_state
        prefix.cache.crop(-num_nodes)
        rows = [
            torch.cat([prefix.last_hidden[user : user + 1], hidden[user, : len(trie.ids)]])
            for user, trie in enumerate(tries)
        ]
        return torch.cat(rows)
