"""The loss of a micro-batch for each objective of the recipe: from tokens to one differentiable number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from worker.alignment.objective import distillation_loss, next_token_loss
from worker.causal import hidden_states
from worker.head import Head, head_of
from worker.measure import compute_dtype

#: Tokens that go through a model at once. On two CPU cores 512 are as fast per token as 1,024, and take about 2 seconds
#: for a model of 135 M parameters, which is how long a cancel may wait; a GPU is busy with 8,192.
_TOKENS_AT_ONCE = {"cpu": 512, "cuda": 8192}


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
        hidden = hidden_states(model, tokens)[:, :-1].flatten(0, 1)
        return next_token_loss(hidden, self.head, tokens[:, 1:].flatten())

    def positions(self, tokens: Tensor) -> int:
        return len(tokens) * (tokens.shape[1] - 1)


class Distillation:
    """KL from the base model's distribution to the pruned model's, at every position."""

    def __init__(self, head: Head, teacher: PreTrainedModel) -> None:
        self.head = head
        self.teacher = teacher
        self.teacher_head = head_of(teacher)

    def __call__(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = hidden_states(self.teacher, tokens).flatten(0, 1)
        hidden = hidden_states(model, tokens).flatten(0, 1)
        return distillation_loss(hidden, self.head, wanted, self.teacher_head)

    def positions(self, tokens: Tensor) -> int:
        return tokens.numel()


def rows_at_once(device: torch.device, length: int) -> int:
    """How many sequences of `length` tokens go through a model at once."""
    return max(1, _TOKENS_AT_ONCE[device.type] // length)


def accumulate_gradients(
    model: PreTrainedModel, batch_loss: BatchLoss, batch: Tensor, pause: Callable[[], None]
) -> float:
    """Add the gradients of the mean loss over `batch` (rows, length), a few rows at a time; returns that loss.

    In nats per token. `pause` is called before each part and may raise.
    """
    positions, device = batch_loss.positions(batch), batch.device
    losses = []
    for tokens in torch.split(batch, rows_at_once(device, batch.shape[1])):
        pause()
        with torch.autocast(device.type, compute_dtype(device), enabled=device.type == "cuda"):
            loss = batch_loss(model, tokens) / positions
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return float(torch.stack(losses).sum())
