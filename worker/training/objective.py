"""What alignment minimises, without ever holding the logits of all tokens.

With a vocabulary of 128,256 the fp32 logits of 8,192 tokens take 4.2 GB, and as much again for each of their
gradient, their softmax and the base model's logits. Here the LM head is applied to a few tokens at a time, and since
it is frozen the gradient with respect to the hidden states is all that backward needs: it is computed together with
the loss, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.models.head import Head

#: Logits that exist at once: 8 Mi values, 32 MiB in fp32, which is 170 tokens of a 49,152 vocabulary.
LOGITS_AT_ONCE = 2**23
#: A label of a position whose next token is not known.
NO_LABEL = -1

#: (chunk of tokens, its logits) → (loss summed over the chunk, gradient of that sum by the logits or None).
#: It may overwrite the logits.
ChunkLoss = Callable[[slice, Tensor, bool], tuple[Tensor, Tensor | None]]


def next_token_loss(hidden: Tensor, head: Head, labels: Tensor, *, logits_at_once: int = LOGITS_AT_ONCE) -> Tensor:
    """Cross-entropy in nats, summed over tokens.

    `hidden` (tokens, hidden_size) after the final norm; `head` is frozen; `labels` (tokens,). Differentiable by
    `hidden` alone.
    """

    def chunk_loss(chunk: slice, logits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        return _cross_entropy(logits, labels[chunk], with_gradient)

    return _summed(hidden, head, chunk_loss, logits_at_once)


class Teacher(Protocol):
    """What the base model says of the same tokens."""

    def divergence(self, chunk: slice, logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """KL(teacher || softmax(logits)) in nats summed over the tokens of `chunk`, and its gradient by `logits`.

        `logits` (tokens, vocab) are divided by `temperature` already, the teacher's are not; they may be overwritten.
        """


@dataclass(frozen=True)
class WholeVocabulary:
    """Every token's probability: `hidden` (tokens, teacher_hidden_size) after the final norm, and their head."""

    hidden: Tensor
    head: Head

    def divergence(self, chunk: slice, logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        wanted = self.head.logits(self.hidden[chunk]).div_(temperature).log_softmax(-1)
        found = logits.log_softmax(-1)
        probabilities = wanted.exp()
        loss = torch.linalg.vecdot(probabilities, wanted.sub_(found)).sum()
        return loss, found.exp_().sub_(probabilities)


@dataclass(frozen=True)
class LikeliestTokens:
    """`log_probabilities` (tokens, k) of the k likeliest tokens `indices` (tokens, k); all others count as one.

    They are those at the temperature that the loss is computed with.
    """

    indices: Tensor
    log_probabilities: Tensor

    def divergence(self, chunk: slice, logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        indices = self.indices[chunk].long()
        wanted = self.log_probabilities[chunk].to(logits.dtype)
        probabilities = wanted.exp()
        others = (1 - probabilities.sum(-1, keepdim=True)).clamp_min(0)
        found = logits.log_softmax(-1)
        chosen = found.gather(-1, indices)
        left = (1 - chosen.exp().sum(-1, keepdim=True)).clamp_min(torch.finfo(logits.dtype).tiny)
        of_others = torch.xlogy(others, others) - others * left.log()
        loss = torch.linalg.vecdot(probabilities, wanted - chosen).sum() + of_others.sum()
        gradient = found.exp_().mul_(1 - others / left)
        return loss, gradient.scatter_(-1, indices, chosen.exp() - probabilities)


def distillation_loss(
    hidden: Tensor,
    head: Head,
    teacher: Teacher,
    *,
    temperature: float = 1.0,
    labels: Tensor | None = None,
    language_model_share: float = 0.0,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    """KL(teacher || student) in nats, summed over tokens, at `temperature`, times its square (arXiv 1503.02531).

    `hidden` (tokens, hidden_size) after the final norm, `head` of one vocabulary with the teacher's. Of the loss
    `language_model_share` is the cross-entropy of `labels` (tokens,) at temperature 1 instead, where there is one.
    Differentiable by `hidden` alone.
    """

    def chunk_loss(chunk: slice, logits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        own = None if labels is None else _cross_entropy(logits.clone(), labels[chunk], with_gradient)
        loss, gradient = teacher.divergence(chunk, logits.div_(temperature), temperature)
        loss *= (1 - language_model_share) * temperature**2
        gradient *= (1 - language_model_share) * temperature
        if own is not None:
            loss += language_model_share * own[0]
            if own[1] is not None:
                gradient.add_(own[1], alpha=language_model_share)
        return loss, gradient if with_gradient else None

    return _summed(hidden, head, chunk_loss, logits_at_once)


def _cross_entropy(logits: Tensor, labels: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Summed over the tokens that have a label, and its gradient in the place of `logits`."""
    known = (labels != NO_LABEL).unsqueeze(-1)
    chosen = labels.long().clamp_min(0).unsqueeze(-1)
    normalizer = logits.logsumexp(-1, keepdim=True)
    loss = ((normalizer - logits.gather(-1, chosen)) * known).sum()
    if not with_gradient:
        return loss, None
    gradient = logits.sub_(normalizer).exp_()
    return loss, gradient.scatter_add_(-1, chosen, gradient.new_full(chosen.shape, -1.0)).mul_(known)


def hidden_states_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """||found − wanted||² / ||wanted||² of each token (…, hidden_size), summed: each counts alike, however large."""
    wanted = wanted.to(found.dtype)
    squares = (found - wanted).square().sum(-1)
    return (squares / wanted.square().sum(-1).clamp_min(torch.finfo(found.dtype).tiny)).sum()


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
        # types are chosen here: autocast would have the divergence, a sum of products, in bf16, three digits of it
        with torch.autocast(hidden.device.type, enabled=False):
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
