"""The demo's recipe by `publisher build`, on a device: what it took, what it kept, and what came of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors.torch import load_file

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.checkpoint.masks import load_masks
from publisher.client.demo import data
from publisher.client.demo.recipe import RECIPE
from publisher.errors import RequestFault
from publisher.manifest.evaluation import Certificate, EvaluationReport
from publisher.manifest.manifest import AlignmentRecord, record
from publisher.manifest.reports import AlignmentReport
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.models import tiny_llama
from worker.stages.calibrate import IMPORTANCE
from worker.stages.evaluate import REPORT
from worker.storage.folder import RECORD

#: what the recipe's text is called, in the order of its use
CORPORA = ("classics", "python-docs", "novel")
#: all that is measured; packaging draws plots, for which a bare machine has no package
MADE = (Stage.FETCH, Stage.CALIBRATE, Stage.PRUNE, Stage.ALIGN, Stage.QUANTIZE, Stage.EVALUATE)
Record = Callable[[Mapping[str, Any]], None]
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Demo:
    """The base model's folder, text by name, and what is made of them."""

    base: Path
    corpora: Mapping[str, Path]
    recipe: Recipe


class Made(BaseModel):
    """What a build came to, to be compared with another's.

    `inputs`: file → sha256. `seconds` by stage; `peaks`: bytes while aligning and training, as the build reports them;
    `speeds`: tokens per second. `kept` indices and `scores` by layer and unit, the latter to six digits.
    `figures`: losses, perplexities and gains; None: there is none.
    """

    inputs: dict[str, str]
    seconds: dict[str, float]
    peaks: dict[str, int]
    speeds: dict[str, float]
    kept: dict[str, list[int]]
    scores: dict[str, list[float]]
    figures: dict[str, float | None]
    verdict: str


def real_demo(work: Path, model: Path | None, corpora: Path | None) -> Demo:
    """SmolLM2-135M-Instruct of a GGUF or a folder, `model`, or as it is installed; text in `corpora`, or installed.

    Raises RequestFault for a folder without all of the text.
    """
    base = model if model is not None and model.is_dir() else data.prepare_model(work / "models", model)
    if corpora is None:
        return Demo(base, data.prepare_corpora(work / "corpora"), RECIPE)
    found = {name: corpora / f"{name}.jsonl" for name in CORPORA}
    missing = [path.name for path in found.values() if not path.is_file()]
    if missing:
        way_out = "Take the folder data/demo/corpora of a machine where `publisher demo --prepare` was run."
        raise RequestFault(f"{corpora} lacks {', '.join(missing)}.", way_out=way_out)
    return Demo(base, found, RECIPE)


def tiny_demo(work: Path) -> Demo:
    """The same stages on a random model and a little text: seconds on a CPU."""
    base, texts = work / "tiny-base", work / "tiny-text"
    if not base.exists():
        tiny_llama(base, num_hidden_layers=7)
    corpora = {name: texts / f"{name}.jsonl" for name in CORPORA}
    for name, path in corpora.items():
        data.write_documents(path, [f"{name} {number}: the whale swims, the sea is wide. " * 2 for number in range(80)])
    return Demo(base, corpora, Recipe.model_validate(_shortened(RECIPE.model_dump(mode="json"))))


def _shortened(recipe: dict[str, Any]) -> dict[str, Any]:
    recipe["pruning"]["calibration"] |= {"samples": 4, "sequence_length": 32}
    recipe["alignment"] |= {"tokens": 512, "sequence_length": 32, "batch_tokens": 128}
    budget = recipe["evaluation"]["probe_budget"] | {"steps": 3, "batch_size": 2, "sequence_length": 64}
    recipe["evaluation"] |= {"tokens": 1024, "sequence_length": 64, "probe_budget": budget}
    return recipe


