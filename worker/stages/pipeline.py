"""The stages in order: what each gets of those before it, and which are there already."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from publisher.checkpoint.masks import FILE_NAME as MASKS
from publisher.errors import RequestFault
from publisher.plan import certificate_notes
from publisher.verdict import MORE_DOCUMENTS
from worker.evaluation.held_out_text import count_documents
from worker.stages.context import Stage, StageContext
from worker.stages.inputs import (
    AlignInputs,
    CalibrateInputs,
    EvaluateInputs,
    FetchInputs,
    PackageInputs,
    PruneInputs,
    PublishInputs,
    QuantizeInputs,
)
from worker.stages.request import BuildRequest
from worker.stages.store import StageStore

#: the stages whose digests a stage's `digest` takes, in that order (see worker.stages.inputs)
_DEPENDENCIES: dict[Stage, tuple[Stage, ...]] = {
    Stage.FETCH: (),
    Stage.CALIBRATE: (Stage.FETCH,),
    Stage.PRUNE: (Stage.FETCH, Stage.CALIBRATE),
    Stage.ALIGN: (Stage.FETCH, Stage.PRUNE),
    Stage.EVALUATE: (Stage.FETCH, Stage.PRUNE, Stage.ALIGN, Stage.QUANTIZE),
    Stage.PACKAGE: (Stage.FETCH, Stage.QUANTIZE, Stage.PRUNE, Stage.ALIGN, Stage.EVALUATE),
    Stage.PUBLISH: (Stage.PACKAGE,),
}

#: the stages before which datasets are read, where they can be cancelled
_READ_TEXT = (Stage.CALIBRATE, Stage.ALIGN, Stage.EVALUATE)


class StageState(StrEnum):
    STARTED = "started"
    FINISHED = "finished"
    REUSED = "reused"


#: (stage, state, seconds that making it took, None when it starts)
OnStage = Callable[[Stage, StageState, float | None], None]


class StageModule(Protocol):
    """What worker.stages.<stage> offers."""

    def digest(self, request: BuildRequest, *inputs: str | None) -> str: ...

    def run(self, request: BuildRequest, inputs: Any, output: Path, context: StageContext) -> None: ...


def _silent(stage: Stage, state: StageState, seconds: float | None) -> None:
    return None


def planned_stages(request: BuildRequest, until: Stage | None = None) -> list[Stage]:
    """The stages that the request asks for, in order, up to and including `until`."""
    recipe = request.recipe
    skipped = {
        Stage.ALIGN: recipe.alignment is None,
        Stage.EVALUATE: recipe.evaluation is None,
        Stage.PUBLISH: request.publish is None,
    }
    stages = list(Stage)
    if until is not None:
        stages = stages[: stages.index(until) + 1]
    return [stage for stage in stages if not skipped.get(stage, False)]


def run_pipeline(
    request: BuildRequest,
    store: StageStore,
    context_for: Callable[[Stage], StageContext],
    until: Stage | None = None,
    on_stage: OnStage = _silent,
) -> dict[Stage, Path]:
    """Run what is not finished yet; returns each stage's folder. Raises whatever a stage raises, after which
    the same call goes on from the last finished stage."""
    planned = planned_stages(request, until)
    build = _Build(request, store, certifies=Stage.EVALUATE in planned)
    _refuse_unknown_tasks(request, until)
    for stage in planned:
        context = context_for(stage)
        context.check()
        build.run(stage, context, on_stage)
    return build.folders


def _refuse_unknown_tasks(request: BuildRequest, until: Stage | None) -> None:
    """Evaluation comes after hours of work: that it cannot do what is asked is said before."""
    evaluation = request.recipe.evaluation
    if evaluation and evaluation.tasks and Stage.EVALUATE in planned_stages(request, until):
        from worker.evaluation.tasks import HarnessTasks

        HarnessTasks(evaluation.tasks, folder=request.tasks_folder).refuse_unknown()


def foresee_certificate(request: BuildRequest, context: StageContext) -> None:
    """Log that too few documents are held out to certify; RequestFault where the recipe then publishes nothing."""
    recipe = request.evaluation
    if not recipe.probe:
        return
    corpus = request.corpora[recipe.corpora[0]]
    for note in certificate_notes(request.recipe, corpus.name, count_documents(corpus)):
        if request.publish and recipe.require_certificate is True:
            field = "recipe.evaluation.require_certificate"
            raise RequestFault(f"{note}.", field=field, way_out=MORE_DOCUMENTS)
        context.log(f"Warning: {note}.")


class _Build:
    """What is known of the stages so far."""

    def __init__(self, request: BuildRequest, store: StageStore, *, certifies: bool) -> None:
        self.request = request
        self.certifies = certifies
        self.store = store
        self.folders: dict[Stage, Path] = {}
        self.digests: dict[Stage, str] = {}
        self.seconds: dict[Stage, float] = {}

    def run(self, stage: Stage, context: StageContext, on_stage: OnStage) -> None:
        module = _module(stage)
        inputs = self._inputs(stage)
        dependencies = self._dependencies(stage)
        digest = module.digest(self.request, *(self.digests.get(needed) for needed in dependencies))
        known = {needed.value: self.digests[needed] for needed in dependencies if needed in self.digests}

        def make(output: Path) -> None:
            if stage in _READ_TEXT:
                for corpus in self.request.corpora.values():
                    corpus.prepare(context.check)
                self._foresee_certificate(context)
            module.run(self.request, inputs, output, context)

        if stage is Stage.PUBLISH:
            # what a Hub holds can change: publishing again commits nothing if it still holds this checkpoint
            self.store.forget(stage, digest)
        if self.store.find(stage, digest) is None:
            on_stage(stage, StageState.STARTED, None)
        folder, reused = self.store.produce(stage, digest, make, inputs=known, check=context.check)
        self._remember(stage, digest, folder)
        on_stage(stage, StageState.REUSED if reused else StageState.FINISHED, self.seconds[stage])

    def _foresee_certificate(self, context: StageContext) -> None:
        """Said as soon as text is there, rather than after hours; once."""
        if self.certifies:
            foresee_certificate(self.request, context)
        self.certifies = False

    def _remember(self, stage: Stage, digest: str, folder: Path) -> None:
        record = self.store.record(stage, digest)
        assert record is not None, f"{folder} was just finished"
        self.folders[stage] = folder
        self.seconds[stage] = record.seconds
        # What was fetched counts, not where from: a folder whose weights change under the same headers gives
        # other variants, the same files from elsewhere give the same ones.
        self.digests[stage] = record.files["base.json"].sha256 if stage is Stage.FETCH else digest

    def _dependencies(self, stage: Stage) -> tuple[Stage, ...]:
        return (self._last_model(),) if stage is Stage.QUANTIZE else _DEPENDENCIES[stage]

    def _last_model(self) -> Stage:
        return Stage.ALIGN if Stage.ALIGN in self.folders else Stage.PRUNE

    def _inputs(self, stage: Stage) -> object:
        makers: dict[Stage, Callable[[], object]] = {
            Stage.FETCH: FetchInputs,
            Stage.CALIBRATE: lambda: CalibrateInputs(base=self._base()),
            Stage.PRUNE: self._prune_inputs,
            Stage.ALIGN: self._align_inputs,
            Stage.QUANTIZE: self._quantize_inputs,
            Stage.EVALUATE: self._evaluate_inputs,
            Stage.PACKAGE: self._package_inputs,
            Stage.PUBLISH: lambda: PublishInputs(checkpoint=self.folders[Stage.PACKAGE]),
        }
        return makers[stage]()

    def _prune_inputs(self) -> PruneInputs:
        return PruneInputs(base=self._base(), calibration=self.folders[Stage.CALIBRATE])

    def _align_inputs(self) -> AlignInputs:
        return AlignInputs(
            base=self._base(), pruned=self._model(Stage.PRUNE), masks=self._masks(), kept=self.store.kept
        )

    def _quantize_inputs(self) -> QuantizeInputs:
        return QuantizeInputs(
            model=self._model(self._last_model()),
            masks=self._masks(),
            alignment=self._report(Stage.ALIGN, "alignment.json"),
        )

    def _evaluate_inputs(self) -> EvaluateInputs:
        return EvaluateInputs(
            base=self._base(),
            pruned=self._model(Stage.PRUNE),
            aligned=self._model(Stage.ALIGN) if Stage.ALIGN in self.folders else None,
            quantized=self._model(Stage.QUANTIZE),
            masks=self._masks(),
            kept=self.store.kept,
        )

    def _package_inputs(self) -> PackageInputs:
        return PackageInputs(
            base=self._base(),
            base_json=self.folders[Stage.FETCH] / "base.json",
            quantized=self._model(Stage.QUANTIZE),
            masks=self._masks(),
            alignment=self._report(Stage.ALIGN, "alignment.json"),
            evaluation=self._report(Stage.EVALUATE, "evaluation.json"),
            probe_losses=self._report(Stage.EVALUATE, "probe_losses.json"),
            document_losses=self._report(Stage.EVALUATE, "document_losses.json"),
            stage_seconds={stage.value: seconds for stage, seconds in self.seconds.items()},
        )

    def _base(self) -> Path:
        return self.folders[Stage.FETCH] / "base"

    def _model(self, stage: Stage) -> Path:
        return self.folders[stage] / "model"

    def _masks(self) -> Path:
        return self.folders[Stage.PRUNE] / MASKS

    def _report(self, stage: Stage, name: str) -> Path | None:
        path = self.folders[stage] / name if stage in self.folders else None
        return path if path and path.is_file() else None


def _module(stage: Stage) -> StageModule:
    """Imported when it is its turn: a build that ends with prune needs neither bitsandbytes nor matplotlib."""
    return cast(StageModule, import_module(f"worker.stages.{stage}"))
