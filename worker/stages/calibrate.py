"""calibrate: the importance of every KV head and neuron. Does not depend on the ratio, so a sweep shares it.

Writes `importance.safetensors`: `model.layers.{i}.self_attn.kv_heads` and `model.layers.{i}.mlp.neurons`, float32.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from publisher.architecture import Geometry
from publisher.corpus import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import Calibration, Criterion
from worker.alignment.data import pack_tokens
from worker.pruning.groups import pruning_groups
from worker.pruning.importance import magnitude_importance, random_importance, taylor_importance
from worker.stages.context import Stage, StageContext
from worker.stages.inputs import CalibrateInputs
from worker.stages.request import BuildRequest
from worker.stages.store import stage_digest
from worker.stages.weights import read_geometry, tensors_of, weight_files

VERSION = 1
FILE_NAME = "importance.safetensors"
#: tokens of one forward and backward pass: little enough that a cancel on two CPU cores works within seconds
_BATCH_TOKENS = 1024
#: documents that are shuffled among each other; more than this are never in memory
_SHUFFLED_DOCUMENTS = 1024


def digest(request: BuildRequest, fetch: str) -> str:
    """Only what the criterion looks at: magnitude neither at the text nor at the seed."""
    criterion = request.recipe.pruning.criterion
    dependencies: dict[str, object] = {"fetch": fetch, "criterion": criterion}
    if criterion is not Criterion.MAGNITUDE:
        dependencies["seed"] = request.recipe.seed
    if criterion.needs_text:
        calibration = _calibration(request)
        dependencies["calibration"] = calibration.model_dump(mode="json", exclude={"corpus"})
        dependencies["corpus"] = _corpus(request, calibration).content_digest()
    return stage_digest(Stage.CALIBRATE, VERSION, dependencies)


def run(request: BuildRequest, inputs: CalibrateInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if the corpus is too short or the base model's gradients are not finite."""
    importance = _importance(request, inputs.base, context)
    _refuse_not_finite(importance)
    save_file({key: scores.float().contiguous() for key, scores in importance.items()}, output / FILE_NAME)


def _importance(request: BuildRequest, base: Path, context: StageContext) -> dict[str, Tensor]:
    geometry = read_geometry(base)
    groups = pruning_groups(geometry)
    match request.recipe.pruning.criterion:
        case Criterion.RANDOM:
            return random_importance(groups, geometry.layers, request.recipe.seed)
        case Criterion.MAGNITUDE:
            return magnitude_importance(groups, geometry.layers, _reported_tensors(base, geometry, context))
        case Criterion.TAYLOR:
            calibration = _calibration(request)
            documents = _corpus(request, calibration).documents(Split.TRAIN)
            sequences = calibration_sequences(
                shuffled(_checked(documents, context), request.recipe.seed), calibration, load_tokenizer(base)
            )
            model = _load(base, request.device)
            return taylor_importance(
                model,
                groups,
                sequences,
                batch_size=max(1, _BATCH_TOKENS // calibration.sequence_length),
                report=lambda done, total: context.progress(done, total, "samples"),
            )


def calibration_sequences(
    documents: Iterable[str], calibration: Calibration, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """`(samples, sequence_length)` int64, documents in their order; RequestFault if they hold less text."""
    wanted, length = calibration.samples, calibration.sequence_length
    sequences = pack_tokens(documents, tokenizer, length, wanted)
    if len(sequences) < wanted:
        raise RequestFault(
            f"corpus {calibration.corpus}: its training documents fill {len(sequences)} sequences of {length} tokens "
            f"({len(sequences) * length:,} tokens); {wanted} sequences ({wanted * length:,} tokens) are needed.",
            field="recipe.pruning.calibration.samples",
            way_out="Lower samples or sequence_length, or name a larger corpus.",
        )
    return sequences.long()


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """RequestFault if the base model comes without a tokenizer."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        raise RequestFault(
            f"the base model's tokenizer cannot be loaded: {error}",
            way_out="Put the tokenizer's files beside the weights, or use a criterion that reads no text.",
        ) from error
    return tokenizer


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


def _load(base: Path, device: str) -> PreTrainedModel:
    """fp32 where memory is cheap, bf16 on an accelerator."""
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, local_files_only=True)
    return model.to(device).eval()


def _reported_tensors(base: Path, geometry: Geometry, context: StageContext) -> Iterator[tuple[str, Tensor]]:
    total = len(geometry.tensor_shapes())
    tensors = itertools.chain.from_iterable(map(tensors_of, weight_files(base)))
    for done, (name, tensor) in enumerate(tensors, 1):
        yield name, tensor
        context.progress(min(done, total), total, "tensors")


def _calibration(request: BuildRequest) -> Calibration:
    calibration = request.recipe.pruning.calibration
    assert calibration is not None, "the recipe's own validation asks for it"
    return calibration


def _corpus(request: BuildRequest, calibration: Calibration) -> CorpusSource:
    corpus = request.corpora.get(calibration.corpus)
    if corpus is None:
        raise RequestFault(
            f"corpus {calibration.corpus} is not known.",
            field="recipe.pruning.calibration.corpus",
            way_out=f"Known: {', '.join(sorted(request.corpora)) or 'none'}.",
        )
    return corpus


def _refuse_not_finite(importance: Mapping[str, Tensor]) -> None:
    for key, scores in importance.items():
        if not scores.isfinite().all():
            raise RequestFault(
                f"the importance of {key} is not finite: the base model's weights or gradients overflow.",
                way_out="Check that the base model gives finite losses; criterion random needs neither.",
            )
