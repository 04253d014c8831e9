"""What a tenant may have at once. The operator sets it for a tenant, or a setting for all that have none of their own.

The settings' defaults are rows, too, written when the API starts: workers look at the same ones, whatever their
environment says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from publisher.settings import Settings
from publisher.store.audit import record
from publisher.store.database import Database
from publisher.store.models import Job, QuotaLimit, Tenant
from publisher.store.states import ACTIVE, JobState

#: `tenant_id` of the defaults
EVERYBODY = "*"
#: what a column holds
MOST = 2**63 - 1


@dataclass(frozen=True)
class Quota:
    """One kind of limit: `name` everywhere, `setting` that holds its default, `words` for people; a limit is `least` or
    more."""

    name: str
    words: str
    unit: str
    least: int = 0

    @property
    def setting(self) -> str:
        return f"quota_{self.name}"


JOBS_QUEUED = Quota("jobs_queued", "jobs that wait in the queue; one more is refused", "jobs")
JOBS_RUNNING = Quota("jobs_running", "jobs that workers hold; more of them wait in the queue", "jobs")
STORED_BYTES = Quota("stored_bytes", "bytes in the embedded Hub; what does not fit is refused", "bytes")
REQUESTS_PER_MINUTE = Quota(
    "requests_per_minute", "requests to the API and the embedded Hub", "requests a minute", least=1
)

QUOTAS: Mapping[str, Quota] = {
    quota.name: quota for quota in (JOBS_QUEUED, JOBS_RUNNING, STORED_BYTES, REQUESTS_PER_MINUTE)
}

#: None: without limit
Limits = Mapping[str, int | None]


def keep_defaults(database: Database, settings: Settings) -> None:
    """What a tenant without limits of its own may have from now on; of several processes the last one decides."""
    try:
        with database.write() as session:
            kept = _rows(session, EVERYBODY)
            for quota in QUOTAS.values():
                chosen = getattr(settings, quota.setting)
                most = None if chosen is None else min(int(chosen), MOST)
                if kept.get(quota.name) != most:
                    session.merge(QuotaLimit(tenant_id=EVERYBODY, name=quota.name, most=most))
    except IntegrityError:
        pass  # another process that started at the same time was faster


def limits_of(session: Session, tenant_id: str) -> Limits:
    """Every quota's limit for this tenant, by its name."""
    known = _rows(session, EVERYBODY) | _rows(session, tenant_id)
    return {name: known.get(name) for name in QUOTAS}


def limit_of(session: Session, tenant_id: str, quota: Quota) -> int | None:
    rows = select(QuotaLimit.tenant_id, QuotaLimit.most).where(
        QuotaLimit.name == quota.name, QuotaLimit.tenant_id.in_([EVERYBODY, tenant_id])
    )
    found = dict(session.execute(rows).all())
    return found.get(tenant_id, found.get(EVERYBODY))


def is_limited(session: Session, quota: Quota) -> bool:
    """Whether any tenant is."""
    found = select(QuotaLimit.most).where(QuotaLimit.name == quota.name, QuotaLimit.most.is_not(None))
    return session.execute(found.limit(1)).first() is not None


def set_limit(session: Session, tenant: Tenant, quota: Quota, most: int | None) -> None:
    """`most` is what the tenant may have from now on; None: without limit. What it has already stays."""
    session.merge(QuotaLimit(tenant_id=tenant.id, name=quota.name, most=most))
    record(
        session, "quota.set", tenant.id, tenant_id=tenant.id, quota=quota.name, limit="none" if most is None else most
    )


def set_default(session: Session, tenant: Tenant, quota: Quota) -> None:
    """From now on what everybody may have."""
    own = (QuotaLimit.tenant_id == tenant.id, QuotaLimit.name == quota.name)
    session.execute(delete(QuotaLimit).where(*own))
    record(session, "quota.set", tenant.id, tenant_id=tenant.id, quota=quota.name, limit="default")


def own_limits(session: Session, tenant_id: str) -> Limits:
    """Those that the operator set for this tenant."""
    return _rows(session, tenant_id)


def queued_jobs(session: Session, tenant_id: str) -> int:
    return _count(session, tenant_id, [JobState.QUEUED])


def running_jobs(session: Session, tenant_id: str) -> int:
    """Those that a worker holds, also while they stop."""
    return _count(session, tenant_id, list(ACTIVE))


def _count(session: Session, tenant_id: str, states: list[JobState]) -> int:
    counted = select(func.count()).select_from(Job).where(Job.tenant_id == tenant_id, Job.state.in_(states))
    return session.scalar(counted) or 0


def full_tenants(session: Session) -> dict[str, int]:
    """Tenants with as many running jobs as they may have, and how many that is."""
    rows = select(QuotaLimit.tenant_id, QuotaLimit.most).where(QuotaLimit.name == JOBS_RUNNING.name)
    limits = dict(session.execute(rows).all())
    if all(most is None for most in limits.values()):
        return {}
    running = select(Job.tenant_id, func.count()).where(Job.state.in_(ACTIVE)).group_by(Job.tenant_id)
    counted = dict(session.execute(running).all())
    allowed = {id: limits.get(id, limits.get(EVERYBODY)) for id in session.scalars(select(Tenant.id))}
    return {id: most for id, most in allowed.items() if most is not None and counted.get(id, 0) >= most}


def _rows(session: Session, tenant_id: str) -> dict[str, int | None]:
    rows = session.execute(select(QuotaLimit.name, QuotaLimit.most).where(QuotaLimit.tenant_id == tenant_id))
    return dict(rows.all())
