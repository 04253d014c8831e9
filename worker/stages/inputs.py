"""What each stage reads of the stages before it. Paths lie in finished folders and are never written to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from publisher.recipe.stages import Stage
from worker.stages.spec import FinishedStages


@dataclass(frozen=True)
class FetchInputs:
    """Nothing comes before fetch: the base model is named by the request."""

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls()


@dataclass(frozen=True)
class CalibrateInputs:
    """`base`: config.json, tokenizer files and safetensors of the base model."""

    base: Path

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls(base=done.base)


@dataclass(frozen=True)
class PruneInputs:
    """`calibration`: calibrate's folder."""

    base: Path
    calibration: Path

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls(base=done.base, calibration=done.folders[Stage.CALIBRATE])


@dataclass(frozen=True)
class AlignInputs:
    """`pruned`: prune's `model` folder; `masks`: pruning_masks.safetensors; `kept`: the store's folder for what may be
    made anew at any time."""

    base: Path
    pruned: Path
    masks: Path
    kept: Path | None = None

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls(base=done.base, pruned=done.model(Stage.PRUNE), masks=done.masks, kept=done.kept)


@dataclass(frozen=True)
class QuantizeInputs:
    """`model`: the folder to quantize: align's, or prune's when alignment is skipped; `masks`: as prune wrote them;
    `alignment`: align's JSON file, None when alignment is skipped."""

    model: Path
    masks: Path
    alignment: Path | None = None

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls(model=done.last_model, masks=done.masks, alignment=done.report(Stage.ALIGN, "alignment.json"))


@dataclass(frozen=True)
class EvaluateInputs:
    """`quantized`: quantize's `model` folder; `masks`: pruning_masks.safetensors; `kept` as in AlignInputs."""

    base: Path
    pruned: Path
    aligned: Path | None
    quantized: Path
    masks: Path
    kept: Path | None = None

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls(
            base=done.base,
            pruned=done.model(Stage.PRUNE),
            aligned=done.model(Stage.ALIGN) if Stage.ALIGN in done.folders else None,
            quantized=done.model(Stage.QUANTIZE),
            masks=done.masks,
            kept=done.kept,
        )


@dataclass(frozen=True)
class PackageInputs:
    """`alignment`, `evaluation`, `probe_losses` and `document_losses` are their stages' JSON files, None for what was
    not done; `stage_seconds` maps stage name to seconds.

    `base_json`: fetch's. All of them are types of publisher.manifest.reports.
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

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls(
            base=done.base,
            base_json=done.folders[Stage.FETCH] / "base.json",
            quantized=done.model(Stage.QUANTIZE),
            masks=done.masks,
            alignment=done.report(Stage.ALIGN, "alignment.json"),
            evaluation=done.report(Stage.EVALUATE, "evaluation.json"),
            probe_losses=done.report(Stage.EVALUATE, "probe_losses.json"),
            document_losses=done.report(Stage.EVALUATE, "document_losses.json"),
            stage_seconds={stage.value: seconds for stage, seconds in done.seconds.items()},
        )


@dataclass(frozen=True)
class PublishInputs:
    """`checkpoint`: package's output, the folder that is published."""

    checkpoint: Path

    @classmethod
    def of(cls, done: FinishedStages) -> Self:
        return cls(checkpoint=done.folders[Stage.PACKAGE])
