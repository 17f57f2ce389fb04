"""The CTR loss: binary cross-entropy of clicks, from calibrated joint scores of candidates under a shared history.

A candidate's score is its joint log-probability, as `RecBaseScorer.score(method="joint")` gives it. A scale and a bias,
learned with the model, make a logit of it; they change no ranking, but let the loss say what is a click and what not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recbase_hf.finetuning.examples import ClickExamples, Example
from recbase_hf.modeling.token_layout import TokenLayout

__all__ = ["ClickHead", "ClickObjective", "ShownBatch", "joint_scores", "shown_batch"]

_HEAD = "click_head"


class ShownBatch(NamedTuple):
    """Histories, each with its candidates behind it, for one forward.

    A row is `<bos>`, the history, padding up to the longest history, and all codes but the last of each candidate,
    which see the history and their own candidate alone.

    Attributes:
        input_ids: (users, tokens) int64.
        position_ids: (users, tokens) int64; candidates go on where their history ends.
        mask: (users, 1, tokens, tokens) bool, what each token sees.
        places: (users, candidates, levels) int64, the position in the row that predicts each code.
        targets: (users, candidates, levels) int64, the token ids of the codes.
        labels: (users, candidates) float32.
        present: (users, candidates) bool; rows with fewer candidates are filled up.
        sizes: (3,) float32: candidates, tokens, histories.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    places: Tensor
    targets: Tensor
    labels: Tensor
    present: Tensor
    sizes: Tensor


def shown_batch(examples: Sequence[Example], codes: np.ndarray, layout: TokenLayout) -> ShownBatch:
    """Tensors of some examples.

    Args:
        examples: at least one.
        codes: (items, levels) int64 semantic IDs, whose rows the examples name.
        layout: of the tokens.
    """
    levels = layout.num_levels
    users, most = len(examples), max(len(example.candidates) for example in examples)
    lengths = 1 + levels * np.array([len(example.history) for example in examples])
    longest, width = int(lengths.max()), levels - 1
    tokens = longest + most * width
    ids = np.full((users, tokens), layout.pad, dtype=np.int64)
    targets = np.ones((users, most, levels), dtype=np.int64)
    labels, present = np.zeros((users, most), dtype=np.float32), np.zeros((users, most), dtype=bool)
    for user, example in enumerate(examples):
        ids[user, : lengths[user]] = layout.history_ids(codes[example.history])
        count = len(example.candidates)
        targets[user, :count] = layout.codes_to_ids(codes[example.candidates])
        labels[user, :count], present[user, :count] = example.labels, True
    ids[:, longest:] = targets[:, :, :width].reshape(users, -1)

    place = np.arange(tokens)
    depth = (place - longest) % max(1, width)
    owner = np.where(place < longest, -1, (place - longest) // max(1, width))
    positions = np.where(owner < 0, place, lengths[:, None] + depth)
    earlier = place[None, :] <= place[:, None]
    of_history = (owner < 0)[None, None, :] & (place[None, None, :] < lengths[:, None, None])
    mask = earlier & (of_history | (owner[:, None] == owner[None, :]) & (owner >= 0)[None, :])
    mask |= np.eye(tokens, dtype=bool)  # a row of padding that sees nothing would be no number

    last = np.broadcast_to((lengths - 1)[:, None, None], (users, most, 1))
    own = np.broadcast_to((longest + np.arange(most * width)).reshape(1, most, width), (users, most, width))
    sizes = [present.sum(), lengths.sum() + present.sum() * width, users]
    return ShownBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions.astype(np.int64)),
        mask=torch.from_numpy(mask[:, None]),
        places=torch.from_numpy(np.concatenate([last, own], axis=2)),
        targets=torch.from_numpy(targets),
        labels=torch.from_numpy(labels),
        present=torch.from_numpy(present),
        sizes=torch.tensor(sizes, dtype=torch.float32),
    )


def joint_scores(model: Any, batch: ShownBatch, layout: TokenLayout) -> Tensor:
    """Joint log-probability of each candidate, (users, candidates) float32, or float64 as the model; with gradient."""
    states = model.model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.mask, use_cache=False
    ).last_hidden_state
    users = torch.arange(len(states), device=states.device)[:, None]
    scores: Tensor | int = 0
    for level in range(layout.num_levels):
        tokens = layout.level_ids(level)
        logits = model.lm_head(states[users, batch.places[:, :, level]])[..., tokens]
        wanted = (batch.targets[:, :, level] - tokens.start).clamp(min=0)[..., None]
        exact = torch.promote_types(logits.dtype, torch.float32)
        scores = scores + logits.to(exact).log_softmax(dim=-1).gather(-1, wanted)[..., 0]
    assert isinstance(scores, Tensor)
    return scores


