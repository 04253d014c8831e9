"""Whose the namespaces of the embedded Hub are: a tenant's by grant, its own name's from the start."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from publisher.errors import Conflict, NotFound
from publisher.store.audit import record
from publisher.store.database import added_first, clock
from publisher.store.models import HubNamespace, Tenant


def namespace_row(session: Session, namespace: str) -> HubNamespace | None:
    """None if nobody ever had it; a row without a tenant if it was taken back."""
    return session.get(HubNamespace, namespace)


def namespaces_of(session: Session, tenant_id: str) -> list[str]:
    """Sorted."""
    found = select(HubNamespace.namespace).where(HubNamespace.tenant_id == tenant_id)
    return list(session.scalars(found.order_by(HubNamespace.namespace)))


def is_sole_tenant(session: Session, tenant_id: str) -> bool:
    """Whether there is no other: then all that is nobody's is its own to take."""
    return session.get(Tenant, tenant_id) is not None and session.scalar(select(func.count(Tenant.id))) == 1


def may_use(session: Session, namespace: str, tenant_id: str, recorded: Callable[[], str | None]) -> bool:
    """Whether the tenant may create repositories there. `recorded`: whose the Hub's folder says that it is, of what was
    taken before there were grants."""
    row = namespace_row(session, namespace)
    if row is not None:
        return row.tenant_id == tenant_id
    before = recorded()
    return before == tenant_id if before is not None else is_sole_tenant(session, tenant_id)


def grant(session: Session, namespace: str, tenant: Tenant) -> None:
    """Conflict if it is another tenant's."""
    if not _begun(session, namespace, tenant.id):
        row = _held(session, namespace)
        if row.tenant_id not in {None, tenant.id}:
            owner = session.get_one(Tenant, row.tenant_id).name
            raise Conflict(
                f"namespace {namespace!r} is tenant {owner!r}'s.",
                way_out=f"publisher admin tenant ungrant {owner} {namespace} takes it back first.",
            )
        row.tenant_id, row.granted_at = tenant.id, clock(session)
        session.flush()
    record(session, "namespace.grant", namespace, tenant_id=tenant.id)


def ungrant(session: Session, namespace: str, tenant: Tenant) -> None:
    """Nobody's from now on, until it is granted again; what lies in it stays. NotFound if it is not the tenant's."""
    row = None if namespace_row(session, namespace) is None else _held(session, namespace)
    if row is None or row.tenant_id != tenant.id:
        raise NotFound(
            f"tenant {tenant.name!r} has no namespace {namespace!r}.",
            way_out="publisher admin tenant list says who has which.",
        )
    row.tenant_id = None
    record(session, "namespace.ungrant", namespace, tenant_id=tenant.id)


def grant_if_free(session: Session, namespace: str, tenant_id: str) -> None:
    """Nothing is changed where there is a row already."""
    _begun(session, namespace, tenant_id)


def _begun(session: Session, namespace: str, tenant_id: str) -> bool:
    """Whether nobody had it before, not even at this moment; then it is the tenant's."""
    if namespace_row(session, namespace) is not None:
        return False
    row = HubNamespace(namespace=namespace, tenant_id=tenant_id, granted_at=clock(session))
    return added_first(session, row)


def _held(session: Session, namespace: str) -> HubNamespace:
    """As it is now, whatever others do to it at this moment, until the transaction ends."""
    return session.get_one(HubNamespace, namespace, with_for_update=True, populate_existing=True)


def adopt(session: Session, owners: Mapping[str, str]) -> None:
    """Grants for what was taken before there were grants, namespace → tenant's id; then every tenant's own name's."""
    tenants = {tenant.id: tenant.name for tenant in session.scalars(select(Tenant).order_by(Tenant.id))}
    for namespace, tenant_id in owners.items():
        if tenant_id in tenants:
            grant_if_free(session, namespace, tenant_id)
    for tenant_id, name in tenants.items():
        grant_if_free(session, name, tenant_id)
