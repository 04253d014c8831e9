from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.models import BOS, byte_tokenizer, framed_tokenizer, tiny_llama
from worker.evaluation.perplexity import Window, cut_windows, document_losses, perplexity, scored_tokens
from worker.models.causal import load_causal

DOCUMENTS = ["The whale. " * 13, "A", "Call me Ishmael.", "Some years ago - never mind how long precisely. " * 4]


@pytest.fixture
def model(tmp_path: Path) -> PreTrainedModel:
    return load_causal(tiny_llama(tmp_path), "cpu", torch.float64)


def _ignore(_windows: int) -> None:
    return None


@torch.no_grad()
def _naive(model: PreTrainedModel, windows: list[Window]) -> float:
    """transformers' own loss, one window at a time."""
    losses = [model(input_ids=w.tokens[None], labels=w.tokens[None]).loss.item() * (len(w) - 1) for w in windows]
    return math.exp(sum(losses) / sum(len(w) - 1 for w in windows))


def test_perplexity_equals_transformers_own_loss_window_by_window(model: PreTrainedModel) -> None:
    windows = cut_windows(DOCUMENTS, byte_tokenizer(), 50, 10_000)
    # transformers computes its loss in fp32
    assert perplexity(model, windows, _ignore) == pytest.approx(_naive(model, windows), rel=1e-5)


def test_losses_by_document_are_those_of_each_document_alone(model: PreTrainedModel) -> None:
    long_enough = [document for document in DOCUMENTS if len(document) > 1]
    losses = document_losses(model, cut_windows(DOCUMENTS, byte_tokenizer(), 50, 10_000), _ignore)
    alone = [
        document_losses(model, cut_windows([document], byte_tokenizer(), 50, 10_000), _ignore)
        for document in long_enough
    ]
    assert losses.nats == pytest.approx([each.nats[0] for each in alone], rel=1e-9)
    assert losses.tokens == [each.tokens[0] for each in alone]


def test_perplexity_of_a_model_that_knows_nothing_is_the_vocabulary(model: PreTrainedModel) -> None:
    model.get_output_embeddings().weight.data.zero_()
    windows = cut_windows(DOCUMENTS, byte_tokenizer(), 50, 10_000)
    assert perplexity(model, windows, _ignore) == pytest.approx(320)


def test_order_and_batching_do_not_change_perplexity(model: PreTrainedModel) -> None:
    windows = cut_windows(DOCUMENTS * 30, byte_tokenizer(), 50, 10_000)
    batches: list[int] = []
    forwards = perplexity(model, windows, batches.append)
    assert len(batches) > 1
    assert sum(batches) == len(windows)
    assert perplexity(model, windows[::-1], _ignore) == pytest.approx(forwards, rel=1e-12)


@torch.no_grad()
def _strided(model: PreTrainedModel, documents: list[str], length: int, stride: int) -> float:
    """By hand, one token at a time: each from the earliest window that holds it and something before it."""
    total, scored = 0.0, 0
    for document in documents:
        ids = byte_tokenizer()(document)["input_ids"]
        for position in range(1, len(ids)):
            starts = [start for start in range(0, position, stride) if start + length > position]
            if starts:
                logits = model(input_ids=torch.tensor([ids[starts[0] : position]])).logits[0, -1]
                total -= logits.log_softmax(-1)[ids[position]].item()
                scored += 1
    return math.exp(total / scored)


@pytest.mark.parametrize(
    ("length", "stride"),
    [
        (50, 50),
        pytest.param(50, 49, marks=pytest.mark.long),
        pytest.param(50, 20, marks=pytest.mark.long),
        (20, 7),
        pytest.param(16, 1, marks=pytest.mark.long),
        pytest.param(1000, 10, marks=pytest.mark.long),
    ],
)
def test_strided_perplexity_scores_each_token_once_with_the_context_it_has(
    model: PreTrainedModel, length: int, stride: int
) -> None:
    windows = cut_windows(DOCUMENTS, byte_tokenizer(), length, 10_000, stride)
    assert perplexity(model, windows, _ignore) == pytest.approx(_strided(model, DOCUMENTS, length, stride), rel=1e-9)


@pytest.mark.parametrize(("length", "stride"), [(50, None), (50, 20), (16, 1)])
def test_with_bos_every_token_is_scored_after_it_and_what_stands_before(
    model: PreTrainedModel, length: int, stride: int | None
) -> None:
    total, scored, room = 0.0, 0, length - 1
    for document in DOCUMENTS:
        ids = byte_tokenizer()(document)["input_ids"]
        for position in range(len(ids)):
            starts = range(0, position + 1, min(stride or room, room))
            start = next(start for start in starts if start + room > position)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[BOS, *ids[start:position]]])).logits[0, -1]
            total -= logits.log_softmax(-1)[ids[position]].item()
            scored += 1
    windows = cut_windows(DOCUMENTS, framed_tokenizer("bos", "eos"), length, 10_000, stride)
    assert scored_tokens(windows) == scored
    assert all(len(window) <= length and window.tokens[0] == BOS for window in windows)
    assert perplexity(model, windows, _ignore) == pytest.approx(math.exp(total / scored), rel=1e-9)


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_overlapping_windows_score_all_but_the_first_token_of_a_document(stride: int) -> None:
    windows = cut_windows(DOCUMENTS, byte_tokenizer(), 8, 10_000, stride)
    assert scored_tokens(windows) == sum(len(document.encode()) - 1 for document in DOCUMENTS)
    assert all(len(window) <= 8 for window in windows)
    assert scored_tokens(cut_windows(DOCUMENTS, byte_tokenizer(), 8, 100, stride)) == 100


def test_windows_are_consecutive_and_never_span_documents() -> None:
    tokenizer = byte_tokenizer()
    windows = cut_windows(["abcdefg", "h", "ijk"], tokenizer, 3, 1000)
    assert [tokenizer.decode(window.tokens.tolist()) for window in windows] == ["abc", "def", "ijk"]


@pytest.mark.parametrize("limit", [1, 2, 7, 10])
def test_exactly_as_many_tokens_are_scored_as_allowed(limit: int) -> None:
    assert scored_tokens(cut_windows(["abcdefg"] * 5, byte_tokenizer(), 4, limit)) == limit


def test_a_model_whose_numbers_broke_has_no_finite_perplexity(model: PreTrainedModel) -> None:
    model.get_output_embeddings().weight.data.fill_(math.nan)
    assert math.isnan(perplexity(model, cut_windows(DOCUMENTS, byte_tokenizer(), 50, 100), _ignore))
