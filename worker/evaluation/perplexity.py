"""Perplexity on documents that nothing was trained on.

Definition: exp(total negative log-likelihood in nats / number of scored tokens), over the documents of a corpus up to a
limit of scored tokens, which long documents share (worker.evaluation.held_out_text). A document is read in windows of
at most `sequence_length` tokens that start every `stride` tokens; no window spans two documents. Each window begins
with what the tokenizer puts before a text (a BOS, where the family has one; counted in `sequence_length`, never
scored), and scores those of its tokens that no window before it has scored, given all tokens before them in the window,
so every token is scored once. With a stride below `sequence_length` that is every token of a document, each with at
least `sequence_length - stride` tokens before it where the document has them. With stride = `sequence_length`, the
default, windows do not overlap: cheapest, and a little worse for every model alike. Where the family puts nothing
before a text, a token with nothing before it in its window is not scored: the first of a document, by default of each
window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from publisher.checkpoint.framing import Framing
from worker.evaluation.held_out_text import document_limit, shared_out
from worker.models.causal import hidden_states
from worker.models.head import Head, head_of
from worker.text.packing import token_ids
from worker.training.batch_loss import rows_at_once
from worker.training.objective import next_token_loss


@dataclass(frozen=True)
class Window:
    """What the tokenizer puts before a text and then consecutive tokens of one document, `tokens` int64
    (2…sequence_length,), of which the first `context` ≥ 1 are not scored. `document`: its number, from 0."""

    tokens: Tensor
    context: int = 1
    document: int = 0

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

    Of long documents the beginnings, until `limit_tokens` tokens are scored altogether; a document's last window is
    shortened to its share of that.
    """
    most = document_limit(limit_tokens, sequence_length)
    cut: list[list[Window]] = []
    held = 0
    framing = Framing.of(tokenizer)
    for ids in token_ids(documents, tokenizer):
        windows = _cut_document(
            ids,
            len(cut),
            framing,
            sequence_length=sequence_length,
            stride=stride or sequence_length,
            limit_tokens=limit_tokens,
        )
        if windows:
            cut.append(windows)
            held += min(scored_tokens(windows), most)
        if held >= limit_tokens:
            break
    shares = shared_out([scored_tokens(windows) for windows in cut], limit_tokens)
    return [window for windows, share in zip(cut, shares, strict=True) for window in _beginning(windows, share)]


def _cut_document(
    ids: list[int], document: int, framing: Framing, *, sequence_length: int, stride: int, limit_tokens: int
) -> list[Window]:
    """Whole windows, until `limit_tokens` tokens are scored or more."""
    windows: list[Window] = []
    left = limit_tokens
    before, room = list(framing.before), framing.room(sequence_length)
    for start, end, context in _spans(len(ids), room, min(stride, room), unscored=0 if before else 1):
        windows.append(Window(torch.tensor(before + ids[start:end]), len(before) + context, document))
        left -= windows[-1].scored
        if left <= 0:
            break
    return windows


def _beginning(windows: Iterable[Window], tokens: int) -> Iterator[Window]:
    """Of a document's windows, as many as score `tokens` tokens; the last is shortened to that."""
    for window in windows:
        if tokens <= 0:
            return
        yield replace(window, tokens=window.tokens[: window.context + tokens])
        tokens -= window.scored


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


@dataclass(frozen=True)
class DocumentLosses:
    """`nats`: negative log-likelihood of each document's scored tokens, summed; `tokens`: how many those are."""

    nats: Sequence[float]
    tokens: Sequence[int]

    @property
    def perplexity(self) -> float:
        """As the module defines it. Infinite or NaN if the model's numbers are."""
        mean = sum(self.nats) / sum(self.tokens)
        return math.exp(mean) if mean < math.log(torch.finfo(torch.float64).max) else mean * math.inf


@torch.no_grad()
def document_losses(
    model: PreTrainedModel, windows: Sequence[Window], on_windows: Callable[[int], None]
) -> DocumentLosses:
    """Of `model` on `windows`, by `document`, from 0.

    `on_windows` gets the number of windows of each batch when they are done, and may raise.
    """
    head, device = head_of(model), model.device
    count = 1 + max(window.document for window in windows)
    nats, tokens = [0.0] * count, [0] * count
    for batch in _batches(windows, device):
        for window, loss in zip(batch, _negative_log_likelihoods(model, head, batch), strict=True):
            nats[window.document] += loss
            tokens[window.document] += window.scored
        on_windows(len(batch))
    return DocumentLosses(nats, tokens)


def perplexity(model: PreTrainedModel, windows: Sequence[Window], on_windows: Callable[[int], None]) -> float:
    """Of all `windows`; `on_windows` as for `document_losses`."""
    return document_losses(model, windows, on_windows).perplexity


def _batches(windows: Sequence[Window], device: torch.device) -> Iterator[list[Window]]:
    """Windows of like lengths together, so that little is padded."""
    remaining = sorted(windows, key=len, reverse=True)
    while remaining:
        rows = rows_at_once(device, len(remaining[0]))
        yield remaining[:rows]
        remaining = remaining[rows:]


def _negative_log_likelihoods(model: PreTrainedModel, head: Head, windows: Sequence[Window]) -> list[float]:
    """In nats, summed over each window's tokens. Padding comes after the text, where causal attention never sees it."""
    device = model.device
    tokens = pad_sequence([window.tokens for window in windows], batch_first=True).to(device)
    positions = torch.arange(1, tokens.shape[1], device=device)
    lengths, contexts = (
        torch.tensor(counts, device=device)[:, None]
        for counts in ([len(window) for window in windows], [window.context for window in windows])
    )
    scored = (positions >= contexts) & (positions < lengths)  # (rows, length - 1)
    hidden, labels = hidden_states(model, tokens)[:, :-1], tokens[:, 1:]
    return [
        float(next_token_loss(hidden[row][scored[row]], head, labels[row][scored[row]])) for row in range(len(windows))
    ]
