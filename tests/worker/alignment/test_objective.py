from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from worker.alignment.objective import distillation_loss, next_token_loss

TOKENS, HIDDEN, TEACHER_HIDDEN, VOCAB = 45, 16, 24, 97


CHUNKS = pytest.mark.parametrize(
    "logits_at_once", [1, 7 * VOCAB, 2**23], ids=["token by token", "uneven chunks", "one chunk"]
)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def hidden() -> Tensor:
    return _normal(TOKENS, HIDDEN, seed=1).requires_grad_()


HEAD = _normal(VOCAB, HIDDEN, seed=2)
TEACHER_HEAD = _normal(VOCAB, TEACHER_HIDDEN, seed=3)
TEACHER_STATES = _normal(TOKENS, TEACHER_HIDDEN, seed=4)


def _with_gradient(loss: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(loss, hidden)
    return loss.detach(), gradient


@CHUNKS
def test_next_token_loss_and_gradient_equal_the_naive_ones(hidden: Tensor, logits_at_once: int) -> None:
    labels = torch.randint(VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(5), dtype=torch.int32)
    naive = functional.cross_entropy(hidden @ HEAD.T, labels.long(), reduction="sum")
    expected = _with_gradient(naive * 0.5, hidden)
    torch.testing.assert_close(
        _with_gradient(next_token_loss(hidden, HEAD, labels, logits_at_once=logits_at_once) * 0.5, hidden),
        expected,
        rtol=1e-12,
        atol=1e-12,
    )


@CHUNKS
def test_distillation_loss_and_gradient_equal_the_naive_ones(hidden: Tensor, logits_at_once: int) -> None:
    teacher = (TEACHER_STATES @ TEACHER_HEAD.T).log_softmax(-1)
    student = (hidden @ HEAD.T).log_softmax(-1)
    naive = functional.kl_div(student, teacher, log_target=True, reduction="sum")
    expected = _with_gradient(naive * 0.5, hidden)
    found = _with_gradient(
        distillation_loss(hidden, HEAD, TEACHER_STATES, TEACHER_HEAD, logits_at_once=logits_at_once) * 0.5, hidden
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_distillation_from_itself_is_at_its_minimum() -> None:
    states = TEACHER_STATES.clone().requires_grad_()
    loss, gradient = _with_gradient(distillation_loss(states, TEACHER_HEAD, TEACHER_STATES, TEACHER_HEAD), states)
    assert abs(loss.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


def test_loss_passes_gradcheck() -> None:
    states = _normal(3, HIDDEN, seed=6).requires_grad_()
    teacher = TEACHER_STATES[:3]
    assert torch.autograd.gradcheck(lambda x: distillation_loss(x, HEAD, teacher, TEACHER_HEAD), (states,))


def test_bf16_products_keep_the_loss_in_fp32() -> None:
    states, head = TEACHER_STATES.bfloat16(), TEACHER_HEAD.bfloat16()
    assert next_token_loss(states, head, torch.zeros(TOKENS, dtype=torch.int32)).dtype == torch.float32
