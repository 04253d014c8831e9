"""Text for probes: what they train on, and other text on which the base model is asked how much they help.

Both are of a corpus's training documents. The held-out ones stay unseen until the certificate measures on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import STRENGTH_TOKENS, ProbeBudget
from worker.text.packing import pack_tokens
from worker.training.held_out import TOKENS

#: One in so many documents, from the first on, is what candidates are measured on.
_MEASURED_ONE_IN = 5
#: Where there is too little text for both, the certificate's probe leaves one sequence in so many.
_LEFT_ONE_IN = 8


@dataclass(frozen=True)
class ProbeText:
    """int32 (n, sequence_length) each, of which none is in both."""

    training: Tensor
    measured: Tensor


def certificate_text(corpus: CorpusSource, tokenizer: PreTrainedTokenizerBase, budget: ProbeBudget) -> ProbeText:
    """What follows in the corpus on what the budget trains on is measured; where there is too little of it, the last
    eighth. `measured` may hold nothing. Raises RequestFault if there is not one sequence."""
    length, needed = budget.sequence_length, budget.steps * budget.batch_size
    wanted = max(1, STRENGTH_TOKENS // length)
    found = pack_tokens(corpus.documents(Split.TRAIN), tokenizer, length, needed + wanted)
    if not len(found):
        raise RequestFault(
            f"corpus {corpus.name} has less text to train the probe on than one sequence of {length} tokens.",
            field="recipe.evaluation.probe_budget.sequence_length",
            way_out="Shorten it, add text, or set evaluation.probe to false.",
        )
    measured = max(len(found) - needed, min(wanted, len(found) // _LEFT_ONE_IN))
    return ProbeText(found[: len(found) - measured], found[len(found) - measured :])


def candidates_text(corpus: CorpusSource, tokenizer: PreTrainedTokenizerBase, budget: ProbeBudget) -> ProbeText:
    """For alignment that stops by a probe. Raises RequestFault if either part does not fill one sequence."""
    length = budget.sequence_length
    training = pack_tokens(_documents(corpus, measured=False), tokenizer, length, budget.steps * budget.batch_size)
    measured = pack_tokens(_documents(corpus, measured=True), tokenizer, length, max(1, TOKENS // length))
    if not (len(training) and len(measured)):
        raise RequestFault(
            f"corpus {corpus.name} has too few training documents for alignment.stop probe: the probe trains on "
            f"{len(training)} and is measured on {len(measured)} sequences of {length} tokens, of different documents.",
            field="recipe.alignment.stop",
            way_out='Add documents, shorten evaluation.probe_budget.sequence_length, or set alignment.stop to "end".',
        )
    return ProbeText(training, measured)


def _documents(corpus: CorpusSource, *, measured: bool) -> Iterator[str]:
    """No text is in both parts."""
    seen: set[bytes] = set()
    for text in corpus.documents(Split.TRAIN):
        digest = hashlib.sha256(text.encode()).digest()
        if digest in seen:
            continue
        if (len(seen) % _MEASURED_ONE_IN == 0) == measured:
            yield text
        seen.add(digest)