class ClickHead(torch.nn.Module):
    """Scores to logits of a click: `slope * (score - center) / spread + bias`.

    Center and spread are those of the scores before training, so that slope and bias are numbers of about one, which
    the model's own learning rate moves as fast as it should. The slope is the exponential of what is learned: were it
    negative, as it is for a base whose scores are worse than chance, clicks would teach the model to rank upside down.

    >>> head = ClickHead(center=-20.0, spread=4.0, slope=1.0, bias=-0.5)
    >>> head(torch.tensor([-16.0])).tolist()
    [0.5]
    """

    def __init__(self, *, center: float, spread: float, slope: float, bias: float) -> None:
        super().__init__()
        self.center, self.spread = center, spread
        self.log_slope, self.bias = (torch.nn.Parameter(torch.tensor([value])) for value in (math.log(slope), bias))

    @classmethod
    def fitted(cls, scores: np.ndarray, labels: np.ndarray) -> ClickHead:
        """The logistic regression of labels, (n,) 0 or 1, on scores, (n,), with a slope between 0.5 and 5."""
        center, spread = float(scores.mean()), max(float(scores.std()), 1e-6)
        points = np.stack([(scores - center) / spread, np.ones(len(scores))], axis=1)
        weights = np.array([1.0, math.log((labels.mean() + 1e-3) / (1 - labels.mean() + 1e-3))])
        start, ridge = weights.copy(), np.eye(2)
        for _ in range(20):
            chances = 1 / (1 + np.exp(-points @ weights))
            gradient = points.T @ (chances - labels) + ridge @ (weights - start)
            curvature = (points * (chances * (1 - chances))[:, None]).T @ points + ridge
            weights -= np.linalg.solve(curvature, gradient)
        slope = float(np.clip(weights[0], 0.5, 5.0))
        return cls(center=center, spread=spread, slope=slope, bias=float(weights[1]))

    def forward(self, scores: Tensor) -> Tensor:
        """Logits of (...) scores."""
        return self.log_slope.exp() * (scores - self.center) / self.spread + self.bias

    def facts(self) -> dict[str, float]:
        """`scale` and `bias` so that `scale * score + bias` is the logit."""
        scale = math.exp(self.log_slope.item()) / self.spread
        return {"scale": scale, "bias": self.bias.item() - scale * self.center}


class ClickObjective:
    """Binary cross-entropy of what was clicked among the candidates of each example.

    Args:
        examples: what is learned from.
        layout: of the tokens.

    Attributes:
        facts: scale and bias as training left them, after `release`.
    """

    name = "ctr"

    def __init__(self, examples: ClickExamples, layout: TokenLayout) -> None:
        tuning = examples.tuning
        self.examples, self.layout = examples, layout
        self.replaces_next_tokens = tuning.objective == "ctr"
        self.weight = 1.0 if self.replaces_next_tokens else tuning.ctr_weight
        self.steps_an_epoch = len(examples) / tuning.ctr_batch
        self.facts: dict[str, float] = {}

    def prepare(self, model: Any) -> None:
        """Give the model a head for clicks, fitted to its scores of the first step's examples."""
        batch = self._on(model.device, next(self.examples.steps(0, 1)))
        was_training = model.training
        model.eval()
        with torch.no_grad():
            scores = joint_scores(model, batch, self.layout)[batch.present]
        model.train(was_training)
        head = ClickHead.fitted(scores.double().cpu().numpy(), batch.labels[batch.present].double().cpu().numpy())
        setattr(model, _HEAD, head.to(model.device))

    def release(self, model: Any) -> None:
        """Take the head away, and keep what it has learned."""
        head = getattr(model, _HEAD, None)
        if head is not None:
            self.facts = head.facts()
            delattr(model, _HEAD)

    def micro_batches(
        self, accelerator: Any, *, accumulation: int, start: int, stop: int
    ) -> Iterator[Sequence[ShownBatch]]:
        """For each step this process's part of its examples, in as many micro-batches as rows have.

        Raises:
            ValueError: the examples of a step cannot be shared out evenly.
        """
        parts = accumulation * accelerator.num_processes
        if self.examples.tuning.ctr_batch % parts:
            raise ValueError(
                f"ctr_batch {self.examples.tuning.ctr_batch} must be a multiple of gradient_accumulation x processes, "
                f"{parts} here"
            )
        for examples in self.examples.steps(start, stop):
            size = len(examples) // parts
            own = range(accelerator.process_index, parts, accelerator.num_processes)
            yield [self._on(accelerator.device, examples[part * size : (part + 1) * size]) for part in own]

    def losses(self, model: Any, batch: ShownBatch) -> Tensor:
        """(candidates,) float32 binary cross-entropies, in nats."""
        logits = getattr(model, _HEAD)(joint_scores(model, batch, self.layout))
        return functional.binary_cross_entropy_with_logits(
            logits[batch.present], batch.labels[batch.present].to(logits.dtype), reduction="none"
        )

    def _on(self, device: Any, examples: Sequence[Example]) -> ShownBatch:
        return ShownBatch(*(part.to(device) for part in shown_batch(examples, self.examples.codes, self.layout)))
