"""Perplexity on documents that nothing was trained on.

Definition: exp(total negative log-likelihood in nats / number of scored tokens), over all documents of a corpus up to a
limit of scored tokens. A document is read in windows of at most `sequence_length` tokens that start every `stride`
tokens; no window spans two documents. Each window begins with what the tokenizer puts before a text (a BOS, where the
family has one; counted in `sequence_length`, never scored), and scores those of its tokens that no window before it
has scored, given all tokens before them in the window, so every token is scored once. With a stride below
`sequence_length` that is every token of a document, each with at least `sequence_length - stride` tokens before it
where the document has them. With stride = `sequence_length`, the default, windows do not overlap: cheapest, and a
little worse for every model alike. Where the family puts nothing before a text, a token with nothing before it in its
window is not scored: the first of a document, by default of each window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from publisher.checkpoint.framing import Framing
from worker.alignment.batch_loss import rows_at_once
from worker.alignment.data import token_ids
from worker.alignment.objective import next_token_loss
from worker.causal import hidden_states
from worker.head import Head, head_of


@dataclass(frozen=True)
class Window:
    """What the tokenizer puts before a text and then consecutive tokens of one document, `tokens` int64
    (2…sequence_length,), of which the first `context` ≥ 1 are not scored."""

    tokens: Tensor
    context: int = 1

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def scored(self) -> int:
        return len(self.tokens) - self.context


def cut_windows(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    limit_tokens: int,
    stride: int | None = None,
) -> list[Window]:
    """Each document in windows as the module says; `stride` None: `sequence_length`.

    Stops when `limit_tokens` tokens are scored; the last window is shortened to that.
    """
    windows: list[Window] = []
    left = limit_tokens
    framing = Framing.of(tokenizer)
    before, room = list(framing.before), framing.room(sequence_length)
    for ids in token_ids(documents, tokenizer):
        for start, end, context in _spans(len(ids), room, min(stride or room, room), unscored=0 if before else 1):
            text = ids[start : min(end, start + context + left)]
            window = Window(torch.tensor(before + text), len(before) + context)
            windows.append(window)
            left -= window.scored
            if not left:
                return windows
    return windows


def _spans(length: int, room: int, stride: int, *, unscored: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and context of a document's windows that score anything: at most `room` of its tokens each, of which
    `unscored` at least are context."""
    seen = 0
    for start in range(0, length, stride):
        end, context = min(start + room, length), max(unscored, seen - start)
        if end - start > context:
            yield start, end, context
        if end == length:
            return
        seen = end


def scored_tokens(windows: Iterable[Window]) -> int:
    """Tokens that `perplexity` scores."""
    return sum(window.scored for window in windows)


@torch.no_grad()
def perplexity(model: PreTrainedModel, windows: Sequence[Window], on_windows: Callable[[int], None]) -> float:
    """Of `model` on `windows`, as the module defines it.

    `on_windows` gets the number of windows of each batch when they are done, and may raise. Infinite or NaN if the
    model's numbers are.
    """
    head, device = head_of(model), model.device
    total = 0.0
    for batch in _batches(windows, device):
        total += _negative_log_likelihood(model, head, batch)
        on_windows(len(batch))
    mean = total / scored_tokens(windows)
    return math.exp(mean) if mean < math.log(torch.finfo(torch.float64).max) else mean * math.inf


def _batches(windows: Sequence[Window], device: torch.device) -> Iterator[list[Window]]:
    """Windows of like lengths together, so that little is padded."""
    remaining = sorted(windows, key=len, reverse=True)
    while remaining:
        rows = rows_at_once(device, len(remaining[0]))
        yield remaining[:rows]
        remaining = remaining[rows:]


def _negative_log_likelihood(model: PreTrainedModel, head: Head, windows: Sequence[Window]) -> float:
    """In nats, summed. Padding comes after the text, where causal attention never sees it."""
    device = model.device
    tokens = pad_sequence([window.tokens for window in windows], batch_first=True).to(device)
    positions = torch.arange(1, tokens.shape[1], device=device)
    lengths, contexts = (
        torch.tensor(counts, device=device)[:, None]
        for counts in ([len(window) for window in windows], [window.context for window in windows])
    )
    scored = (positions >= contexts) & (positions < lengths)  # (rows, length - 1)
    hidden = hidden_states(model, tokens)[:, :-1][scored]
    return float(next_token_loss(hidden, head, tokens[:, 1:][scored]))
