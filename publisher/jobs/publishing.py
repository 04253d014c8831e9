"""What a job is about to publish, written down before it is sent: from there on only the Hub knows whether it was.

While an intent stands, no try can end the job as cancelled or failed: the job stays, without a worker if need be, until
somebody has asked the Hub.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from publisher.manifest.manifest import FILE_NAME as MANIFEST
from publisher.manifest.manifest import FileRecord

TOO_LATE = "The cancel came too late: the commit had been sent, and the checkpoint is published."


class Intent(BaseModel):
    """A commit on top of `parent` that makes `files`, the manifest among them, those of a repository.

    `lost_at`: when a try ended without knowing what became of it (the database's clock); `verdict`: the failure with
    which the job ends if the commit was not made.
    """

    model_config = ConfigDict(frozen=True)

    endpoint: str
    repo_id: str
    parent: str
    files: dict[str, FileRecord]
    lost_at: float | None = None
    verdict: dict[str, Any] | None = None

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> Self | None:
        """From the job's column."""
        return None if stored is None else cls.model_validate(stored)

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def mark(self) -> str:
        """The line in the commit's description by which it is known again, whoever committed on top of it."""
        return f"{MANIFEST} has sha256 {self.files[MANIFEST].sha256}"
