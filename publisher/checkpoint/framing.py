"""How a model's family has text begin and end: the special tokens that its tokenizer puts around a text.

Llama 2 and 3, Mistral and Gemma put a token before every text and have never seen one without it: Gemma 3 270M reads
prose at ten times the perplexity where it is missing. Others (SmolLM2, Qwen) put nothing. Nobody keeps a list: the
tokenizer is asked. Whoever packs text into sequences of one length, to train an adapter or to measure, lets each
sequence begin with `before`, also where it goes on in the middle of a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from publisher.errors import RequestFault

#: Texts that the tokenizer is asked with: what it puts around them must not depend on them. Several, since a vocabulary
#: may hold capitals or digits only (of proteins: "A", not "a"), and what it does not hold may vanish, or become a
#: special token.
_ASKED = ("a", "The sea", "A", "1", "\u6d77")


@dataclass(frozen=True)
class Framing:
    """`before`: ids that the tokenizer puts before every text; `close`: what ends a document where others follow:
    what the tokenizer puts behind a text, else its end-of-text token, else nothing."""

    before: tuple[int, ...]
    close: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Framing:
        """Ask `tokenizer` (of transformers). RequestFault if it has nothing that tells one document from the next."""
        before, after = _around(tokenizer)
        eos = tokenizer.eos_token_id
        close = after or (() if eos is None else (eos,))
        if not (before or close):
            raise RequestFault(
                "the base model's tokenizer has no end-of-text token, so documents cannot be told apart.",
                way_out="Name one in tokenizer_config.json (eos_token).",
            )
        return cls(before, close)

    def room(self, sequence_length: int) -> int:
        """Tokens of text that a sequence of `sequence_length` has place for. RequestFault if that is not one."""
        room = sequence_length - len(self.before)
        if room < 1:
            raise RequestFault(
                f"a sequence of {sequence_length} tokens has no place for text: the base model's tokenizer begins each "
                f"with {len(self.before)} tokens of its own.",
                way_out="Make sequences longer.",
            )
        return room

    def packed(self, documents: Iterable[Sequence[int]], sequence_length: int) -> Iterator[list[int]]:
        """Full sequences of `sequence_length` ids of `documents`, each its ids without special tokens.

        Every sequence and every document begins with `before`, every document ends with `close`; no padding, and what
        does not fill the last sequence is left out.
        """
        begin = list(self.before)
        self.room(sequence_length)
        row = begin.copy()
        for document in documents:
            if len(row) > len(begin):
                row += begin
                if len(row) >= sequence_length:  # no place for the document's first token
                    yield row[:sequence_length]
                    row = begin.copy()
            text, start = [*document, *self.close], 0
            while len(row) + len(text) - start >= sequence_length:
                end = start + sequence_length - len(row)
                yield row + text[start:end]
                row, start = begin.copy(), end
            row += text[start:]


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands before and behind a text."""
    special = set(tokenizer.all_special_ids)
    asked = [(tuple(_ids(tokenizer, text, add_special_tokens=False)), text) for text in _ASKED]
    told = [(plain, text) for plain, text in asked if plain and special.isdisjoint(plain)]
    # of a vocabulary that knows none of them
    told = told or [(plain, text) for plain, text in asked if plain]
    found = {_frame(plain, tuple(_ids(tokenizer, text))) for plain, text in told}
    if not found:
        raise RequestFault("the base model's tokenizer makes no tokens of letters and digits.")
    if len(found) > 1:
        raise RequestFault("the base model's tokenizer puts other special tokens around one text than around another.")
    return found.pop()


def _frame(plain: tuple[int, ...], whole: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise RequestFault("the base model's tokenizer changes a text's own tokens when it puts special ones around it.")


def _ids(tokenizer: Any, text: str, **options: bool) -> list[int]:
    with tokenizer_faults():
        ids: list[int] = tokenizer(text, **options)["input_ids"]
    return ids


@contextmanager
def tokenizer_faults() -> Iterator[None]:
    """RequestFault for text that a tokenizer stops at, such as a character that it has no token for, not even one for
    the unknown."""
    try:
        yield
    except Exception as error:  # the tokenizers library raises no class of its own
        raise RequestFault(
            f"the base model's tokenizer cannot read the text: {' '.join(str(error).split())[:300]}.",
            way_out="Name its unk_token in tokenizer.json, or leave out text that it has no tokens for.",
        ) from error
