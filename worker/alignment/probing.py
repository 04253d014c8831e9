"""Which of the weights that training kept helps the base model most: each trains a probe LoRA, which is recovered.

More alignment is not always better (arXiv 2502.13533, figure 5), and the small model's own loss does not tell. The
probe has the certificate's budget, but the base model is measured on other training documents than those that the
probe trains on: the held-out ones stay unseen until the certificate.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from publisher.checkpoint.recovery import recover_folder
from publisher.checkpoint.weight_masks import WeightMasks, open_masks
from publisher.manifest.evaluation import chosen_strength
from publisher.recipe import ProbeBudget
from worker.alignment.checkpoint_selection import candidate_file
from worker.alignment.state import Check
from worker.context import StageContext
from worker.probe.probe import load_with_adapter, train_probe
from worker.probe.strength import try_strengths
from worker.probe.text import ProbeText
from worker.request import BaseModelSource

_RESULTS = "probes.json"

#: (file with a candidate's weights, folder for the model that they make)
WriteModel = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Probing:
    """`masks`: pruning_masks.safetensors. `folder` has the candidates' files, and keeps results and work."""

    source: BaseModelSource
    base: Path
    masks: Path
    budget: ProbeBudget
    text: ProbeText
    write_model: WriteModel
    folder: Path
    device: torch.device
    seed: int
    context: StageContext

    def losses(self, steps: Sequence[int]) -> list[Check]:
        """For the candidate of each step the base model's loss with its recovered probe at its best strength.

        In nats per token. Goes on where it was interrupted.
        """
        file = self.folder / _RESULTS
        known = json.loads(file.read_bytes()) if file.exists() else []
        found = [Check.model_validate(check) for check in known]
        for step in steps[len(found) :]:
            found.append(self._measured(step))
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps([check.model_dump() for check in found]))
            partial.replace(file)
        return found

    def _measured(self, step: int) -> Check:
        work, masks = self.folder / "probe", open_masks(self.masks)
        weight_masks = masks.update_masks
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        self.write_model(candidate_file(self.folder, step), work / "model")
        self._train(work, weight_masks)
        if weight_masks is None:  # where single weights were pruned the base model masks the update
            revision = self.source.revision if self.source.path is None else None
            recover_folder(work / "trained", work / "recovered", masks, self.source.public_name, revision)
        adapter = work / ("recovered" if weight_masks is None else "trained")
        adapted = load_with_adapter(self.base, adapter, self.device, weight_masks)
        tried = try_strengths(adapted, self.text.measured, lambda _: None, self.context.check)
        shutil.rmtree(work)
        strength = chosen_strength(tried)
        loss = next((each.loss for each in tried if each.strength == strength), None)
        told = "no number" if loss is None else f"{loss:.4f} at strength {strength:g}"
        self.context.log(f"The base model's loss with a probe of the weights after step {step}: {told}.")
        return Check(step=step, loss=loss)

    def _train(self, work: Path, masks: WeightMasks | None) -> None:
        train_probe(
            work / "model",
            self.text.training,
            self.budget,
            work / "trained",
            device=self.device,
            seed=self.seed,
            on_step=lambda step, loss: None,
            check=self.context.check,
            masks=masks,
        )
