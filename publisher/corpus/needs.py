"""Which text a recipe reads of which corpus, and whether what was counted of it can be enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from publisher.corpus.facts import CorpusFacts
from publisher.corpus.source import Split
from publisher.errors import RequestFault
from publisher.recipe import Exhausted, Recipe
from publisher.recipe.parts import shares_of

#: windows may be short: one token, and one before it
_SCORED = 2


@dataclass(frozen=True)
class TextNeed:
    """A place in the recipe that reads `tokens` tokens of one side of a corpus."""

    field: str
    corpus: str
    split: Split
    tokens: int


def text_needs(recipe: Recipe) -> Iterator[TextNeed]:
    """Every place of the recipe that reads text."""
    if calibration := recipe.pruning.calibration:
        for name, samples in calibration.shares.items():
            field = f"recipe.pruning.{calibration.field_of(name)}"
            yield TextNeed(field, name, Split.TRAIN, samples * calibration.sequence_length)
    if alignment := recipe.alignment:
        for index, (name, tokens) in enumerate(shares_of(alignment.corpora, alignment.text_tokens).items()):
            least = tokens if alignment.exhausted is Exhausted.REFUSE else min(tokens, alignment.sequence_length)
            yield TextNeed(f"recipe.alignment.corpora.{index}.name", name, Split.TRAIN, least)
    if evaluation := recipe.evaluation:
        for index, name in enumerate(evaluation.corpora):
            yield TextNeed(f"recipe.evaluation.corpora.{index}", name, Split.HELD_OUT, _SCORED)
        if evaluation.probe:
            length = evaluation.probe_budget.sequence_length
            yield TextNeed("recipe.evaluation.corpora.0", evaluation.corpora[0], Split.TRAIN, length)


def check_amount(need: TextNeed, found: CorpusFacts) -> None:
    """Raises RequestFault for a corpus that cannot be enough."""
    held_out = need.split is Split.HELD_OUT
    documents = found.held_out_documents if held_out else found.train_documents
    text_bytes = found.held_out_bytes if held_out else found.train_bytes
    # No tokenizer makes more tokens than bytes, and one between documents. That is several times too
    # generous for most text: the stage counts exactly, this only refuses what cannot be enough.
    if text_bytes + documents < need.tokens:
        side = "held-out documents" if held_out else "documents that are not held out"
        raise RequestFault(
            f"corpus {need.corpus} has {text_bytes:,} bytes of text in its {documents:,} {side}; "
            f"{need.tokens:,} tokens are asked of it.",
            field=need.field,
            way_out="Ask for fewer tokens, or register a corpus with more text"
            + (" or a larger held_out_fraction." if held_out else "."),
        )
