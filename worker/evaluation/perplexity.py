"""Perplexity on documents that nothing was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.alignment.batch_loss import rows_at_once
from worker.alignment.data import token_ids
from worker.alignment.objective import next_token_loss
from worker.causal import hidden_states
from worker.head import Head, head_of


def cut_windows(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, sequence_length: int, limit_tokens: int
) -> list[Tensor]:
    """Each document in consecutive windows of at most `sequence_length` tokens: int64, shape (2…sequence_length,).

    No window spans two documents. Stops when `limit_tokens` tokens are scored, which are all but each window's
    first: the last window is shortened to it.
    """
    windows: list[Tensor] = []
    left = limit_tokens
    for ids in token_ids(documents, tokenizer):
        for start in range(0, len(ids), sequence_length):
            window = torch.tensor(ids[start : start + min(sequence_length, left + 1)])
            if len(window) > 1:
                windows.append(window)
                left -= len(window) - 1
            if not left:
                return windows
    return windows


def scored_tokens(windows: Iterable[Tensor]) -> int:
    """Tokens that `perplexity` scores: all but the first of each window."""
    return sum(len(window) - 1 for window in windows)


@torch.no_grad()
def perplexity(model: PreTrainedModel, windows: Sequence[Tensor], on_windows: Callable[[int], None]) -> float:
    """exp(total negative log-likelihood / scored tokens), each token given those before it in its window.

    The first token of a window has nothing before it and is not scored. `on_windows` gets the number of windows
    of each batch when they are done, and may raise. Infinite or NaN if the model's numbers are.
    """
    head, device = head_of(model), model.device
    total = 0.0
    for batch in _batches(windows, device):
        total += _negative_log_likelihood(model, head, batch)
        on_windows(len(batch))
    mean = total / scored_tokens(windows)
    return math.exp(mean) if mean < math.log(torch.finfo(torch.float64).max) else mean * math.inf


def _batches(windows: Sequence[Tensor], device: torch.device) -> Iterator[list[Tensor]]:
    """Windows of like lengths together, so that little is padded."""
    remaining = sorted(windows, key=len, reverse=True)
    while remaining:
        rows = rows_at_once(device, len(remaining[0]))
        yield [window.to(device) for window in remaining[:rows]]
        remaining = remaining[rows:]


def _negative_log_likelihood(model: PreTrainedModel, head: Head, windows: Sequence[Tensor]) -> float:
    """In nats, summed. Padding comes after the text, where causal attention never sees it."""
    tokens = pad_sequence(list(windows), batch_first=True)
    lengths = torch.tensor([len(window) for window in windows], device=tokens.device)
    scored = torch.arange(1, tokens.shape[1], device=tokens.device) < lengths[:, None]  # (rows, length - 1)
    hidden = hidden_states(model, tokens)[:, :-1][scored]
    return float(next_token_loss(hidden, head, tokens[:, 1:][scored]))
