"""quantize: the model in the form that is published. Writes `model/`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from publisher.checkpoint.compression import compress_folder
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.manifest.reports import AlignmentReport
from publisher.recipe import Scheme, Storage
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.request import BuildRequest
from worker.stages.inputs import QuantizeInputs
from worker.stages.spec import Digests, StageSpec
from worker.storage.store import stage_digest

VERSION = 4


def digest(request: BuildRequest, digests: Digests) -> str:
    model = digests.get(Stage.ALIGN, digests[Stage.PRUNE])
    recipe = request.recipe
    stored = recipe.quantization.model_dump(mode="json") | {"storage": recipe.pruning.storage.value}
    return stage_digest(Stage.QUANTIZE, VERSION, {"model": model} | stored)


def run(request: BuildRequest, inputs: QuantizeInputs, output: Path, context: StageContext) -> None:
    """NF4 in 4-bit files; with scheme `none` the model's own files, or of its weights only those that were kept."""
    context.progress(0, 1, "tensors")
    match request.recipe.quantization.scheme:
        case Scheme.NF4:
            from worker.quantization.nf4 import quantize_nf4

            aligned = AlignmentReport.read(inputs.alignment) if inputs.alignment else None
            quantize_nf4(
                inputs.model,
                output / "model",
                request.device,
                context,
                include_embeddings=request.recipe.quantization.include_embeddings,
                bf16=aligned.bf16_modules if aligned else [],
            )
        case Scheme.NONE if request.recipe.pruning.storage is Storage.COMPRESSED:
            (output / "model").mkdir()
            compress_folder(inputs.model, WeightMasks(inputs.masks), output / "model")
        case Scheme.NONE:
            _link(inputs.model, output / "model")
    context.progress(1, 1, "tensors")


def _link(source: Path, target: Path) -> None:
    """Hard links: a finished stage is never written to, so two names for one file are safe."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        try:
            os.link(path, target / path.name)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(path, target / path.name)


QUANTIZE = StageSpec(
    name=Stage.QUANTIZE,
    needs=(Stage.PRUNE, Stage.ALIGN),
    inputs=QuantizeInputs.of,
    digest=digest,
    run=run,
)
