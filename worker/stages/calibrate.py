"""calibrate: what matters how much, as far as that does not depend on the ratio; a sweep of ratios shares it.

For structured pruning `importance.safetensors`: scores of every layer's KV heads, neurons and experts, float32
(`model.layers.{i}.kv_heads`, …). Non-structured pruning by what weights read looks at a layer after those before it
were pruned, so here are only the tokens that it looks with, `calibration.safetensors`: `tokens` int32
`(samples, sequence_length)`. Nothing for non-structured magnitude.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from pkgutil import resolve_name

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import Calibration
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.pruning.scoring import Score, ScoringWork
from worker.request import BuildRequest
from worker.stages.base_folder import refuse_unknown_tokens
from worker.stages.inputs import CalibrateInputs
from worker.stages.spec import Digests, StageSpec
from worker.storage.store import stage_digest
from worker.streaming.weights import read_geometry
from worker.text.packing import pack_tokens
from worker.text.tokenizer import load_tokenizer

VERSION = 4
IMPORTANCE, TOKENS = "importance.safetensors", "calibration.safetensors"
#: documents that are shuffled among each other; more than this are never in memory
_SHUFFLED_DOCUMENTS = 1024


def digest(request: BuildRequest, digests: Digests) -> str:
    """Only what the criterion looks at: magnitude neither at the text nor at the seed."""
    pruning = request.recipe.pruning
    criterion = criterion_spec(pruning.criterion)
    dependencies: dict[str, object] = {
        "fetch": digests[Stage.FETCH],
        "criterion": pruning.criterion if pruning.method.removes_units else None,
    }
    if criterion.depends_on_seed:
        dependencies["seed"] = request.recipe.seed
    if criterion.reads_text:
        calibration = _calibration(request)
        dependencies["calibration"] = calibration.model_dump(mode="json", exclude={"corpus", "corpora"})
        dependencies["corpora"] = [
            [_corpus(request, calibration, name).content_digest(), samples]
            for name, samples in calibration.shares.items()
        ]
    return stage_digest(Stage.CALIBRATE, VERSION, dependencies)


def run(request: BuildRequest, inputs: CalibrateInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if the corpus is too short or the base model's weights or gradients are not finite."""
    pruning = request.recipe.pruning
    if pruning.method.removes_units:
        importance = _importance(request, inputs.base, output, context)
        save_file({key: scores.float().contiguous() for key, scores in importance.items()}, output / IMPORTANCE)
    elif criterion_spec(pruning.criterion).reads_text:
        save_file({"tokens": _sequences(request, inputs.base, context).int()}, output / TOKENS)


def _importance(request: BuildRequest, base: Path, output: Path, context: StageContext) -> dict[str, Tensor]:
    criterion = criterion_spec(request.recipe.pruning.criterion)
    score: Score = resolve_name(criterion.scoring.score)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=output) as scratch:
        return score(
            ScoringWork(
                criterion,
                base,
                read_geometry(base),
                request.recipe.seed,
                request.device,
                Path(scratch),
                text=lambda: _sequences(request, base, context),
                progress=context.progress,
            )
        )


def _sequences(request: BuildRequest, base: Path, context: StageContext) -> Tensor:
    """int64 `(samples, sequence_length)`, one corpus after the other: importance is a mean over all of them."""
    calibration, tokenizer = _calibration(request), load_tokenizer(base)
    parts = []
    for name, samples in calibration.shares.items():
        documents = _checked(_corpus(request, calibration, name).documents(Split.TRAIN), context)
        shuffled_documents = shuffled(documents, request.recipe.seed)
        parts.append(corpus_sequences(name, shuffled_documents, samples, calibration.sequence_length, tokenizer))
    tokens = torch.cat(parts)
    refuse_unknown_tokens(base, tokens)
    return tokens


def corpus_sequences(
    name: str, documents: Iterable[str], samples: int, length: int, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """`(samples, length)` int64, documents in their order; RequestFault if they hold less text."""
    sequences = pack_tokens(documents, tokenizer, length, samples)
    if len(sequences) < samples:
        raise RequestFault(
            f"corpus {name}: its training documents fill {len(sequences)} sequences of {length} tokens "
            f"({len(sequences) * length:,} tokens); {samples} sequences ({samples * length:,} tokens) are needed.",
            field="recipe.pruning.calibration.samples",
            way_out="Lower samples, sequence_length or the corpus's weight, or name a larger corpus.",
        )
    return sequences.long()


def shuffled(documents: Iterable[str], seed: int) -> Iterator[str]:
    """The same documents in an order that the seed decides, a window of them in memory at a time."""
    choice = random.Random(seed)
    remaining = iter(documents)
    window = list(itertools.islice(remaining, _SHUFFLED_DOCUMENTS))
    for document in remaining:
        position = choice.randrange(len(window))
        yield window[position]
        window[position] = document
    choice.shuffle(window)
    yield from window


def _checked(documents: Iterable[str], context: StageContext) -> Iterator[str]:
    for document in documents:
        context.check()
        yield document


def _calibration(request: BuildRequest) -> Calibration:
    calibration = request.recipe.pruning.calibration
    assert calibration is not None, "the recipe's own validation asks for it"
    return calibration


def _corpus(request: BuildRequest, calibration: Calibration, name: str) -> CorpusSource:
    corpus = request.corpora.get(name)
    if corpus is None:
        raise RequestFault(
            f"corpus {name} is not known.",
            field=f"recipe.pruning.{calibration.field_of(name)}",
            way_out=f"Known: {', '.join(sorted(request.corpora)) or 'none'}.",
        )
    return corpus


CALIBRATE = StageSpec(
    name=Stage.CALIBRATE,
    needs=(Stage.FETCH,),
    inputs=CalibrateInputs.of,
    digest=digest,
    run=run,
    reads_text=True,
)
