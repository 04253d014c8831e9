"""What stages leave for later ones, for the card and for the database, as JSON files: their types, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Self

from pydantic import Field, TypeAdapter

from publisher.manifest.manifest import AlignmentRecord, CheckRecord, FileRecord, ReconstructionRecord
from publisher.manifest.part import Part


class Report(Part):
    """A JSON file of a stage's folder."""

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.model_validate_json(path.read_bytes())


class FetchedBase(Report):
    """`base.json`: the base model's files as they were fetched, and those that are read otherwise."""

    repo_id: str
    revision: str
    files: dict[str, FileRecord]
    rewritten: dict[str, FileRecord] = Field(default={}, description="as they were written anew")

    def content(self) -> dict[str, object]:
        """As it is written: `rewritten` only where there is something."""
        return self.model_dump(mode="json", exclude=None if self.rewritten else {"rewritten"})


class MatrixErrors(Part):
    """Relative errors of one matrix that was solved for, before and after; see ReconstructionRecord."""

    name: str
    before: float
    after: float


class ReconstructionReport(Report):
    """What solving for the layers took, and how far each matrix was from what was wanted."""

    tokens: int
    seconds: float
    peak_memory_bytes: int
    quantization_aware: bool = False
    matrices: list[MatrixErrors] = []

    def summary(self) -> ReconstructionRecord | None:
        """Without the errors of each matrix; None where no matrix could be solved for, as with experts alone."""
        if not self.matrices:
            return None
        return ReconstructionRecord(
            tokens=self.tokens,
            seconds=self.seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            quantization_aware=self.quantization_aware,
            error_before=fmean(matrix.before for matrix in self.matrices),
            error_after=fmean(matrix.after for matrix in self.matrices),
        )


class AlignmentReport(Report):
    """`alignment.json`. `loss`: nats per token, one number a step; `gradient_cosine` likewise, with gradient matching.

    `seconds` counts training alone, over all attempts. `checks` are those of the recipe's way to stop: held-out losses
    of the model, or the base model's with a probe; `step` is the one whose weights came out.
    """

    objective: str
    optimizer: str
    quantization_aware: bool
    optimizer_state_bytes: int
    steps: int
    skipped_steps: int
    step: int
    checks: list[CheckRecord]
    tokens: int
    loss: list[float]
    gradient_matching: float
    gradient_cosine: list[float]
    seconds: float
    tokens_per_second: float | None
    data_wait_share: float | None
    peak_memory_bytes: int
    bf16_modules: list[str] = []
    reconstruction: ReconstructionReport | None = None

    def summary(self) -> AlignmentRecord:
        """Without the numbers of every step; the plot shows the loss."""
        whole = {name: getattr(self, name) for name in AlignmentRecord.model_fields.keys() & type(self).model_fields}
        ends = {"first_loss": self.loss[0], "last_loss": self.loss[-1]} if self.loss else {}
        solved = None if self.reconstruction is None else self.reconstruction.summary()
        return AlignmentRecord.model_validate(whole | ends | {"reconstruction": solved})


class DocumentLosses(Part):
    """Of one corpus: tokens scored of each held-out document, and each form's loss of it, nats summed."""

    tokens: list[int]
    nats: dict[str, list[float]] = Field(description="form (worker.evaluation.measuring.Form) → by document")


_DOCUMENT_LOSSES = TypeAdapter(dict[str, DocumentLosses])
_PROBE_LOSSES = TypeAdapter(dict[str, list[float]])


def read_document_losses(path: Path | None) -> Mapping[str, DocumentLosses]:
    """`document_losses.json`: by corpus; empty where nothing was measured."""
    return {} if path is None else _DOCUMENT_LOSSES.validate_json(path.read_bytes())


def read_probe_losses(path: Path | None) -> Mapping[str, list[float]]:
    """`probe_losses.json`: series (`probe_loss`, `direct_loss`) → nats per token by step; empty without a probe."""
    return {} if path is None else _PROBE_LOSSES.validate_json(path.read_bytes())


class Publication(Part):
    """Where a checkpoint lies: a commit in a Hub's repository."""

    endpoint: str = Field(description="address of the Hub")
    repo_id: str = Field(description="repository on that Hub")
    commit: str = Field(description="the one that holds the checkpoint")
    url: str = Field(description="where the Hub shows it")


class PublicationReport(Publication, Report):
    """`publication.json`: with the files that were published, the manifest among them."""

    files: dict[str, FileRecord]

    @property
    def publication(self) -> Publication:
        return Publication.model_validate(self.model_dump(exclude={"files"}))
