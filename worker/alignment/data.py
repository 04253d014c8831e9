"""Text into training sequences: packed without padding, mixed by weight, the same for the same seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from publisher.corpus import CorpusSource, Split
from publisher.errors import RequestFault

#: Documents that are tokenized in one call: enough for the tokenizer's threads, little enough to cancel between.
_DOCUMENTS_AT_ONCE = 32


@dataclass(frozen=True)
class WeightedSource:
    """A corpus and its share of the tokens, relative to the other corpora."""

    source: CorpusSource
    weight: float


def pack_tokens(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, sequence_length: int, limit: int
) -> Tensor:
    """Documents, each ended by EOS, as full sequences: int32, shape (n, sequence_length), n <= limit.

    No padding; what does not fill the last sequence is dropped. Reads no more documents than `limit`
    sequences need.
    """
    pieces: list[Tensor] = []
    wanted, held = limit * sequence_length, 0
    for ids in token_ids(documents, tokenizer):
        if held >= wanted:
            break
        pieces.append(torch.tensor([*ids, tokenizer.eos_token_id], dtype=torch.int32))
        held += len(pieces[-1])
    tokens = torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int32)
    count = min(limit, len(tokens) // sequence_length)
    return tokens[: count * sequence_length].view(count, sequence_length)


def token_ids(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Each document's tokens without special tokens. RequestFault if the tokenizer has no EOS to join with."""
    if tokenizer.eos_token_id is None:
        raise RequestFault("the base model's tokenizer has no end-of-text token, so documents cannot be told apart.")
    remaining = iter(documents)
    while batch := list(itertools.islice(remaining, _DOCUMENTS_AT_ONCE)):
        # verbose=False: documents longer than the model's context are cut here, so the warning is not true.
        yield from tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]


def training_sequences(
    corpora: Sequence[WeightedSource],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    count: int,
    *,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """`count` sequences of the corpora's training documents, shuffled: int32, shape (count, sequence_length).

    The same arguments give the same sequences in the same order, so training goes on at any index. `check` is
    called for every document. Raises RequestFault if a corpus has less text than its share: repeating it
    unasked would teach the model that text by heart.
    """
    shares = split_by_weight(count, [corpus.weight for corpus in corpora])
    packed = [
        _exactly(corpus.source, tokenizer, sequence_length, share, check)
        for corpus, share in zip(corpora, shares, strict=True)
    ]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.cat(packed)[order]


def split_by_weight(count: int, weights: Sequence[float]) -> list[int]:
    """Whole shares of `count` in proportion to `weights`; largest remainders first, so that they add up."""
    exact = [count * weight / math.fsum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: shares[index] - exact[index])
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    return shares


def _exactly(
    source: CorpusSource,
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    count: int,
    check: Callable[[], None],
) -> Tensor:
    sequences = pack_tokens(_checked(source.documents(Split.TRAIN), check), tokenizer, sequence_length, count)
    if len(sequences) < count:
        raise RequestFault(
            f"corpus {source.name} fills {len(sequences) * sequence_length:,} tokens of training sequences; "
            f"its share of the alignment is {count * sequence_length:,}.",
            field="recipe.alignment.tokens",
            way_out="Lower alignment.tokens or the corpus's weight, or add text.",
        )
    return sequences


def _checked(documents: Iterable[str], check: Callable[[], None]) -> Iterator[str]:
    for document in documents:
        check()
        yield document
