from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.models import byte_tokenizer, tiny_llama
from worker.causal import load_causal
from worker.evaluation.perplexity import cut_windows, perplexity, scored_tokens

DOCUMENTS = ["The whale. " * 13, "A", "Call me Ishmael.", "Some years ago - never mind how long precisely. " * 4]


@pytest.fixture
def model(tmp_path: Path) -> PreTrainedModel:
    return load_causal(tiny_llama(tmp_path), "cpu", torch.float64)


def _ignore(_windows: int) -> None:
    return None


@torch.no_grad()
def _naive(model: PreTrainedModel, windows: list[Tensor]) -> float:
    """transformers' own loss, one window at a time."""
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() * (len(w) - 1) for w in windows]
    return math.exp(sum(losses) / sum(len(w) - 1 for w in windows))


def test_perplexity_equals_transformers_own_loss_window_by_window(model: PreTrainedModel) -> None:
    windows = cut_windows(DOCUMENTS, byte_tokenizer(), 50, 10_000)
    # transformers computes its loss in fp32
    assert perplexity(model, windows, _ignore) == pytest.approx(_naive(model, windows), rel=1e-5)


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


def test_windows_are_consecutive_and_never_span_documents() -> None:
    tokenizer = byte_tokenizer()
    windows = cut_windows(["abcdefg", "h", "ijk"], tokenizer, 3, 1000)
    assert [tokenizer.decode(window.tolist()) for window in windows] == ["abc", "def", "ijk"]


@pytest.mark.parametrize("limit", [1, 2, 7, 10])
def test_exactly_as_many_tokens_are_scored_as_allowed(limit: int) -> None:
    assert scored_tokens(cut_windows(["abcdefg"] * 5, byte_tokenizer(), 4, limit)) == limit


def test_a_model_whose_numbers_broke_has_no_finite_perplexity(model: PreTrainedModel) -> None:
    model.get_output_embeddings().weight.data.fill_(math.nan)
    assert math.isnan(perplexity(model, cut_windows(DOCUMENTS, byte_tokenizer(), 50, 100), _ignore))
