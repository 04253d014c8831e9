"""align: what brings the pruned model back to what the base model does.

Layers are reconstructed by least squares first (worker.alignment.reconstruction), then comes continual pre-training:
all weights but the LM head train, as in the paper (arXiv 2502.13533, section 3.1), or LoRA beside them. Writes `model/`
in bf16 and `alignment.json`; keeps its training state in `state/` until the stage is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from publisher.manifest.manifest import CheckRecord
from publisher.manifest.reports import AlignmentReport, ReconstructionReport
from publisher.plan.several import refuse_for_several
from publisher.recipe import STRENGTHS, Stop
from publisher.recipe.stages import Stage
from worker.alignment.checkpoint_selection import best_check
from worker.alignment.optimizers import require_packages
from worker.alignment.state import Check
from worker.context import StageContext
from worker.request import BuildRequest
from worker.stages.align.bf16 import choose_bf16
from worker.stages.align.setup import AlignSetup
from worker.stages.align.work import AlignWork, Trained
from worker.stages.inputs import AlignInputs
from worker.stages.spec import Digests, StageSpec
from worker.storage.folder import write_json
from worker.storage.store import stage_digest

VERSION = 12
REPORT = "alignment.json"


def digest(request: BuildRequest, digests: Digests) -> str:
    """With `stop` probe what the probe is made of, and trained on, decides as well which weights come out."""
    alignment = request.alignment
    names = [corpus.name for corpus in alignment.corpora]
    dependencies = {
        "fetch": digests[Stage.FETCH],
        "prune": digests[Stage.PRUNE],
        "alignment": alignment.model_dump(mode="json"),
        "corpora": {name: request.corpora[name].content_digest() for name in names},
        "seed": request.recipe.seed,
    }
    recipe = request.recipe
    if recipe.is_quantization_aware or recipe.quantization.bf16_share or alignment.stop is Stop.PROBE:
        dependencies["quantization"] = request.recipe.quantization.model_dump(mode="json")
    if alignment.stop is Stop.PROBE:
        evaluation = request.evaluation
        dependencies["strengths"] = STRENGTHS
        dependencies["probe_budget"] = evaluation.probe_budget.model_dump(mode="json")
        dependencies["probe_corpus"] = request.corpora[evaluation.corpora[0]].content_digest()
    return stage_digest(Stage.ALIGN, VERSION, dependencies)


def run(
    request: BuildRequest, inputs: AlignInputs, output: Path, context: StageContext, *, save_seconds: float = 30.0
) -> None:
    """Raises RequestFault if a corpus is too short, a package is missing, or training diverges; InfrastructureFault if
    the process of one of several devices dies.

    Saves its state every `save_seconds`.
    """
    alignment = request.alignment
    require_packages(alignment.optimizer)
    refuse_for_several(request.recipe, len(request.devices))
    work = AlignWork(request, inputs, output, context)
    text = work.text()
    choose_bf16(request, inputs, work.state, text.training, context)
    reconstruction = work.reconstruct(text)
    trained = work.train(text, save_seconds)
    checks = trained.progress.checks if text.probe is None else work.probe(text.probe, trained)
    report = _report(work.setup, trained, checks, reconstruction)
    write_json(output / REPORT, report.model_dump(mode="json"))


def _report(
    setup: AlignSetup, trained: Trained, checks: Sequence[Check], reconstruction: ReconstructionReport | None
) -> AlignmentReport:
    progress, alignment = trained.progress, setup.alignment
    tokens, best = progress.steps * alignment.batch_tokens, best_check(list(checks))
    return AlignmentReport(
        objective=alignment.objective.value,
        optimizer=alignment.optimizer.value,
        quantization_aware=setup.trains_quantized,
        optimizer_state_bytes=trained.optimizer_bytes,
        steps=progress.steps,
        skipped_steps=progress.skipped_steps,
        step=progress.steps if best is None else best.step,
        checks=[CheckRecord.model_validate(check.model_dump()) for check in checks],
        tokens=tokens,
        loss=progress.losses,
        gradient_matching=setup.gradient_matching,
        gradient_cosine=progress.gradient_cosines,
        seconds=progress.seconds,
        tokens_per_second=tokens / progress.seconds if tokens else None,
        data_wait_share=progress.waited_seconds / progress.seconds if tokens else None,
        peak_memory_bytes=progress.peak_memory_bytes,
        bf16_modules=setup.bf16,
        reconstruction=reconstruction,
    )


ALIGN = StageSpec(
    name=Stage.ALIGN,
    needs=(Stage.FETCH, Stage.PRUNE),
    inputs=AlignInputs.of,
    digest=digest,
    run=run,
    reads_text=True,
)
