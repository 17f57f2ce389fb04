"""Rankers that predict the next item of a sequence: SASRec and GRU4Rec, trained on the target set.

Both learn by softmax cross-entropy over items at every position, which is stronger than the binary loss against one
negative that SASRec was published with (Petrov and Macdonald, 2023; Klenitskiy and Vasilev, 2023). Where more than 4096
items have a training event, the other items are represented by 2048 uniform negatives a step, with weights that keep
the softmax's sum what it is on average; validation is always over all items. 5,000 users with a catalog of 20,000 items
take about a minute on a processor, 50,000 users several minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation.rankers.ranker import flat_candidates, require_events
from recbase_hf.progress import progress

__all__ = ["Gru4Rec", "SasRec", "SequentialSettings"]

_START = 0
"""The token before each sequence; items are tokens from 1. It also pads, which is safe: nothing looks ahead."""

_UNKNOWN_SCORE = np.float32(-1e9)
"""Of items without a training event: nothing was learned about them, so they come last."""

_LOGITS = 1 << 24
"""Logits of validation in memory at a time: 64 MB."""


@dataclass(frozen=True)
class SequentialSettings:
    """How a sequential ranker is built and trained.

    Attributes:
        width: of item embeddings and hidden states.
        blocks: transformer blocks (SASRec).
        heads: attention heads of each (SASRec).
        dropout: probability.
        max_length: longest sequence, with the start token; longer training histories are cut into several.
        batch_events: events a step, in sequences of like length.
        learning_rate: of Adam.
        max_epochs: passes over the training sequences at most.
        patience: epochs without a lower validation loss before training stops.
        full_softmax: items with a training event up to which the loss of training is over all of them.
        negatives: drawn a step where there are more.
    """

    width: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.3
    max_length: int = 50
    batch_events: int = 1024
    learning_rate: float = 1e-3
    max_epochs: int = 200
    patience: int = 5
    full_softmax: int = 4096
    negatives: int = 2048


class _SequentialRanker:
    """Trains a network that turns tokens (users, length) int64 into hidden states (users, length, width).

    The network has `items`, an embedding of the start token and the items that is input and output.
    """

    name: str

    def __init__(
        self, training: Histories, num_items: int, *, seed: int = 0, settings: SequentialSettings | None = None
    ) -> None:
        require_events(training, num_items)
        self.num_items = num_items
        self.settings = settings or SequentialSettings()
        generator = np.random.default_rng(seed)
        fitted, validated = _split(training, generator)
        self._items = np.unique(fitted.items)
        self._token_of_item = np.full(num_items, _START)
        self._token_of_item[self._items] = np.arange(1, len(self._items) + 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = self._build(len(self._items) + 1)
            self._train(self._sequences(fitted), self._sequences(validated), generator)
        self._network.eval()

    def _build(self, num_tokens: int) -> _SelfAttention | _Recurrent:
        raise NotImplementedError

    @torch.inference_mode()
    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        """Logits of the next item; one number for all items without a training event. See `Ranker.scores`."""
        states = self._last_states(histories)
        weights = self._network.items.weight
        if candidates is None:
            scores = np.full((len(histories), self.num_items), _UNKNOWN_SCORE)
            scores[:, self._items] = (states @ weights[1:].T).numpy()
            return scores
        users, items = flat_candidates(candidates, self.num_items)
        tokens = self._token_of_item[items]
        logits = (states[torch.from_numpy(users)] * weights[torch.from_numpy(tokens)]).sum(dim=1)
        return np.where(tokens == _START, _UNKNOWN_SCORE, logits.numpy())

    def _last_states(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """What comes after each history, (users, width) float32."""
        tokens = [self._known(history)[1 - self.settings.max_length :] for history in histories]
        lengths = torch.tensor([len(own) for own in tokens])
        states = self._network(_padded([np.append(_START, own) for own in tokens]))
        return states[torch.arange(len(tokens)), lengths]

    def _known(self, history: np.ndarray) -> np.ndarray:
        tokens = self._token_of_item[history]
        return tokens[tokens != _START]

    def _sequences(self, histories: Histories) -> list[np.ndarray]:
        """Tokens of histories, cut into sequences of the greatest length, the newest one full."""
        longest = self.settings.max_length
        sequences = []
        for user in range(len(histories)):
            tokens = self._known(histories[user])
            cuts = range(len(tokens) % longest, len(tokens), longest)
            sequences += [part for part in np.split(tokens, cuts) if len(part)]
        return sequences

    def _train(self, sequences: list[np.ndarray], validation: list[np.ndarray], generator: np.random.Generator) -> None:
        """Until the validation loss no longer falls; the network is then the one with the lowest."""
        optimizer = torch.optim.Adam(self._network.parameters(), lr=self.settings.learning_rate)
        lowest, best_epoch, best = math.inf, -1, self._network.state_dict()
        for epoch in progress(range(self.settings.max_epochs), description=f"{self.name}: epochs, at most"):
            self._network.train()
            for batch in _batches(sequences, self.settings.batch_events, generator):
                loss = self._training_loss(*self._predictions(batch))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            loss_now = self._validation_loss(validation or sequences, generator)
            if loss_now < lowest:
                lowest, best_epoch = loss_now, epoch
                best = {name: value.clone() for name, value in self._network.state_dict().items()}
            elif epoch - best_epoch >= self.settings.patience:
                break
        self._network.load_state_dict(best)

    def _predictions(self, sequences: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """States (events, width) float32 before each event, and the row of its item in the softmax (events,) int64."""
        targets = _padded(sequences)
        inputs = nn.functional.pad(targets[:, :-1], (1, 0), value=_START)
        present = targets != _START
        return self._network(inputs)[present], targets[present] - 1

    def _training_loss(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weights = self._network.items.weight[1:]
        if len(weights) <= self.settings.full_softmax:
            return nn.functional.cross_entropy(states @ weights.T, targets)
        drawn = torch.randint(len(weights), (self.settings.negatives,))
        stands_for = len(weights) / self.settings.negatives  # items, for each that is drawn
        others = states @ weights[drawn].T + math.log(stands_for)
        others = others.masked_fill(drawn == targets[:, None], -torch.inf)
        wanted = (states * weights[targets]).sum(dim=1)
        return (torch.logsumexp(torch.cat([wanted[:, None], others], dim=1), dim=1) - wanted).mean()

    @torch.inference_mode()
    def _validation_loss(self, sequences: list[np.ndarray], generator: np.random.Generator) -> float:
        """Cross-entropy of an event, in nats, over all items."""
        self._network.eval()
        weights = self._network.items.weight[1:]
        total, events = 0.0, 0
        for batch in _batches(sequences, max(1, _LOGITS // len(weights)), generator):
            states, targets = self._predictions(batch)
            total += nn.functional.cross_entropy(states @ weights.T, targets, reduction="sum").item()
            events += len(targets)
        return total / events


class SasRec(_SequentialRanker):
    """SASRec (Kang and McAuley, 2018): causal self-attention over the history, with full softmax cross-entropy.

    A tenth of the training users is held out for early stopping. One seed gives one result on one machine; items
    without a training event come last. A user without a history gets what users tend to begin with.

    Args:
        training: of the target set, without any held-out event.
        num_items: items in the catalog.
        seed: of the held-out users, the weights' start, the order of training and dropout.
        settings: None takes the defaults.

    Raises:
        ValueError: there is no training event, or one with an item that is not in the catalog.
    """

    name = "SASRec (target set)"

    def _build(self, num_tokens: int) -> _SelfAttention:
        return _SelfAttention(num_tokens, self.settings)


class Gru4Rec(_SequentialRanker):
    """GRU4Rec (Hidasi et al., 2016): a recurrent network over the history; all else is like in `SasRec`."""

    name = "GRU4Rec (target set)"

    def _build(self, num_tokens: int) -> _Recurrent:
        return _Recurrent(num_tokens, self.settings)


class _SelfAttention(nn.Module):
    def __init__(self, num_tokens: int, settings: SequentialSettings) -> None:
        super().__init__()
        width = settings.width
        self.items = _embedding(num_tokens, width)
        self.positions = _embedding(settings.max_length, width)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, settings.heads, width, settings.dropout, batch_first=True, norm_first=True
            )
            for _ in range(settings.blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        states = self.items(tokens) * math.sqrt(self.items.embedding_dim) + self.positions.weight[:length]
        states = self.dropout(states)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        for block in self.blocks:
            states = block(states, src_mask=mask, is_causal=True)
        return self.norm(states)


class _Recurrent(nn.Module):
    def __init__(self, num_tokens: int, settings: SequentialSettings) -> None:
        super().__init__()
        self.items = _embedding(num_tokens, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.gru = nn.GRU(settings.width, settings.width, batch_first=True)
        self.norm = nn.LayerNorm(settings.width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states = self.dropout(self.items(tokens) * math.sqrt(self.items.embedding_dim))
        return self.norm(self.dropout(self.gru(states)[0]))


def _embedding(count: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(count, width)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding


def _split(training: Histories, generator: np.random.Generator) -> tuple[Histories, Histories]:
    """Nine tenths of the users who have an event, and one tenth, which is nobody where they are fewer than ten."""
    users = generator.permutation(np.flatnonzero(training.lengths))
    count = len(users) // 10
    return training.select(np.sort(users[count:])), training.select(np.sort(users[:count]))


def _batches(sequences: list[np.ndarray], events: int, generator: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Sequences of like length, about `events` events at a time, in random order."""
    order = generator.permutation(len(sequences))
    lengths = np.array([len(own) for own in sequences])
    order = order[np.argsort(lengths[order], kind="stable")]
    filled = np.cumsum(lengths[order]) // events
    parts = np.split(order, np.flatnonzero(np.diff(filled)) + 1)
    for position in generator.permutation(len(parts)):
        yield [sequences[sequence] for sequence in parts[position]]


def _padded(sequences: list[np.ndarray]) -> torch.Tensor:
    """Tokens (sequences, longest) int64, with the start token after the shorter ones."""
    return nn.utils.rnn.pad_sequence([torch.from_numpy(own) for own in sequences], batch_first=True)
