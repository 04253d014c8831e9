"""Tenants: made, suspended and looked at by the operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from publisher.errors import NotFound, RequestFault
from publisher.store.audit import record
from publisher.store.database import clock
from publisher.store.keys import add_tenant
from publisher.store.models import Job, Tenant
from publisher.store.states import JobState


class Suspended(RequestFault):
    """The key is good, and its tenant has been suspended."""

    status = 403
    slug = "tenant-suspended"
    title = "Tenant suspended"


def refuse_suspended(tenant: Tenant) -> None:
    """Raises Suspended."""
    if tenant.suspended_at is not None:
        raise Suspended(
            f"The tenant {tenant.name!r} is suspended: its jobs wait, and nothing of it is lost.",
            way_out="Ask the service's operator, who can resume it.",
        )


def refuse_if_suspended(session: Session, tenant_id: str) -> None:
    """Raises Suspended; a tenant that is not there, of a Hub's folder from elsewhere, is not."""
    tenant = session.get(Tenant, tenant_id)
    if tenant is not None:
        refuse_suspended(tenant)


def may_begin() -> ColumnElement[bool]:
    """Of jobs: that their tenant is not suspended."""
    return Job.tenant_id.not_in(select(Tenant.id).where(Tenant.suspended_at.is_not(None)))


def create_tenant(session: Session, name: str) -> Tenant:
    """Conflict if there is one of this name."""
    tenant = add_tenant(session, name)
    record(session, "tenant.create", tenant.id, tenant_id=tenant.id, name=name)
    return tenant


def find_tenant(session: Session, name: str, *, locked: bool = True) -> Tenant:
    """By name or id, locked until the transaction ends unless jobs are to be changed, which come first. Raises
    NotFound."""
    known = or_(Tenant.name == name, Tenant.id == name)
    found = select(Tenant).where(known).order_by(Tenant.id).limit(1)
    tenant = session.scalar(found.with_for_update(key_share=True) if locked else found)
    if tenant is None:
        raise NotFound(f"there is no tenant {name!r}.", way_out="publisher admin tenant list names them all.")
    return tenant


def all_tenants(session: Session) -> Sequence[Tenant]:
    """Oldest first."""
    return session.scalars(select(Tenant).order_by(Tenant.id)).all()


def unfinished_jobs(session: Session, tenant_id: str) -> dict[JobState, int]:
    """How many jobs of the tenant are in each state that is not an end; none where there are none."""
    rows = session.execute(select(Job.state, func.count()).where(Job.tenant_id == tenant_id).group_by(Job.state))
    return {state: number for state, number in rows.all() if not state.finished}


def suspend(session: Session, tenant: Tenant) -> None:
    """From the commit on its keys open nothing and none of its jobs is begun: publisher.jobs.suspension does the rest.

    Suspending twice changes nothing.
    """
    if tenant.suspended_at is None:
        tenant.suspended_at = clock(session)
        record(session, "tenant.suspend", tenant.id, tenant_id=tenant.id)


def set_local_roots(session: Session, tenant: Tenant, roots: Sequence[Path] | None, data_dir: Path) -> None:
    """Folders from which this tenant alone may register; None: those of the settings. RequestFault for one that is
    relative, or that holds the service's own data: keys and other tenants' models lie there."""
    for root in roots or ():
        if not root.is_absolute():
            raise RequestFault(f"{root} is relative.", way_out="Give absolute paths, as API and workers see them.")
        if data_dir.resolve().is_relative_to(root.resolve()):
            raise RequestFault(f"{root} holds the service's own data, {data_dir}.", way_out="Name a folder beside it.")
    tenant.local_roots = None if roots is None else [str(root.resolve()) for root in roots]
    record(session, "tenant.roots", tenant.id, tenant_id=tenant.id, roots=tenant.local_roots)
