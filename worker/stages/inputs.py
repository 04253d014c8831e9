"""What each stage reads of the stages before it. Paths lie in finished folders and are never written to.

A stage's `digest(request, …)` takes the digests of the stages that these paths lie in: positional, in the order
of the fields, each stage once, None for a skipped one.

    fetch()                  calibrate(fetch)      prune(fetch, calibrate)      align(fetch, prune)
    quantize(align or prune)                       evaluate(fetch, prune, align | None, quantize)
    package(fetch, quantize, prune, align | None, evaluate | None)              publish(package)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class FetchInputs:
    """Nothing comes before fetch: the base model is named by the request."""


@dataclass(frozen=True)
class CalibrateInputs:
    """`base`: config.json, tokenizer files and safetensors of the base model."""

    base: Path


@dataclass(frozen=True)
class PruneInputs:
    """`calibration`: calibrate's folder."""

    base: Path
    calibration: Path


@dataclass(frozen=True)
class AlignInputs:
    """`pruned`: prune's `model` folder; `masks`: pruning_masks.safetensors; `kept`: the store's folder for what may be
    made anew at any time."""

    base: Path
    pruned: Path
    masks: Path
    kept: Path | None = None


@dataclass(frozen=True)
class QuantizeInputs:
    """`model`: the folder to quantize: align's, or prune's when alignment is skipped; `masks`: as prune wrote them;
    `alignment`: align's JSON file, None when alignment is skipped."""

    model: Path
    masks: Path
    alignment: Path | None = None


@dataclass(frozen=True)
class EvaluateInputs:
    """`quantized`: quantize's `model` folder; `masks`: pruning_masks.safetensors; `kept` as in AlignInputs."""

    base: Path
    pruned: Path
    aligned: Path | None
    quantized: Path
    masks: Path
    kept: Path | None = None


@dataclass(frozen=True)
class PackageInputs:
    """`alignment`, `evaluation`, `probe_losses` and `document_losses` are their stages' JSON files, None for what was
    not done; `stage_seconds` maps stage name to seconds.

    `base_json` is {"repo_id", "revision", "files": {name: {"size": bytes, "sha256": hex}}}.
    """

    base: Path
    base_json: Path
    quantized: Path
    masks: Path
    alignment: Path | None
    evaluation: Path | None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    probe_losses: Path | None = None
    document_losses: Path | None = None


@dataclass(frozen=True)
class PublishInputs:
    """`checkpoint`: package's output, the folder that is published."""

    checkpoint: Path
