"""align: continual pre-training that brings the pruned model back to what the base model does.

All weights but the LM head train, as in the paper (arXiv 2502.13533, section 3.1). Writes `model/` in bf16 and
`alignment.json`; keeps its training state in `state/` until the stage is finished.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from publisher.checkpoint.weight_masks import WeightMasks
from publisher.recipe import Alignment, Objective, PruningMethod
from worker.alignment.batch_loss import BatchLoss, Distillation, NextToken
from worker.alignment.data import WeightedSource, training_sequences
from worker.alignment.schedule import Schedule
from worker.alignment.sparsity import keep_removed_weights_zero
from worker.alignment.state import TrainingProgress
from worker.alignment.training import Training
from worker.causal import load_causal
from worker.head import head_of
from worker.measure import compute_dtype, peak_memory
from worker.stages.context import Stage, StageContext
from worker.stages.folder import STATE, write_json
from worker.stages.inputs import AlignInputs
from worker.stages.request import BuildRequest
from worker.stages.store import stage_digest

VERSION = 1
REPORT = "alignment.json"


def digest(request: BuildRequest, fetch: str, prune: str) -> str:
    alignment = _recipe(request)
    corpora = {corpus.name: request.corpora[corpus.name].content_digest() for corpus in alignment.corpora}
    dependencies = {
        "fetch": fetch,
        "prune": prune,
        "alignment": alignment.model_dump(mode="json"),
        "corpora": corpora,
        "seed": request.recipe.seed,
    }
    return stage_digest(Stage.ALIGN, VERSION, dependencies)


def run(
    request: BuildRequest, inputs: AlignInputs, output: Path, context: StageContext, *, save_seconds: float = 30.0
) -> None:
    """Raises RequestFault if a corpus is too short or training diverges. Saves its state every `save_seconds`."""
    alignment, device = _recipe(request), torch.device(request.device)
    sequences = _sequences(request, alignment, inputs.base, context)
    torch.manual_seed(request.recipe.seed)
    with peak_memory(device):
        model = _trainable(inputs.pruned, device)
        if request.recipe.pruning.method is not PruningMethod.STRUCTURED:
            keep_removed_weights_zero(model, WeightMasks(inputs.masks))
        training = Training(
            model,
            _batch_loss(alignment, model, inputs.base),
            sequences,
            _schedule(alignment),
            context,
            state_file=output / STATE / "training.safetensors",
            save_seconds=save_seconds,
        )
        progress = training.run()
    model.to(torch.bfloat16).save_pretrained(output / "model")
    write_json(output / REPORT, _report(alignment, progress))


def _recipe(request: BuildRequest) -> Alignment:
    assert request.recipe.alignment is not None, "the pipeline skips align without a recipe for it"
    return request.recipe.alignment


def _schedule(alignment: Alignment) -> Schedule:
    return Schedule(
        steps=alignment.steps,
        batch_sequences=alignment.batch_tokens // alignment.sequence_length,
        peak=alignment.learning_rate,
        warmup_fraction=alignment.warmup_fraction,
    )


def _sequences(request: BuildRequest, alignment: Alignment, base: Path, context: StageContext) -> Tensor:
    schedule = _schedule(alignment)
    return training_sequences(
        [WeightedSource(request.corpora[corpus.name], corpus.weight) for corpus in alignment.corpora],
        AutoTokenizer.from_pretrained(base, local_files_only=True),
        alignment.sequence_length,
        schedule.steps * schedule.batch_sequences,
        seed=request.recipe.seed,
        check=context.check,
    )


def _trainable(pruned: Path, device: torch.device) -> PreTrainedModel:
    """fp32 master weights. Tied embeddings are the LM head's own tensor, so they stay frozen with it."""
    model = load_causal(pruned, device, torch.float32)
    model.get_output_embeddings().requires_grad_(False)
    return model


def _batch_loss(alignment: Alignment, model: PreTrainedModel, base: Path) -> BatchLoss:
    head = head_of(model).to(compute_dtype(model.device))
    if alignment.objective is Objective.LANGUAGE_MODEL:
        return NextToken(head)
    return Distillation(head, load_causal(base, model.device).requires_grad_(False))


def _report(alignment: Alignment, progress: TrainingProgress) -> dict[str, object]:
    """`loss` is in nats per token, one number a step; `seconds` counts training alone, over all attempts."""
    tokens = progress.steps * alignment.batch_tokens
    return {
        "objective": alignment.objective.value,
        "steps": progress.steps,
        "tokens": tokens,
        "loss": progress.losses,
        "seconds": progress.seconds,
        "tokens_per_second": tokens / progress.seconds,
        "peak_memory_bytes": progress.peak_memory_bytes,
    }
