"""The life of a job: leases, tries, and what it waits for."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ByteSize, Field, model_validator


class JobSettings(BaseModel):
    """The life of a job"""

    lease_seconds: float = Field(default=30, gt=0, description="a worker silent for this long has lost its job")
    heartbeat_seconds: float = Field(default=5, gt=0, description="how often a worker renews its lease")
    reaper_seconds: float = Field(default=5, gt=0, description="how often lost and undispatched jobs are looked for")
    redispatch_seconds: float = Field(default=20, gt=0, description="a queued job that no worker took is sent again")
    cancel_grace_seconds: float = Field(
        default=30, gt=0, description="then a cancelled or pausing job's process is killed"
    )
    max_attempts: int = Field(default=5, ge=1, description="tries of a job when infrastructure fails")
    retry_backoff_seconds: float = Field(default=10, ge=0, description="before the second try; doubles each time")

    hub_patience_seconds: float = Field(
        default=6 * 3600, gt=0, description="how long a job waits for a Hub, or before it computes for a credential"
    )
    hub_settling_seconds: float = Field(
        default=60, ge=0, description="a commit whose answer was lost, to a Hub elsewhere, may still arrive for so long"
    )
    stages_bytes: ByteSize | None = Field(
        default=None,
        description="most that a machine's stages take, as in 500GiB: what no job needs and was unused for the longest "
        "goes first; empty: as much as the disk holds",
    )
    disk_free_bytes: ByteSize | None = Field(
        default=None,
        description="what stays free on the disk of data_dir, as in 20GiB; empty: a twentieth of it, 4 GiB at most",
    )
    disk_look_seconds: float = Field(
        default=60, gt=0, description="a job that waits for room on a disk looks again after so long"
    )
    disk_patience_seconds: float = Field(
        default=86400, ge=0, description="a job that has waited so long for room on a disk fails"
    )

    @model_validator(mode="after")
    def _heartbeats_within_a_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"heartbeat_seconds {self.heartbeat_seconds:g} is more than half of lease_seconds "
                f"{self.lease_seconds:g}: one late heartbeat would cost a job"
            )
        return self
