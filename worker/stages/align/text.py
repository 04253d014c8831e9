"""The text of the align stage: what is trained on, and what the recipe's way to stop needs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from publisher.recipe import Alignment, Stop
from worker.context import StageContext
from worker.probe.text import ProbeText, candidates_text
from worker.request import BuildRequest
from worker.stages.base_folder import refuse_unknown_tokens
from worker.stages.inputs import AlignInputs
from worker.text.packing import WeightedSource, training_sequences
from worker.text.tokenizer import load_tokenizer
from worker.training.held_out import held_out_sequences

#: folder of tokenized text, below what stages keep for each other
_TOKENS = "tokens"


@dataclass(frozen=True)
class Text:
    """int32 (n, sequence_length): what is trained on, and what the recipe's way to stop needs."""

    training: Tensor
    held_out: Tensor | None
    probe: ProbeText | None

    def tensors(self) -> dict[str, Tensor]:
        """What training needs."""
        return {"training": self.training} | ({} if self.held_out is None else {"held_out": self.held_out})


def read_text(request: BuildRequest, inputs: AlignInputs, context: StageContext) -> Text:
    """Nothing is trained before all of it is there.

    Fewer than the recipe's tokens only where it stops with the first corpus that is exhausted.
    """
    alignment = request.alignment
    tokenizer = load_tokenizer(inputs.base)
    corpora = [WeightedSource(request.corpora[corpus.name], corpus.weight) for corpus in alignment.corpora]
    held_out = probe = None
    if alignment.stop is Stop.HELD_OUT:
        held_out = held_out_sequences(corpora, tokenizer, alignment.sequence_length)
    if alignment.stop is Stop.PROBE:
        evaluation = request.evaluation
        probe = candidates_text(request.corpora[evaluation.corpora[0]], tokenizer, evaluation.probe_budget)
    training = training_sequences(
        corpora,
        tokenizer,
        alignment.sequence_length,
        alignment.text_tokens // alignment.sequence_length,
        seed=request.recipe.seed,
        check=context.check,
        exhausted=alignment.exhausted,
        batch_sequences=batch_sequences(alignment),
        cache=inputs.kept / _TOKENS if inputs.kept else None,
        log=context.log,
    )
    read = [training, held_out, *([probe.training, probe.measured] if probe else [])]
    refuse_unknown_tokens(inputs.base, *(tokens for tokens in read if tokens is not None))
    return Text(training, held_out, probe)


def batch_sequences(alignment: Alignment) -> int:
    return alignment.batch_tokens // alignment.sequence_length
