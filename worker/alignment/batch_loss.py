"""The loss of a micro-batch for each objective of the recipe: from tokens to one differentiable number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from worker.alignment.objective import distillation_loss, next_token_loss
from worker.causal import head_weight, hidden_states


class BatchLoss(Protocol):
    def __call__(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        """Loss in nats summed over the scored positions of `tokens` (rows, length)."""

    def positions(self, tokens: Tensor) -> int:
        """How many positions of `tokens` are scored."""


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of each next token. `head` is the frozen LM head in the dtype of the matrix products."""

    head: Tensor

    def __call__(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        hidden = hidden_states(model, tokens)[:, :-1].flatten(0, 1)
        return next_token_loss(hidden, self.head, tokens[:, 1:].flatten())

    def positions(self, tokens: Tensor) -> int:
        return len(tokens) * (tokens.shape[1] - 1)


class Distillation:
    """KL from the base model's distribution to the pruned model's, at every position."""

    def __init__(self, head: Tensor, teacher: PreTrainedModel) -> None:
        self.head = head
        self.teacher = teacher
        self.teacher_head = head_weight(teacher)

    def __call__(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = hidden_states(self.teacher, tokens).flatten(0, 1)
        hidden = hidden_states(model, tokens).flatten(0, 1)
        return distillation_loss(hidden, self.head, wanted, self.teacher_head)

    def positions(self, tokens: Tensor) -> int:
        return tokens.numel()
