"""The audit log: who did what, when, from where, to which thing. A row is added in the transaction of the change.

Rows outlive the things that they tell of, and are never changed; the operator alone prunes old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, or_, select
from sqlalchemy.orm import Session

from publisher.store import origin
from publisher.store.models import AuditEntry
from publisher.store.origin import Subject
from publisher.store.tenancy import readable_by


@dataclass(frozen=True)
class AuditFilters:
    """All have to hold; what is None narrows nothing down. Times in seconds since 1970.

    `action`: "job.cancel", or "job" for all that is done to jobs. `resource`: what was changed, or what belongs to it.
    """

    action: str | None = None
    resource: str | None = None
    key_id: str | None = None
    created_after: float | None = None
    created_before: float | None = None


_ADDED = insert(AuditEntry)


def record(
    session: Session,
    action: str,
    resource: str,
    *,
    tenant_id: str | None,
    related: str | None = None,
    by: Subject | None = None,
    **details: Any,
) -> None:
    """Say that this transaction does `action` to `resource`; `related`: another thing by which it is looked for.

    `by`: whoever sent the request that is answered, by default. `details`: the essentials as small JSON, no secret.
    """
    source = origin.current()
    subject = by or source.subject
    row = {
        "tenant_id": tenant_id,
        "actor": subject.kind.value,
        "actor_id": subject.id,
        "key_id": subject.key_id,
        "request_id": source.request_id,
        "address": source.address,
        "action": action,
        "resource": resource,
        "related": related,
        "details": {name: value for name, value in details.items() if value is not None},
    }
    # not as an object of the session, which takes several times as long
    session.execute(_ADDED, [row])


def entries(tenant_id: str, filters: AuditFilters) -> Select[AuditEntry]:
    """A tenant's rows."""
    return readable_by(tenant_id, AuditEntry).where(*_wanted(filters))


def all_entries(session: Session, filters: AuditFilters, tenant_id: str | None = None) -> Iterator[AuditEntry]:
    """Everybody's rows, or one tenant's, oldest first; for the operator."""
    statement = select(AuditEntry).where(*_wanted(filters)).order_by(AuditEntry.id)
    if tenant_id is not None:
        statement = statement.where(AuditEntry.tenant_id == tenant_id)
    yield from session.scalars(statement.execution_options(yield_per=500))


def prune(session: Session, before: float) -> int:
    """Delete the rows from before then (seconds since 1970), and say so in a new one; how many went."""
    wanted = _wanted(AuditFilters(created_before=before))
    count = session.scalar(select(func.count()).select_from(AuditEntry).where(*wanted)) or 0
    session.execute(delete(AuditEntry).where(*wanted).execution_options(synchronize_session=False))
    record(session, "audit.prune", "audit", tenant_id=None, before=before, rows=count)
    return count


def _wanted(filters: AuditFilters) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if filters.action is not None:
        of_kind = AuditEntry.action.startswith(f"{filters.action}.", autoescape=True)
        wanted.append(or_(AuditEntry.action == filters.action, of_kind))
    if filters.resource is not None:
        wanted.append(or_(AuditEntry.resource == filters.resource, AuditEntry.related == filters.resource))
    if filters.key_id is not None:
        wanted.append(AuditEntry.key_id == filters.key_id)
    # ids begin with the milliseconds of their time: the index on them bounds what is read
    if filters.created_after is not None:
        wanted += [AuditEntry.at >= filters.created_after, AuditEntry.id >= _id_at(filters.created_after - 1)]
    if filters.created_before is not None:
        wanted += [AuditEntry.at < filters.created_before, AuditEntry.id <= _id_at(filters.created_before + 1)]
    return wanted


def _id_at(seconds: float) -> str:
    return f"{AuditEntry.id_kind}_{max(0, int(seconds * 1000)):012x}"
