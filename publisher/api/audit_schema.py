"""The audit log in answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from publisher.store.origin import SubjectKind


class AuditAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="names the entry; ids sort by age")
    at: float = Field(description="seconds since 1970")
    actor: SubjectKind = Field(
        description="what acted: a key, a session of the dashboard, a job, the service's operator, or a request that "
        "nobody signed"
    )
    actor_id: str | None = Field(description="which key, session (the first digits of its id) or job")
    key_id: str | None = Field(description="the key that it stood on; null for jobs and the operator")
    request_id: str | None = Field(description="X-Request-Id of the answer; null where no request did it")
    address: str | None = Field(description="the client's, as the service or its proxy saw it")
    action: str = Field(description="what was done, as in job.cancel")
    resource: str = Field(description="to what: an id, or a repository of the embedded Hub")
    related: str | None = Field(description="what it belongs to, or what it made: a job's variant, a variant's job")
    details: dict[str, Any] = Field(description="the change's essentials")
