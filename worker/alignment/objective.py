"""What alignment minimises, without ever holding the logits of all tokens.

With a vocabulary of 128,256 the fp32 logits of 8,192 tokens take 4.2 GB, and as much again for each of their
gradient, their softmax and the base model's logits. Here the LM head is applied to a few tokens at a time, and since
it is frozen the gradient with respect to the hidden states is all that backward needs: it is computed together with
the loss, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worker.head import Head

#: Logits that exist at once: 8 Mi values, 32 MiB in fp32, which is 170 tokens of a 49,152 vocabulary.
LOGITS_AT_ONCE = 2**23

#: (chunk of tokens, its logits) → (loss summed over the chunk, gradient of that sum by the logits or None).
#: It may overwrite the logits.
ChunkLoss = Callable[[slice, Tensor, bool], tuple[Tensor, Tensor | None]]


def next_token_loss(hidden: Tensor, head: Head, labels: Tensor, *, logits_at_once: int = LOGITS_AT_ONCE) -> Tensor:
    """Cross-entropy in nats, summed over tokens.

    `hidden` (tokens, hidden_size) after the final norm; `head` is frozen; `labels` (tokens,). Differentiable by
    `hidden` alone.
    """

    def chunk_loss(chunk: slice, logits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        chosen = labels[chunk].long().unsqueeze(-1)
        normalizer = logits.logsumexp(-1, keepdim=True)
        loss = (normalizer - logits.gather(-1, chosen)).sum()
        if not with_gradient:
            return loss, None
        gradient = logits.sub_(normalizer).exp_()
        gradient.scatter_add_(-1, chosen, gradient.new_full(chosen.shape, -1.0))
        return loss, gradient

    return _summed(hidden, head, chunk_loss, logits_at_once)


def distillation_loss(
    hidden: Tensor, head: Head, teacher_hidden: Tensor, teacher_head: Head, *, logits_at_once: int = LOGITS_AT_ONCE
) -> Tensor:
    """KL(teacher || student) in nats over the whole vocabulary, summed over tokens.

    `hidden` (tokens, hidden_size) and `teacher_hidden` (tokens, teacher_hidden_size) after their final norms, each with
    the head of its model, of one vocabulary. Differentiable by `hidden` alone.
    """

    def chunk_loss(chunk: slice, logits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        wanted = teacher_head.logits(teacher_hidden[chunk]).log_softmax(-1)
        found = logits.log_softmax(-1)
        probabilities = wanted.exp()
        loss = torch.linalg.vecdot(probabilities, wanted.sub_(found)).sum()
        return loss, found.exp_().sub_(probabilities) if with_gradient else None

    return _summed(hidden, head, chunk_loss, logits_at_once)


def _summed(hidden: Tensor, head: Head, chunk_loss: ChunkLoss, logits_at_once: int) -> Tensor:
    chunk_tokens = max(1, logits_at_once // len(head))
    loss: Tensor = _HeadLoss.apply(hidden, head, chunk_loss, chunk_tokens)  # type: ignore[no-untyped-call]
    return loss


class _HeadLoss(torch.autograd.Function):
    """A frozen head and a loss on its output, chunk by chunk; forward keeps d(loss)/d(hidden)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, chunk_loss: ChunkLoss, chunk_tokens: int) -> Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        losses = []
        for start in range(0, len(hidden), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            logits = head.logits(hidden[chunk])
            slope = None if gradient is None else head.slope(logits)
            loss, by_logits = chunk_loss(chunk, logits, gradient is not None)
            losses.append(loss)
            if gradient is not None and by_logits is not None:
                gradient[chunk] = head.by_hidden(by_logits, slope)
        ctx.gradient = gradient
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, *by_loss: Tensor) -> tuple[Tensor | None, None, None, None]:
        return None if ctx.gradient is None else ctx.gradient * by_loss[0], None, None, None
