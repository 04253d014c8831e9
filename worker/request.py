"""Everything that a build needs to know, resolved: what the pipeline runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from publisher.corpus.source import CorpusSource
from publisher.jobs.publishing import Intent
from publisher.recipe import Alignment, Evaluation, Recipe

if TYPE_CHECKING:
    from publisher.configuration.signing_key import ModelKey


@dataclass(frozen=True)
class BaseModelSource:
    """A base model pinned to a commit of a Hub repository, or a local folder pinned by its files' digests.

    For a local folder `repo_id` is the path, which concerns nobody else; `published_as` is what others call it.
    `bytes`: of all its files, 0 if nobody counted them.
    """

    repo_id: str
    revision: str
    path: Path | None = None
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    published_as: str | None = None
    bytes: int = 0

    @property
    def public_name(self) -> str:
        """What is published calls it: its repository, or of a folder without one the folder's own name."""
        if self.path is None:
            return self.repo_id
        return self.published_as or self.path.name or "base"


class Intents(Protocol):
    """Where it is written down what is about to be published, before the Hub hears of it."""

    def intend(self, intent: Intent) -> None:
        """This commit is sent next. Raises JobCancelled or LeaseLost; then it must not be."""

    def withdraw(self) -> None:
        """The Hub has refused it."""


class Unwritten:
    """Where nobody could ask for the job's end meanwhile: tests, and use as a library."""

    def intend(self, intent: Intent) -> None:
        return None

    def withdraw(self) -> None:
        return None


@dataclass(frozen=True)
class PublishTarget:
    """`embedded`: the service's own Hub, which takes nothing more under a token whose lease is over. `advice`: what
    helps where the Hub refuses the token, `setting`: where it is set. `public_only`: a tenant named the Hub."""

    endpoint: str
    repo_id: str
    private: bool
    token: str = field(repr=False)
    embedded: bool = False
    advice: str | None = None
    setting: str = "PUBLISHER_HUB_TOKEN"
    public_only: bool = False
    intents: Intents = field(default=Unwritten(), repr=False, compare=False)


@dataclass(frozen=True)
class Invocation:
    """The job that makes a checkpoint, for its provenance."""

    id: str
    started_on: datetime


@dataclass(frozen=True)
class BuildRequest:
    """`devices`: those that align together, if there are several; everything else is done on `device`.

    `tasks_folder`: lm-evaluation-harness tasks of the worker's owner, which the recipe may name. `signing_key`: what
    the checkpoint is signed with; None: it is not. `invocation`: what the job is called, and when its work began.
    """

    base: BaseModelSource
    recipe: Recipe
    corpora: Mapping[str, CorpusSource]
    publish: PublishTarget | None = None
    device: str = "cpu"
    tasks_folder: Path | None = None
    devices: tuple[str, ...] = ()
    signing_key: ModelKey | None = field(default=None, repr=False)
    invocation: Invocation | None = None

    @property
    def alignment(self) -> Alignment:
        """For the align stage, which the pipeline skips without it."""
        assert self.recipe.alignment is not None, "the pipeline skips align without a recipe for it"
        return self.recipe.alignment

    @property
    def evaluation(self) -> Evaluation:
        """For the evaluate stage and for alignment that stops by a probe, which the recipe refuses without it."""
        assert self.recipe.evaluation is not None, "neither evaluate nor stopping by a probe goes without it"
        return self.recipe.evaluation
