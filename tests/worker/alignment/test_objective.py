from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from worker.alignment.objective import distillation_loss, next_token_loss
from worker.head import Head

TOKENS, HIDDEN, TEACHER_HIDDEN, VOCAB = 45, 16, 24, 97


CHUNKS = pytest.mark.parametrize(
    "logits_at_once", [1, 7 * VOCAB, 2**23], ids=["token by token", "uneven chunks", "one chunk"]
)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def hidden() -> Tensor:
    return _normal(TOKENS, HIDDEN, seed=1).requires_grad_()


WEIGHT, BIAS = _normal(VOCAB, HIDDEN, seed=2), _normal(VOCAB, seed=7)
TEACHER_HEAD = Head(_normal(VOCAB, TEACHER_HIDDEN, seed=3), scale=0.5, softcap=5.0)
HEADS = pytest.mark.parametrize(
    "head",
    [
        Head(WEIGHT),
        Head(WEIGHT, bias=BIAS),
        Head(WEIGHT, scale=0.125),
        Head(WEIGHT, softcap=3.0),
        Head(WEIGHT, bias=BIAS, scale=2.0, softcap=4.0),
    ],
    ids=["matrix", "bias", "scale", "soft cap", "all"],
)
TEACHER_STATES = _normal(TOKENS, TEACHER_HIDDEN, seed=4)


def _naive_logits(head: Head, hidden: Tensor) -> Tensor:
    """By autograd's own operations."""
    logits = functional.linear(hidden, head.weight, head.bias) * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def _with_gradient(loss: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(loss, hidden)
    return loss.detach(), gradient


@HEADS
@CHUNKS
def test_next_token_loss_and_gradient_equal_the_naive_ones(hidden: Tensor, head: Head, logits_at_once: int) -> None:
    labels = torch.randint(VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(5), dtype=torch.int32)
    naive = functional.cross_entropy(_naive_logits(head, hidden), labels.long(), reduction="sum")
    expected = _with_gradient(naive * 0.5, hidden)
    torch.testing.assert_close(
        _with_gradient(next_token_loss(hidden, head, labels, logits_at_once=logits_at_once) * 0.5, hidden),
        expected,
        rtol=1e-12,
        atol=1e-12,
    )


@HEADS
@CHUNKS
def test_distillation_loss_and_gradient_equal_the_naive_ones(hidden: Tensor, head: Head, logits_at_once: int) -> None:
    teacher = _naive_logits(TEACHER_HEAD, TEACHER_STATES).log_softmax(-1)
    student = _naive_logits(head, hidden).log_softmax(-1)
    naive = functional.kl_div(student, teacher, log_target=True, reduction="sum")
    expected = _with_gradient(naive * 0.5, hidden)
    found = _with_gradient(
        distillation_loss(hidden, head, TEACHER_STATES, TEACHER_HEAD, logits_at_once=logits_at_once) * 0.5, hidden
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_distillation_from_itself_is_at_its_minimum() -> None:
    states = TEACHER_STATES.clone().requires_grad_()
    loss, gradient = _with_gradient(distillation_loss(states, TEACHER_HEAD, TEACHER_STATES, TEACHER_HEAD), states)
    assert abs(loss.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


@HEADS
def test_loss_passes_gradcheck(head: Head) -> None:
    states = _normal(3, HIDDEN, seed=6).requires_grad_()
    teacher = TEACHER_STATES[:3]
    assert torch.autograd.gradcheck(lambda x: distillation_loss(x, head, teacher, TEACHER_HEAD), (states,))


def test_bf16_products_keep_the_loss_in_fp32() -> None:
    states, head = TEACHER_STATES.bfloat16(), TEACHER_HEAD.to(torch.bfloat16)
    assert next_token_loss(states, head, torch.zeros(TOKENS, dtype=torch.int32)).dtype == torch.float32
