"""The LoRA trained on the base model itself: the same for all variants of a sweep, so it is trained once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from publisher.manifest.evaluation import ProbeTraining
from publisher.recipe import ProbeBudget
from worker.request import BaseModelSource

_VERSION = 1
_RECORD = "training.json"


class DirectTraining(BaseModel):
    """What training took, and its losses step by step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: ProbeTraining
    losses: list[float]


@dataclass(frozen=True)
class DirectAdapter:
    """Where it lies: a folder below `root` that is named by all that decides on it."""

    root: Path
    base: BaseModelSource
    sequences: Tensor
    budget: ProbeBudget
    seed: int
    device: str

    @property
    def folder(self) -> Path:
        decisive = [_VERSION, self.base.repo_id, self.base.revision, self.budget.model_dump(mode="json"), self.seed]
        said = json.dumps([*decisive, self.device, list(self.sequences.shape)])
        digest = hashlib.sha256(said.encode() + self.sequences.int().contiguous().numpy().tobytes())
        return self.root / digest.hexdigest()

    def find(self) -> DirectTraining | None:
        """None if it was not trained yet."""
        try:
            os.utime(self.folder / _RECORD)  # used now: what was not for long is collected first
            return DirectTraining.model_validate_json((self.folder / _RECORD).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def make(self, train: Callable[[Path], DirectTraining]) -> DirectTraining:
        """Have `train` write the adapter to the folder that it is given. Whoever is killed leaves nothing that counts.

        Of two that make it at once, one wins; both are alike.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        partial = self.folder.with_name(f"{self.folder.name}.{os.getpid()}-{threading.get_ident()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        made = train(partial)
        (partial / _RECORD).write_text(made.model_dump_json(), encoding="utf-8")
        if self.find() is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            partial.rename(self.folder)
        else:
            shutil.rmtree(partial)
        return made
