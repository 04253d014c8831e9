"""One number for every event of a tenant, whichever job it is of: what a listener to all of them resumes by.

It comes from the tenant's row. Were that taken when an event is made, a transaction could hold it while it waits for
something that another holds, and a reaper that ends jobs of many tenants takes many. So events wait in the session, and
are written in front of its commit: tenants' rows are the last locks that a transaction takes, in the order of their
ids, and number n+1 of a tenant is visible only after n.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import Table, bindparam, event, insert, update
from sqlalchemy.orm import Session

from publisher.store.models import JobEvent, Tenant
from publisher.webhooks import outbox

_WAITING = "events that wait for the commit"
_tenant_of = itemgetter("tenant_id")

# made once, by the tables: they are in every transaction of a job
_INSERT = insert(cast(Table, JobEvent.__table__))
_TENANT = cast(Table, Tenant.__table__)
_COUNT = (
    update(_TENANT)
    .where(_TENANT.c.id == bindparam("of_tenant"))
    .values(event_seq=_TENANT.c.event_seq + bindparam("more"))
    .returning(_TENANT.c.event_seq, _TENANT.c.webhooks)
)


def add(session: Session, rows: Iterable[dict[str, Any]]) -> None:
    """Columns of JobEvent but for `number`: they are written when the session commits."""
    if session.in_nested_transaction():
        # its rollback would leave them behind
        raise RuntimeError("events cannot be made within a savepoint: make them after it.")
    session.info.setdefault(_WAITING, []).extend(rows)


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    if session.in_nested_transaction():
        return
    rows = session.info.pop(_WAITING, [])
    told = []
    # sorted keeps the order within a tenant
    for tenant_id, some in groupby(sorted(rows, key=_tenant_of), _tenant_of):
        theirs = list(some)
        if _number(session, tenant_id, theirs):
            told += theirs
    if rows:
        session.execute(_INSERT, rows)
    if told:
        outbox.write(session, told)


@event.listens_for(Session, "after_rollback")
def _forget(session: Session) -> None:
    session.info.pop(_WAITING, None)


def _number(session: Session, tenant_id: str, rows: list[dict[str, Any]]) -> bool:
    """Whether the tenant has webhooks to be told of these events."""
    last, webhooks = session.execute(_COUNT, {"of_tenant": tenant_id, "more": len(rows)}).one()
    for number, row in enumerate(rows, last - len(rows) + 1):
        row["number"] = number
    return bool(webhooks)
