"""What people call those who act for a tenant: its API keys by their names, its members by theirs."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.store.models import ApiKey, Membership, Person


def names_of(session: Session, tenant_id: str, ids: Iterable[str | None] | None = None) -> dict[str, str]:
    """By id, those of these that are the tenant's keys or memberships, ended ones too; all that it has without `ids`.
    In the order of the names."""
    keys = select(ApiKey.id, ApiKey.name).where(ApiKey.tenant_id == tenant_id)
    members = select(Membership.id, Person.name, Membership.email).outerjoin(Person)
    members = members.where(Membership.tenant_id == tenant_id)
    if ids is not None:
        wanted = {id for id in ids if id is not None}
        keys, members = keys.where(ApiKey.id.in_(wanted)), members.where(Membership.id.in_(wanted))
    found: dict[str, str] = dict(session.execute(keys).all())
    found |= {id: name or email or id for id, name, email in session.execute(members)}
    return dict(sorted(found.items(), key=lambda each: (each[1].lower(), each[0])))
