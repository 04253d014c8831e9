"""Where the Hub says what it does to repositories: in the service, the audit log; a folder on its own keeps none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from publisher.store import origin
from publisher.store.audit import record
from publisher.store.database import Database
from publisher.store.faults import database_faults
from publisher.store.origin import SubjectKind


class Journal(Protocol):
    """Goes around the last step on disk, which makes the change, while the repository is locked: what cannot be written
    down is not done, and what fails leaves no line. Nobody who is within one may wait for a repository's lock."""

    def __call__(
        self, action: str, repository: str, tenant: str, details: Mapping[str, Any]
    ) -> AbstractContextManager[None]: ...


def unwritten(action: str, repository: str, tenant: str, details: Mapping[str, Any]) -> AbstractContextManager[None]:
    return nullcontext()


def audit_journal(database: Database) -> Journal:
    """Into the audit log. The row is there before the step and committed after it; only a process that ends in between
    leaves a change without its row."""

    @contextmanager
    def write(action: str, repository: str, tenant: str, details: Mapping[str, Any]) -> Iterator[None]:
        subject = origin.current().subject
        job_id = subject.id if subject.kind is SubjectKind.JOB else None
        with database_faults(database.engine.url), database.write() as session:
            record(session, action, repository, tenant_id=tenant, related=job_id, **details)
            yield

    return write
