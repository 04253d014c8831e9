"""The run of the align stage: layers are solved for, weights trained on one device or on several, a probe chooses."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.manifest.reports import MatrixErrors, ReconstructionReport
from publisher.recipe import Scheme, Stop
from worker.alignment.checkpoint_selection import best_check, candidate_file
from worker.alignment.distributed.launcher import run_on_devices
from worker.alignment.distributed.rank import Several
from worker.alignment.distributed.ranks import Alone, Ranks
from worker.alignment.optimizers import make_optimizer
from worker.alignment.optimizers.state import state_bytes
from worker.alignment.probing import Probing
from worker.alignment.reconstruction import reconstruct
from worker.alignment.state import Check, TrainingProgress, restore_weights, save_tensors
from worker.alignment.trainable import AllWeights, LowRank
from worker.alignment.training import Training
from worker.context import StageContext
from worker.models.device import is_gpu, module_of
from worker.models.measure import compute_dtype, peak_memory
from worker.probe.text import ProbeText
from worker.request import BuildRequest
from worker.stages.align.setup import AlignSetup
from worker.stages.align.text import Text, read_text
from worker.stages.inputs import AlignInputs
from worker.storage.folder import STATE, write_json

#: In the state of several devices: what all of them read, and what they leave.
_TEXT, _WEIGHTS = "text.safetensors", "weights.safetensors"
#: in the state: what reconstruction said of itself
_ERRORS = "reconstruction.json"


@dataclass(frozen=True)
class Trained:
    """`optimizer_bytes`: of its state's tensors."""

    progress: TrainingProgress
    optimizer_bytes: int


