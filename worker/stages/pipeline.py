"""The stages in order: what each gets of those before it, and which are there already."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from publisher.errors import RequestFault
from publisher.manifest.verdict import MORE_DOCUMENTS
from publisher.plan.plan import certificate_notes
from publisher.recipe.stages import Stage, planned_stages
from worker.context import StageContext
from worker.evaluation.held_out_text import count_documents
from worker.request import BuildRequest
from worker.stages.register import spec_of
from worker.stages.spec import FinishedStages
from worker.storage.store import StageStore


class StageState(StrEnum):
    STARTED = "started"
    FINISHED = "finished"
    REUSED = "reused"


#: (stage, state, seconds that making it took, None when it starts)
OnStage = Callable[[Stage, StageState, float | None], None]


def _silent(stage: Stage, state: StageState, seconds: float | None) -> None:
    return None


def _nothing() -> None:
    return None


def stages_of(request: BuildRequest, until: Stage | None = None) -> list[Stage]:
    """The stages that the request asks for, in order, up to and including `until`."""
    return planned_stages(request.recipe, publishes=request.publish is not None, until=until)


def run_pipeline(
    request: BuildRequest,
    store: StageStore,
    context_for: Callable[[Stage], StageContext],
    until: Stage | None = None,
    on_stage: OnStage = _silent,
    *,
    before_work: Callable[[], None] = _nothing,
) -> dict[Stage, Path]:
    """Run what is not finished yet; returns each stage's folder. Raises whatever a stage raises, after which
    the same call goes on from the last finished stage.

    `before_work` is called before the first stage that has to be made, unless only publishing is left, and may raise.
    """
    planned = stages_of(request, until)
    build = _Build(request, store, certifies=Stage.EVALUATE in planned, before_work=before_work)
    _refuse_unknown_tasks(request, until)
    for stage in planned:
        context = context_for(stage)
        context.check()
        build.run(stage, context, on_stage)
    return build.done.folders


def _refuse_unknown_tasks(request: BuildRequest, until: Stage | None) -> None:
    """Evaluation comes after hours of work: that it cannot do what is asked is said before."""
    evaluation = request.recipe.evaluation
    if evaluation and evaluation.tasks and Stage.EVALUATE in stages_of(request, until):
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

    def __init__(
        self, request: BuildRequest, store: StageStore, *, certifies: bool, before_work: Callable[[], None]
    ) -> None:
        self.before_work = before_work
        self.request = request
        self.certifies = certifies
        self.store = store
        self.done = FinishedStages(store.kept)

    def run(self, stage: Stage, context: StageContext, on_stage: OnStage) -> None:
        spec = spec_of(stage)
        inputs = spec.inputs(self.done)
        known = {needed: self.done.digests[needed] for needed in spec.needs if needed in self.done.digests}
        digest = spec.digest(self.request, known)

        def make(output: Path) -> None:
            if spec.reads_text:
                for corpus in self.request.corpora.values():
                    corpus.prepare(context.check)
                self._foresee_certificate(context)
            spec.run(self.request, inputs, output, context)

        if spec.remade:
            self.store.forget(stage, digest)
        if self.store.find(stage, digest) is None:
            on_stage(stage, StageState.STARTED, None)
            if stage is not Stage.PUBLISH:
                self._begin_work()
        folder, reused = self.store.produce(stage, digest, make, inputs=known, check=context.check)
        self._remember(stage, digest, folder)
        on_stage(stage, StageState.REUSED if reused else StageState.FINISHED, self.done.seconds[stage])

    def _begin_work(self) -> None:
        """Once."""
        before_work, self.before_work = self.before_work, _nothing
        before_work()

    def _foresee_certificate(self, context: StageContext) -> None:
        """Said as soon as text is there, rather than after hours; once."""
        if self.certifies:
            foresee_certificate(self.request, context)
        self.certifies = False

    def _remember(self, stage: Stage, digest: str, folder: Path) -> None:
        record = self.store.record(stage, digest)
        assert record is not None, f"{folder} was just finished"
        self.done.folders[stage] = folder
        self.done.seconds[stage] = record.seconds
        # What was fetched counts, not where from: a folder whose weights change under the same headers gives
        # other variants, the same files from elsewhere give the same ones.
        self.done.digests[stage] = record.files["base.json"].sha256 if stage is Stage.FETCH else digest