def build(demo: Demo, work: Path, device: str, record_row: Record) -> Made:
    """By the command line, in a process of its own; `record_row` hears of each stage as it is done.

    A build that was stopped goes on from its last finished stage. Raises CalledProcessError if it fails; its own words
    are on standard error.
    """
    out, stages = work / "out", work / "stages"
    shutil.rmtree(out, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    (work / "recipe.json").write_text(demo.recipe.model_dump_json())
    command = [sys.executable, "-m", "publisher.client.main", "build", str(demo.base), str(out)]
    command += ["--recipe", str(work / "recipe.json"), "--device", device, "--work", str(stages), "--until", MADE[-1]]
    command += [part for name, path in demo.corpora.items() for part in ("--corpus", f"{name}={path}")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_environment())
    told: set[str] = set()
    try:
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            _tell_finished(stages, told, record_row)
    finally:
        process.kill()
    _tell_finished(stages, told, record_row)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return _made(demo, stages)


def _environment() -> dict[str, str]:
    """Offline; and what will change in libraries is not said among the results."""
    quiet = {"PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore::FutureWarning")}
    return os.environ | {"HF_HUB_OFFLINE": "1"} | quiet


def _tell_finished(stages: Path, told: set[str], record_row: Record) -> None:
    for path in sorted(stages.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime):
        if path.parent.name not in told:
            told.add(path.parent.name)
            found = json.loads(path.read_text())
            record_row({"stage": found["stage"], "seconds": found["seconds"]})


def _made(demo: Demo, stages: Path) -> Made:
    evaluation = EvaluationReport.model_validate_json((_stage(stages, Stage.EVALUATE) / REPORT).read_bytes())
    alignment = AlignmentReport.read(_stage(stages, Stage.ALIGN) / "alignment.json").summary()
    certificate, masks = evaluation.certificate, load_masks(_stage(stages, Stage.PRUNE) / MASKS)
    assert certificate is not None, "the recipe asks for one"
    return Made(
        inputs=digests(demo),
        seconds={stage: _seconds(_stage(stages, stage)) for stage in MADE},
        peaks=dict(_peaks(alignment, certificate)),
        speeds=dict(_speeds(alignment, certificate)),
        kept={f"{masks.prefix}{layer}.{unit}": list(kept) for (layer, unit), kept in masks.kept.items()},
        scores=_scores(_stage(stages, Stage.CALIBRATE)),
        figures=dict(_figures(evaluation, alignment, certificate)),
        verdict=certificate.verdict.value,
    )


def _stage(stages: Path, stage: Stage) -> Path:
    """The one that was made or used last: the folder may hold those of an older recipe."""
    return max(stages.glob(f"{stage}-*"), key=lambda folder: (folder / RECORD).stat().st_mtime)


def _seconds(stage: Path) -> float:
    return float(json.loads((stage / RECORD).read_text())["seconds"])


def digests(demo: Demo) -> dict[str, str]:
    """File → sha256 of all that a build reads."""
    files = [*sorted(demo.base.glob("*.safetensors")), *demo.corpora.values()]
    return {path.name: record(path).sha256 for path in files}


def _scores(calibrated: Path) -> dict[str, list[float]]:
    found = load_file(calibrated / IMPORTANCE)
    return {name: [float(f"{score:.6g}") for score in scores.tolist()] for name, scores in found.items()}


def _peaks(alignment: AlignmentRecord, certificate: Certificate) -> Iterator[tuple[str, int]]:
    yield "align", alignment.peak_memory_bytes
    if alignment.reconstruction is not None:
        yield "reconstruction", alignment.reconstruction.peak_memory_bytes
    yield "probe", certificate.training.peak_memory_bytes
    if certificate.direct_training is not None:
        yield "direct", certificate.direct_training.peak_memory_bytes


def _speeds(alignment: AlignmentRecord, certificate: Certificate) -> Iterator[tuple[str, float]]:
    yield "align", alignment.tokens / alignment.seconds
    yield "probe", certificate.training.tokens / certificate.training.seconds
    if certificate.direct_training is not None:
        yield "direct", certificate.direct_training.tokens / certificate.direct_training.seconds


def _figures(
    evaluation: EvaluationReport, alignment: AlignmentRecord, certificate: Certificate
) -> Iterator[tuple[str, float | None]]:
    for form, value in evaluation.perplexity[certificate.corpus].model_dump().items():
        yield f"perplexity, {form}", value
    yield "perplexity, recovered", certificate.recovered
    yield "perplexity, direct", certificate.direct
    yield "alignment's first loss", alignment.first_loss
    yield "alignment's last loss", alignment.last_loss
    if alignment.reconstruction is not None:
        yield "reconstruction's error", alignment.reconstruction.error_after
    yield "gain retained", certificate.gain_retained
    found = certificate.differences[certificate.corpus]
    yield "gain, nats", found.mean
    yield "gain's standard error", found.standard_error
