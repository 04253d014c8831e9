"""Which of a corpus's held-out text is measured: many documents a little rather than a few whole.

Text within a document is alike, so what tells how sure a mean is are documents, not tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

from publisher.corpus.source import CorpusSource, Split
from publisher.manifest.verdict import LEAST_DOCUMENTS

#: Among so many documents the limit of tokens is shared, where they are long and the limit has a window for each.
_DOCUMENTS = 32


def held_out_documents(corpus: CorpusSource) -> Iterator[str]:
    """Each text once, in file order: a copy is no further evidence."""
    seen: set[bytes] = set()
    for text in corpus.documents(Split.HELD_OUT):
        digest = hashlib.sha256(text.encode()).digest()
        if digest not in seen:
            seen.add(digest)
            yield text


def count_documents(corpus: CorpusSource) -> int:
    """Held-out documents as far as it matters: up to LEAST_DOCUMENTS."""
    return sum(1 for _ in islice(held_out_documents(corpus), LEAST_DOCUMENTS))


def document_limit(limit_tokens: int, sequence_length: int) -> int:
    """Tokens of one document that count when documents are gathered until there are `limit_tokens`.

    A window at least, unless that leaves fewer than LEAST_DOCUMENTS.
    """
    return max(1, min(max(sequence_length, limit_tokens // _DOCUMENTS), limit_tokens // LEAST_DOCUMENTS))


def shared_out(lengths: Sequence[int], limit_tokens: int) -> list[int]:
    """Tokens to take of each document of `lengths`: all of the short ones, of the others the same, up to the limit."""
    shares, left = [0] * len(lengths), limit_tokens
    for position, document in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        shares[document] = min(lengths[document], left // (len(lengths) - position))
        left -= shares[document]
    return shares