@dataclass(frozen=True)
class AlignWork:
    request: BuildRequest
    inputs: AlignInputs
    output: Path
    context: StageContext

    @property
    def state(self) -> Path:
        return self.output / STATE

    @cached_property
    def setup(self) -> AlignSetup:
        return AlignSetup(self.request, self.inputs, self.state)

    def text(self) -> Text:
        return read_text(self.request, self.inputs, self.context)

    def reconstruct(self, text: Text) -> ReconstructionReport | None:
        """Solve for what is left of the layers, unless that is done or not asked for; what there is to say of it."""
        alignment = self.setup.alignment
        count = min(len(text.training), alignment.reconstruction_tokens // alignment.sequence_length)
        if not self.setup.is_structured or not count:
            return None
        if not self.setup.reconstructed.exists():
            # the last of the text: layers know it by heart, and training that came from it to new text would take the
            # change for a spike
            self._reconstruct(text.training[-count:])
        return ReconstructionReport.read(self.state / _ERRORS)

    def _reconstruct(self, sequences: Tensor) -> None:
        started, partial = time.perf_counter(), self.setup.reconstructed.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        scratch = self.state / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        self.context.log(f"Layers are reconstructed by {sequences.numel():,} tokens.")
        four_bit = self.setup.four_bit() if self.request.recipe.is_quantization_aware else set()
        with peak_memory(self.setup.device) as peak:
            errors = reconstruct(
                self.inputs.base,
                self.inputs.pruned,
                self.setup.masks,
                sequences,
                partial,
                device=self.setup.device,
                dtype=compute_dtype(self.setup.device),
                scratch=scratch,
                report=lambda done, total: self.context.progress(done, total, "layers"),
                four_bit=four_bit,
            )
        shutil.rmtree(scratch)
        report = ReconstructionReport(
            tokens=sequences.numel(),
            seconds=time.perf_counter() - started,
            peak_memory_bytes=peak.bytes,
            quantization_aware=bool(four_bit),
            matrices=[MatrixErrors.model_validate(error._asdict()) for error in errors],
        )
        write_json(self.state / _ERRORS, report.model_dump(mode="json"))
        partial.rename(self.setup.reconstructed)

    def train(self, text: Text, save_seconds: float) -> Trained:
        """Writes the model, unless a probe is still to choose its weights."""
        if not self.setup.alignment.steps:
            _write(self.setup.trainable(torch.device("cpu")), self.output / "model")
            return Trained(TrainingProgress(), 0)
        if len(self.request.devices) > 1:
            return self._train_on_devices(text, save_seconds)
        trainable, trained = self.trained_by(Alone(self.setup.device), text, save_seconds)
        if text.probe is None:
            _write(trainable, self.output / "model")
        return trained

    def trained_by(self, ranks: Ranks, text: Text, save_seconds: float) -> tuple[AllWeights | LowRank, Trained]:
        """What one process does: all of it, or its share."""
        torch.manual_seed(self.request.recipe.seed)
        with peak_memory(ranks.device):
            with ranks.loading() as device:
                trainable = self.setup.trainable(device)
                ranks.place(trainable.model)
            model = trainable.model
            optimizer = make_optimizer(model, self.setup.alignment)
            trainable.trained_by(optimizer)
            batch_loss = self.setup.batch_loss(model, text.training, ranks)
            matching = self.setup.matching(model, batch_loss)
            rounding = self.setup.rounding(model, matching)
            ranks.seed(self.request.recipe.seed)
            progress = Training(
                model,
                optimizer,
                batch_loss,
                text.training,
                schedule=self.setup.schedule(text),
                context=self.context,
                state_file=self.state / "training.safetensors",
                selection=self.setup.selection(
                    model, batch_loss, text, ranks=ranks, rounding=rounding, log=self.context.log
                ),
                ranks=ranks,
                rounding=rounding,
                matching=matching,
                save_seconds=save_seconds,
            ).run()
        return trainable, Trained(progress, state_bytes(optimizer))

    def _train_on_devices(self, text: Text, save_seconds: float) -> Trained:
        """The processes leave the weights in a file, which becomes a model here, on the CPU: it may not fit a GPU."""
        save_tensors(self.state / _TEXT, text.tensors())
        if is_gpu(self.setup.device):  # what earlier stages left is in the way of the process that gets this device
            module_of(self.setup.device).empty_cache()
        work = _OnDevice(replace(self.request, publish=None), self.inputs, self.output, save_seconds)
        trained = run_on_devices(work, self.request.devices, self.state, self.context)
        if text.probe is None:
            self._write_candidate(self.state / _WEIGHTS, self.output / "model")
        return trained

    def probe(self, text: ProbeText, trained: Trained) -> Sequence[Check]:
        """Writes the model whose probe helps the base model most."""
        steps = [check.step for check in trained.progress.checks]
        checks = Probing(
            source=self.request.base,
            base=self.inputs.base,
            masks=self.inputs.masks,
            budget=self.request.evaluation.probe_budget,
            text=text,
            write_model=self._write_as_published,
            folder=self.state,
            device=self.setup.device,
            seed=self.request.recipe.seed,
            context=self.context,
        ).losses(steps)
        best = best_check(checks) or checks[-1]
        self.context.log(f"Alignment ends with the weights after step {best.step} of {steps[-1]}.")
        self._write_candidate(candidate_file(self.state, best.step), self.output / "model")
        return checks

    def _write_as_published(self, weights: Path, folder: Path) -> None:
        """In 4 bits, where the checkpoint will be: what a probe can learn depends on it."""
        quantization = self.request.recipe.quantization
        if quantization.scheme is not Scheme.NF4:
            self._write_candidate(weights, folder)
            return
        from worker.quantization.nf4 import quantize_nf4

        with TemporaryDirectory(dir=self.state) as whole:
            self._write_candidate(weights, Path(whole))
            everywhere = quantization.include_embeddings
            quantize_nf4(Path(whole), folder, self.setup.device, include_embeddings=everywhere, bf16=self.setup.bf16)

    def _write_candidate(self, weights: Path, folder: Path) -> None:
        trainable = self.setup.trainable(self.setup.device if len(self.request.devices) < 2 else torch.device("cpu"))
        restore_weights(trainable.model, load_file(weights))
        _write(trainable, folder)


@dataclass(frozen=True)
class _OnDevice:
    """What the process of one of several devices does."""

    request: BuildRequest
    inputs: AlignInputs
    output: Path
    save_seconds: float

    def __call__(self, ranks: Several, context: StageContext) -> Trained:
        work = AlignWork(self.request, self.inputs, self.output, context)
        tensors = load_file(work.state / _TEXT)
        text = Text(tensors["training"], tensors.get("held_out"), None)
        trainable, trained = work.trained_by(ranks, text, self.save_seconds)
        if work.setup.alignment.stop is not Stop.PROBE:
            ranks.save_weights(work.state / _WEIGHTS, trainable.model)
        return trained


def _write(trainable: AllWeights | LowRank, folder: Path) -> None:
    trainable.merged().to(torch.bfloat16).save_pretrained(folder)
