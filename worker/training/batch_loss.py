"""The loss of a micro-batch for each objective of the recipe: from tokens to one differentiable number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from worker.models.causal import hidden_states
from worker.models.device import is_gpu
from worker.models.head import Head
from worker.models.measure import compute_dtype
from worker.training.objective import (
    NO_LABEL,
    Teacher,
    distillation_loss,
    hidden_states_loss,
    next_token_loss,
)
from worker.training.teacher import BaseModel, states_between

#: Tokens that go through a model at once. On two CPU cores 512 are as fast per token as 1,024, and take about 2 seconds
#: for a model of 135 M parameters, which is how long a cancel may wait; a GPU is busy with 8,192.
_TOKENS_AT_ONCE, _ON_GPU = 512, 8192
#: Layers whose hidden states are compared: the base model's of all 80 layers of a large one would take gigabytes.
_COMPARED_LAYERS = 8


class BatchLoss(Protocol):
    def __call__(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        """Loss in nats summed over the scored positions of `tokens` (rows, length)."""

    def positions(self, tokens: Tensor) -> int:
        """How many positions of `tokens` are scored."""


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of each next token. `head` is the frozen LM head in the dtype of the matrix products."""

    head: Head

    def __call__(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        return self.of_states(hidden_states(model, tokens), tokens)

    def of_states(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """The same, of hidden states (rows, length, hidden_size) after the final norm."""
        return next_token_loss(hidden[:, :-1].flatten(0, 1), self.head, tokens[:, 1:].flatten())

    def positions(self, tokens: Tensor) -> int:
        return len(tokens) * (tokens.shape[1] - 1)


@dataclass(frozen=True)
class DistillationTerms:
    """The parts of the loss: see the recipe's fields of these names."""

    temperature: float = 1.0
    language_model_share: float = 0.0
    hidden_states_weight: float = 0.0


class Distillation:
    """KL from the base model's distribution to the pruned model's, at every position, and what `terms` add to it."""

    def __init__(self, head: Head, base: BaseModel, terms: DistillationTerms | None = None) -> None:
        self.head, self.base, self.terms = head, base, terms or DistillationTerms()

    def __call__(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        compared = self.compared_layers(self.terms)
        teacher, wanted = self.base.asked(tokens, compared)
        with states_between(model, compared) as found:
            hidden = hidden_states(model, tokens).flatten(0, 1)
        loss = self._by_logits(hidden, teacher, tokens)
        for layer, states in found.items():
            distance = hidden_states_loss(states, wanted[layer])
            loss = loss + distance * (self.terms.hidden_states_weight / len(found))
        return loss

    @staticmethod
    def compared_layers(terms: DistillationTerms) -> int:
        """Of how many layers the base model's hidden states are asked for."""
        return _COMPARED_LAYERS if terms.hidden_states_weight else 0

    def positions(self, tokens: Tensor) -> int:
        return tokens.numel()

    def _by_logits(self, hidden: Tensor, teacher: Teacher, tokens: Tensor) -> Tensor:
        share = self.terms.language_model_share
        return distillation_loss(
            hidden,
            self.head,
            teacher,
            temperature=self.terms.temperature,
            labels=_next_tokens(tokens).flatten() if share else None,
            language_model_share=share,
        )


def _next_tokens(tokens: Tensor) -> Tensor:
    """What follows each token (rows, length); of the last one of a row it is not known."""
    return functional.pad(tokens[:, 1:], (0, 1), value=NO_LABEL)


def rows_at_once(device: torch.device, length: int) -> int:
    """How many sequences of `length` tokens go through a model at once."""
    return max(1, (_ON_GPU if is_gpu(device) else _TOKENS_AT_ONCE) // length)


def accumulate_gradients(
    model: PreTrainedModel, batch_loss: BatchLoss, batch: Tensor, pause: Callable[[], None]
) -> float:
    """Add the gradients of the mean loss over `batch` (rows, length), a few rows at a time; returns that loss.

    In nats per token. `pause` is called before each part and may raise.
    """
    return accumulate_share(model, batch_loss, Share(batch, batch, 1), pause)


@dataclass(frozen=True)
class Share:
    """`rows` of `batch` (rows, length): one process's of as many as `processes`, perhaps none."""

    batch: Tensor
    rows: Tensor
    processes: int

    def parts(self) -> tuple[Tensor, ...]:
        """A few rows each."""
        return torch.split(self.rows, self._at_once) if len(self.rows) else ()

    def most_parts(self) -> int:
        """Of the process with the largest share."""
        return -(-len(self.batch) // (self.processes * self._at_once))

    @property
    def _at_once(self) -> int:
        return rows_at_once(self.batch.device, self.batch.shape[1])


def accumulate_share(model: PreTrainedModel, batch_loss: BatchLoss, share: Share, pause: Callable[[], None]) -> float:
    """`accumulate_gradients` in one of several processes: gradients and loss, averaged over them, are the batch's.

    All take as many parts, since they wait for each other in every layer: some go without effect.
    """
    positions = batch_loss.positions(share.batch) / share.processes
    parts, losses = share.parts(), []
    for tokens in parts:
        pause()
        losses.append(_backward(model, batch_loss, tokens, positions))
    for _ in range(share.most_parts() - len(parts)):
        pause()
        _backward(model, batch_loss, share.batch[:1], math.inf)
    return float(torch.stack(losses).sum()) if losses else 0.0


def _backward(model: PreTrainedModel, batch_loss: BatchLoss, tokens: Tensor, positions: float) -> Tensor:
    """Divided by `positions`; by infinitely many it has no effect."""
    device = tokens.device
    with torch.autocast(device.type, compute_dtype(device), enabled=is_gpu(device)):
        loss = batch_loss(model, tokens) / positions
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()
