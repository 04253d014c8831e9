from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.devices import each_device
from worker.models.head import Head
from worker.training.objective import (
    NO_LABEL,
    LikeliestTokens,
    WholeVocabulary,
    distillation_loss,
    hidden_states_loss,
    next_token_loss,
)

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
TEACHER = WholeVocabulary(TEACHER_STATES, TEACHER_HEAD)
LABELS = torch.randint(VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(5), dtype=torch.int32)
LABELS[::7] = NO_LABEL


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
    found = _with_gradient(distillation_loss(hidden, head, TEACHER, logits_at_once=logits_at_once) * 0.5, hidden)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_distillation_from_itself_is_at_its_minimum() -> None:
    states = TEACHER_STATES.clone().requires_grad_()
    loss, gradient = _with_gradient(distillation_loss(states, TEACHER_HEAD, TEACHER), states)
    assert abs(loss.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


@HEADS
def test_loss_passes_gradcheck(head: Head) -> None:
    states = _normal(3, HIDDEN, seed=6).requires_grad_()
    teacher = WholeVocabulary(TEACHER_STATES[:3], TEACHER_HEAD)
    assert torch.autograd.gradcheck(lambda x: distillation_loss(x, head, teacher), (states,))


def test_bf16_products_keep_the_loss_in_fp32() -> None:
    states, head = TEACHER_STATES.bfloat16(), TEACHER_HEAD.to(torch.bfloat16)
    assert next_token_loss(states, head, torch.zeros(TOKENS, dtype=torch.int32)).dtype == torch.float32


@each_device
@pytest.mark.parametrize("kind", ["whole vocabulary", "likeliest tokens"])
def test_autocast_rounds_no_divergence(device: str, kind: str) -> None:
    """Training and held-out text are measured within autocast on a GPU: bf16 has three digits of a loss."""
    head = Head(WEIGHT.bfloat16().to(device))
    states = (TEACHER_STATES[:, :HIDDEN] / 4).to(device, torch.bfloat16).requires_grad_()
    base = WholeVocabulary(TEACHER_STATES.to(device, torch.bfloat16), Head(TEACHER_HEAD.weight.bfloat16().to(device)))
    likeliest = base.head.logits(base.hidden).log_softmax(-1).topk(5)
    teacher = base if kind == "whole vocabulary" else LikeliestTokens(likeliest.indices, likeliest.values)
    wanted = _with_gradient(distillation_loss(states, head, teacher), states)
    with torch.autocast(device, torch.bfloat16):
        found = distillation_loss(states, head, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(_with_gradient(found, states), wanted, rtol=1e-6, atol=0)


@HEADS
@CHUNKS
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_and_a_share_of_the_text_itself_equal_the_naive_loss(
    hidden: Tensor, head: Head, logits_at_once: int, temperature: float
) -> None:
    teacher = (_naive_logits(TEACHER_HEAD, TEACHER_STATES) / temperature).log_softmax(-1)
    logits = _naive_logits(head, hidden)
    student = (logits / temperature).log_softmax(-1)
    divergence = functional.kl_div(student, teacher, log_target=True, reduction="sum") * temperature**2
    text = functional.cross_entropy(logits, LABELS.long(), ignore_index=NO_LABEL, reduction="sum")
    expected = _with_gradient(0.7 * divergence + 0.3 * text, hidden)
    settings = {"temperature": temperature, "labels": LABELS, "language_model_share": 0.3}
    found = _with_gradient(distillation_loss(hidden, head, TEACHER, logits_at_once=logits_at_once, **settings), hidden)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-11)


def likeliest(k: int, temperature: float) -> LikeliestTokens:
    log_probabilities = (_naive_logits(TEACHER_HEAD, TEACHER_STATES) / temperature).log_softmax(-1)
    values, indices = log_probabilities.topk(k)
    return LikeliestTokens(indices.int(), values)


@HEADS
@CHUNKS
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_likeliest_tokens_and_the_rest_as_one_equal_the_naive_loss(
    hidden: Tensor, head: Head, logits_at_once: int, temperature: float
) -> None:
    k = 5
    wanted = (_naive_logits(TEACHER_HEAD, TEACHER_STATES) / temperature).log_softmax(-1)
    found = (_naive_logits(head, hidden) / temperature).log_softmax(-1)
    order = wanted.argsort(-1, descending=True)

    def coarse(log_probabilities: Tensor) -> Tensor:
        """k tokens, and one that stands for all others."""
        ordered = log_probabilities.gather(-1, order)
        return torch.cat([ordered[:, :k], ordered[:, k:].logsumexp(-1, keepdim=True)], dim=-1)

    naive = functional.kl_div(coarse(found), coarse(wanted), log_target=True, reduction="sum") * temperature**2
    expected = _with_gradient(naive, hidden)
    teacher = likeliest(k, temperature)
    loss = distillation_loss(hidden, head, teacher, temperature=temperature, logits_at_once=logits_at_once)
    torch.testing.assert_close(_with_gradient(loss, hidden), expected, rtol=1e-9, atol=1e-9)


def test_all_tokens_as_the_likeliest_ones_are_the_whole_vocabulary(hidden: Tensor) -> None:
    whole = _with_gradient(distillation_loss(hidden, Head(WEIGHT), TEACHER), hidden)
    every = _with_gradient(distillation_loss(hidden, Head(WEIGHT), likeliest(VOCAB, 1.0)), hidden)
    torch.testing.assert_close(every, whole, rtol=1e-9, atol=1e-9)


def test_distance_of_hidden_states_counts_every_token_alike() -> None:
    wanted = _normal(4, HIDDEN, seed=8) * torch.tensor([1.0, 10.0, 100.0, 1e4])[:, None]
    assert float(hidden_states_loss(wanted * 1.5, wanted)) == pytest.approx(4 * 0.25)
    assert float(hidden_states_loss(wanted, wanted)) == 0
