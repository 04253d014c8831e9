"""quantize: the model in the form that is published. Writes `model/`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from publisher.recipe import Scheme
from worker.stages.context import Stage, StageContext
from worker.stages.inputs import QuantizeInputs
from worker.stages.request import BuildRequest
from worker.stages.store import stage_digest

VERSION = 1


def digest(request: BuildRequest, model: str) -> str:
    scheme = request.recipe.quantization.scheme
    return stage_digest(Stage.QUANTIZE, VERSION, {"model": model, "scheme": scheme.value})


def run(request: BuildRequest, inputs: QuantizeInputs, output: Path, context: StageContext) -> None:
    """NF4 in 4-bit files, or with scheme `none` the model's own files."""
    context.progress(0, 1, "models")
    match request.recipe.quantization.scheme:
        case Scheme.NF4:
            from worker.quantization.nf4 import quantize_nf4

            quantize_nf4(inputs.model, output / "model", request.device)
        case Scheme.NONE:
            _link(inputs.model, output / "model")
    context.progress(1, 1, "models")


def _link(source: Path, target: Path) -> None:
    """Hard links: a finished stage is never written to, so two names for one file are safe."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        try:
            os.link(path, target / path.name)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(path, target / path.name)
