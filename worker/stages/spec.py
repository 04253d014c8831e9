"""What a stage says of itself, once: everything else walks over these declarations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.request import BuildRequest

Inputs = TypeVar("Inputs")

#: of the stages before; one that the recipe skips is not among them
Digests = Mapping[Stage, str]


@dataclass
class FinishedStages:
    """The stages of a build so far: their folders, which are never written to, and the seconds that each took.

    `kept`: the store's folder for what may be made anew at any time.
    """

    kept: Path
    folders: dict[Stage, Path] = field(default_factory=dict)
    digests: dict[Stage, str] = field(default_factory=dict)
    seconds: dict[Stage, float] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        """The base model, as fetch laid it down."""
        return self.folders[Stage.FETCH] / "base"

    @property
    def masks(self) -> Path:
        return self.folders[Stage.PRUNE] / MASKS

    @property
    def last_model(self) -> Path:
        """What is quantized: the aligned model, or the pruned one when alignment is skipped."""
        return self.model(Stage.ALIGN) if Stage.ALIGN in self.folders else self.model(Stage.PRUNE)

    def model(self, stage: Stage) -> Path:
        return self.folders[stage] / "model"

    def report(self, stage: Stage, name: str) -> Path | None:
        """A stage's JSON file; None if the stage was skipped or had nothing to write into it."""
        path = self.folders[stage] / name if stage in self.folders else None
        return path if path and path.is_file() else None


@dataclass(frozen=True)
class StageSpec(Generic[Inputs]):
    """A stage. `needs`: the stages whose digests its own `digest` takes, all of them before it.

    `inputs` names the paths that `run` reads. `reads_text`: datasets are read before it, where that can be cancelled.
    `remade`: it runs again even if it is finished, since what it left outside can have changed.
    """

    name: Stage
    needs: tuple[Stage, ...]
    inputs: Callable[[FinishedStages], Inputs]
    digest: Callable[[BuildRequest, Digests], str]
    run: Callable[[BuildRequest, Inputs, Path, StageContext], None]
    reads_text: bool = False
    remade: bool = False
