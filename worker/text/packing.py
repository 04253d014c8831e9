"""Text into training sequences: packed without padding, mixed by weight, the same for the same seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from publisher.checkpoint.framing import Framing, tokenizer_faults
from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import Exhausted
from publisher.recipe.parts import split_by_weight
from worker.text.token_cache import cached, file_name

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
    """Documents as full sequences: int32, shape (n, sequence_length), n <= limit.

    Sequences and documents begin and end as the tokenizer has them (publisher.checkpoint.framing). No padding; what
    does not fill the last sequence is dropped. Reads no more documents than `limit` sequences need. Attention of a
    sequence's later documents reaches its earlier ones.
    """
    rows = Framing.of(tokenizer).packed(token_ids(documents, tokenizer), sequence_length)
    packed = [torch.tensor(row, dtype=torch.int32) for row in itertools.islice(rows, limit)]
    return torch.stack(packed) if packed else torch.empty(0, sequence_length, dtype=torch.int32)


def token_ids(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Each document's tokens without special tokens."""
    remaining = iter(documents)
    while batch := list(itertools.islice(remaining, _DOCUMENTS_AT_ONCE)):
        # verbose=False: documents longer than the model's context are cut here, so the warning is not true.
        with tokenizer_faults():
            tokenized = tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        yield from tokenized


def training_sequences(
    corpora: Sequence[WeightedSource],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    count: int,
    *,
    seed: int,
    check: Callable[[], None] = lambda: None,
    exhausted: Exhausted = Exhausted.REFUSE,
    batch_sequences: int = 1,
    cache: Path | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Tensor:
    """`count` sequences of the corpora's training documents, shuffled: int32, shape (count, sequence_length).

    The same arguments give the same sequences in the same order, so training goes on at any index. `check` is
    called for every document; tokenized text is kept in the folder `cache`. What happens when a corpus has less text
    than its share is the recipe's word: RequestFault, since repeating text unasked would teach the model it by heart;
    its sequences again, each time in another order; or as many whole batches of `batch_sequences` as there are until
    the first corpus is out, which are fewer than `count`.
    """
    shares = split_by_weight(count, [corpus.weight for corpus in corpora])
    text = _Text(tokenizer, sequence_length, cache, check)
    packed = [text.sequences(corpus.source, share) for corpus, share in zip(corpora, shares, strict=True)]
    short = [index for index, share in enumerate(shares) if len(packed[index]) < share]
    for index in short:
        _say_exhausted(corpora[index].source, packed[index], shares[index] * sequence_length, exhausted, log)
    if short and exhausted is Exhausted.STOP:
        count = _until_exhausted(packed, count, [corpus.weight for corpus in corpora], batch_sequences)
        shares = split_by_weight(count, [corpus.weight for corpus in corpora])
        packed = [sequences[:share] for sequences, share in zip(packed, shares, strict=True)]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return _mixed(packed, shares, order, seed)


def _mixed(packed: Sequence[Tensor], shares: Sequence[int], order: Tensor, seed: int) -> Tensor:
    """Row i is the sequence that `order[i]` names, counted through all shares. A corpus that is shorter than its share
    gives all its sequences before it gives one again."""
    row_of = order.argsort()  # sequence, counted through all shares → row
    mixed = packed[0].new_empty(len(order), packed[0].shape[1])
    first = 0
    for index, (sequences, share) in enumerate(zip(packed, shares, strict=True)):
        rows = row_of[first : first + share]
        first += share
        if len(sequences) < share:
            mixed[rows.sort().values] = sequences[_passes(len(sequences), share, seed + index + 1)]
        else:
            mixed[rows] = sequences
    return mixed


def _passes(length: int, count: int, seed: int) -> Tensor:
    """`count` numbers below `length`: all of them in random order, then all in another order, and so on."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randperm(length, generator=generator) for _ in range(math.ceil(count / length))])[:count]


def _until_exhausted(packed: Sequence[Tensor], count: int, weights: Sequence[float], batch: int) -> int:
    """The most sequences, in whole batches, whose shares the corpora have. RequestFault if that is not one batch."""
    total = math.fsum(weights)
    most = min(len(sequences) * total / weight for sequences, weight in zip(packed, weights, strict=True))
    left = min(count, math.ceil(most) + len(weights)) // batch * batch
    while left and any(share > len(part) for share, part in zip(split_by_weight(left, weights), packed, strict=True)):
        left -= batch
    if not left:
        raise RequestFault(
            "the corpora do not fill one batch before the first of them is exhausted.",
            field="recipe.alignment.batch_tokens",
            way_out="Lower alignment.batch_tokens, add text, or change the corpora's weights.",
        )
    return left


@dataclass(frozen=True)
class _Text:
    """How documents become sequences."""

    tokenizer: PreTrainedTokenizerBase
    sequence_length: int
    cache: Path | None
    check: Callable[[], None]

    def sequences(self, source: CorpusSource, count: int) -> Tensor:
        """int32 (at most `count`, sequence_length) of the training documents."""

        def make() -> Tensor:
            documents = _checked(source.documents(Split.TRAIN), self.check)
            return pack_tokens(documents, self.tokenizer, self.sequence_length, count)

        name = file_name(source, self.tokenizer, self.sequence_length) if self.cache else None
        return make() if self.cache is None or name is None else cached(self.cache / name, count, make)


def _say_exhausted(
    source: CorpusSource, sequences: Tensor, wanted: int, exhausted: Exhausted, log: Callable[[str], None]
) -> None:
    """Raises RequestFault where a corpus that is too short is refused, or too short for anything."""
    held = f"corpus {source.name} fills {sequences.numel():,} tokens of training sequences"
    if exhausted is Exhausted.REFUSE or not len(sequences):
        raise RequestFault(
            f"{held}; its share of the alignment is {wanted:,}.",
            field="recipe.alignment.tokens",
            way_out='Lower alignment.tokens or the corpus\'s weight, add text, or set alignment.exhausted to "repeat" '
            'or "stop".',
        )
    what = "it is gone through again" if exhausted is Exhausted.REPEAT else "alignment stops there"
    log(f"{held[0].upper()}{held[1:]} of the {wanted:,} that are its share: {what}.")


def _checked(documents: Iterable[str], check: Callable[[], None]) -> Iterator[str]:
    for document in documents:
        check()
        yield document
