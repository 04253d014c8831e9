from __future__ import annotations

import itertools

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from publisher.checkpoint.framing import Framing
from publisher.errors import RequestFault
from tests.models import BOS, EOS, byte_tokenizer, framed_tokenizer
from worker.text.packing import token_ids

KINDS = {"none": (), "bos": ("bos",), "eos": ("eos",), "both": ("bos", "eos")}


@pytest.mark.parametrize(
    ("adds", "before", "close"),
    [
        ((), (), (EOS,)),
        (("bos",), (BOS,), (EOS,)),
        (("eos",), (), (EOS,)),
        (("bos", "eos"), (BOS,), (EOS,)),
    ],
)
def test_the_tokenizer_itself_says_how_its_family_frames_text(
    adds: tuple[str, ...], before: tuple[int, ...], close: tuple[int, ...]
) -> None:
    assert Framing.of(framed_tokenizer(*adds)) == Framing(before, close)


def test_a_tokenizer_that_frames_with_several_tokens_is_taken_at_its_word() -> None:
    assert Framing.of(framed_tokenizer("bos", "bos", "eos", "eos")) == Framing((BOS, BOS), (EOS, EOS))


def letters(*vocabulary: str, unknown: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer that knows `vocabulary` only, and puts <s> (0) before every text."""
    words = {word: id for id, word in enumerate(("<s>", "</s>", *vocabulary))}
    tokenizer = Tokenizer(BPE(vocab=words, merges=[], unk_token=unknown))
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("vocabulary", ["ACDEFGHIKLMNPQRSTVWY", "12", "xy\u6d77"])
@pytest.mark.parametrize("unknown", [None, "<s>"])
def test_letters_that_a_vocabulary_lacks_tell_nothing_of_its_framing(vocabulary: str, unknown: str | None) -> None:
    assert Framing.of(letters(*vocabulary, unknown=unknown)) == Framing((0,), (1,))


def test_a_tokenizer_that_makes_nothing_of_any_text_is_refused() -> None:
    with pytest.raises(RequestFault, match="makes no tokens"):
        Framing.of(letters("x"))


def test_what_a_tokenizer_stops_at_is_the_requests_fault() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="<unk>")))
    with pytest.raises(RequestFault, match=r"cannot read the text: .*unk_token"):
        Framing.of(tokenizer)
    with pytest.raises(RequestFault, match="cannot read the text"):
        list(token_ids(["a", "b"], tokenizer))


def test_documents_that_begin_with_bos_need_no_end_of_text_token() -> None:
    tokenizer = framed_tokenizer("bos")
    tokenizer.eos_token = None
    assert Framing.of(tokenizer) == Framing((BOS,), ())


def test_documents_that_nothing_tells_apart_are_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(RequestFault, match="no end-of-text token"):
        Framing.of(tokenizer)


def test_every_sequence_and_every_document_begins_with_bos() -> None:
    rows = list(Framing((1,), (2,)).packed([[11, 12, 13, 14, 15], [21], [31, 32, 33]], 4))
    assert rows == [[1, 11, 12, 13], [1, 14, 15, 2], [1, 21, 2, 1], [1, 31, 32, 33]]


@pytest.mark.parametrize("length", [2, 3, 4, 5, 7, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_packing_loses_no_text_and_repeats_none(kind: str, length: int) -> None:
    tokenizer = framed_tokenizer(*KINDS[kind])
    framing = Framing.of(tokenizer)
    documents = [list(range(10 * n, 10 * n + size)) for n, size in enumerate([5, 1, 0, 9, 3, 2, 8, 4])]
    rows = list(framing.packed(documents, length))
    begin = len(framing.before)
    assert all(len(row) == length and tuple(row[:begin]) == framing.before for row in rows)
    text = [token for row in rows for token in row if token < BOS]
    assert text == list(itertools.chain(*documents))[: len(text)]
    assert sum(map(len, documents)) - len(text) <= length


def test_sequences_too_short_for_text_are_refused() -> None:
    with pytest.raises(RequestFault, match="no place for text"):
        list(Framing((1, 1), (2,)).packed([[5, 6]], 2))
