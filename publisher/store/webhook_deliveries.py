"""Deliveries as those see them who make them: taken, ended, and forgotten after a while.

Any number of processes take deliveries from here. One that is taken is not due until its try must have ended; whoever
took it and died has it tried again then. Locks are taken in the order webhook, delivery.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, bindparam, case, delete, exists, func, literal_column, select, update
from sqlalchemy.orm import Session

from publisher.store.audit import record
from publisher.store.database import clock, database_now
from publisher.store.models import Tenant, Webhook, WebhookDelivery, WebhookEvent
from publisher.store.states import DeliveryState

#: deliveries that are forgotten in one transaction
BATCH = 1000


@dataclass(frozen=True)
class Claim:
    """A delivery for one try, number `attempts`; `asked_at` and `claimed_at` by the database's clock."""

    id: str
    attempts: int
    asked_at: float
    claimed_at: float
    webhook: Webhook
    event: WebhookEvent


@dataclass(frozen=True)
class Tried:
    """How a try ended. `pause`: seconds until the next; None: there is none. `state` is what the delivery is in then.
    `disable`: why the webhook wants nothing any more."""

    claim: Claim
    state: DeliveryState
    pause: float | None
    status: int | None
    error: str | None
    seconds: float
    disable: str | None = None


def _is_due() -> tuple[ColumnElement[bool], ...]:
    # written out, so that a database sees that the index of pending ones will do
    pending = WebhookDelivery.state == literal_column(f"'{DeliveryState.PENDING.value}'")
    return pending, WebhookDelivery.due_at <= database_now()


def _is_served() -> tuple[ColumnElement[bool], ...]:
    """Of webhooks: enabled, and nobody has suspended their tenant, whose deliveries wait."""
    suspended = select(Tenant.id).where(Tenant.suspended_at.is_not(None))
    return Webhook.disabled_at.is_(None), Webhook.tenant_id.not_in(suspended)


def due_webhooks(session: Session, full: Collection[str], limit: int) -> list[str]:
    """Webhooks that something is due for, but for those in `full`; some `limit` of them if there are more."""
    waiting = exists().where(WebhookDelivery.webhook_id == Webhook.id, *_is_due())
    found = select(Webhook.id).where(*_is_served(), Webhook.id.not_in(full), waiting)
    return list(session.scalars(found.order_by(func.random()).limit(limit)))


def longest_due(session: Session) -> float:
    """Seconds that the delivery which has been due for the longest waits; 0 where none is."""
    served = select(Webhook.id).where(*_is_served())
    first = select(func.min(WebhookDelivery.due_at)).where(WebhookDelivery.webhook_id.in_(served), *_is_due())
    due_at = session.scalar(first)
    return 0.0 if due_at is None else max(0.0, clock(session) - due_at)


def webhooks_by_health(session: Session) -> dict[str, int]:
    """How many are enabled, failing (enabled, and nothing arrives at the moment) and disabled."""
    health = case(
        (Webhook.disabled_at.is_not(None), "disabled"), (Webhook.failing_since.is_not(None), "failing"), else_="enabled"
    )
    counted: dict[str, int] = dict(session.execute(select(health, func.count()).group_by(health)).all())
    return {state: counted.get(state, 0) for state in ("enabled", "failing", "disabled")}


def claim(session: Session, room: Mapping[str, int], limit: int, seconds: float) -> list[Claim]:
    """Take what is due, `limit` in all and of each webhook that is served as many as there is room for, for
    `seconds`."""
    ids: list[str] = []
    served = select(Webhook.id).where(Webhook.id.in_(room), *_is_served())
    for webhook_id in session.scalars(served).all():
        mine = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook_id, *_is_due())
        first = mine.order_by(WebhookDelivery.due_at, WebhookDelivery.id).limit(min(room[webhook_id], limit - len(ids)))
        ids += session.scalars(first.with_for_update(skip_locked=True))
    if not ids:
        return []
    now = clock(session)
    taken = update(WebhookDelivery).where(WebhookDelivery.id.in_(ids))
    taken = taken.values(attempts=WebhookDelivery.attempts + 1, due_at=now + seconds)
    session.execute(taken.execution_options(synchronize_session=False))
    rows = (
        select(WebhookDelivery.id, WebhookDelivery.attempts, WebhookDelivery.asked_at, Webhook, WebhookEvent)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .join(WebhookEvent, WebhookEvent.id == WebhookDelivery.event_id)
        .where(WebhookDelivery.id.in_(ids))
        .order_by(WebhookDelivery.id)
    )
    return [Claim(id, attempts, asked, now, hook, event) for id, attempts, asked, hook, event in session.execute(rows)]


def settle(session: Session, tried: Sequence[Tried], disable_after: float) -> None:
    """Keep how tries ended; of a delivery that was taken again meanwhile nothing. A webhook that got nothing for
    `disable_after` seconds is disabled when a delivery to it is given up."""
    ids = {each.claim.webhook.id for each in tried}
    held = select(Webhook.id).where(Webhook.id.in_(ids)).order_by(Webhook.id)
    session.execute(held.with_for_update(key_share=True))
    _keep_health(session, tried, disable_after)
    _keep_outcomes(session, tried)


def _keep_health(session: Session, tried: Sequence[Tried], disable_after: float) -> None:
    fine = {each.claim.webhook.id for each in tried if each.state is DeliveryState.DELIVERED}
    failing = {each.claim.webhook.id for each in tried} - fine
    given_up = {each.claim.webhook.id for each in tried if each.state is DeliveryState.FAILED} - fine
    _change(session, fine, Webhook.failing_since.is_not(None), failing_since=None)
    _change(session, failing, Webhook.failing_since.is_(None), failing_since=database_now())
    enabled = Webhook.disabled_at.is_(None)
    for each in tried:
        if each.disable:
            _disable(session, {each.claim.webhook.id}, enabled, each.disable)
    silent = "nothing could be delivered to it for days; the last deliveries say why."
    long_ago = Webhook.failing_since < database_now() - disable_after
    _disable(session, given_up, enabled & long_ago, silent)


def _disable(session: Session, ids: Collection[str], where: ColumnElement[bool], reason: str) -> None:
    if not ids:
        return
    changed = update(Webhook).where(Webhook.id.in_(ids), where)
    values = changed.values(disabled_at=database_now(), disabled_reason=reason).returning(Webhook.id, Webhook.tenant_id)
    for id, tenant_id in session.execute(values.execution_options(synchronize_session=False)).all():
        record(session, "webhook.disable", id, tenant_id=tenant_id, reason=reason)


def _change(session: Session, ids: Collection[str], where: ColumnElement[bool], **values: Any) -> None:
    if ids:
        changed = update(Webhook).where(Webhook.id.in_(ids), where).values(**values)
        session.execute(changed.execution_options(synchronize_session=False))


def _keep_outcomes(session: Session, tried: Sequence[Tried]) -> None:
    table, now = cast(Table, WebhookDelivery.__table__), clock(session)
    mine = (table.c.id == bindparam("_id"), table.c.attempts == bindparam("_attempts"))
    pending = table.c.state == DeliveryState.PENDING
    rows = [
        {
            "_id": each.claim.id,
            "_attempts": each.claim.attempts,
            "state": each.state,
            "due_at": now + (each.pause or 0.0),
            "tried_at": now,
            "delivered_at": now if each.state is DeliveryState.DELIVERED else None,
            "status": each.status,
            "error": each.error,
            "seconds": each.seconds,
        }
        for each in sorted(tried, key=lambda each: each.claim.id)
    ]
    session.connection().execute(update(table).where(*mine, pending), rows)


def release(session: Session, claims: Sequence[Claim]) -> None:
    """Due at once, and no try: the process that took them ends."""
    for each in sorted(claims, key=lambda each: each.id):
        mine = (WebhookDelivery.id == each.id, WebhookDelivery.attempts == each.attempts)
        free = update(WebhookDelivery).where(*mine, WebhookDelivery.state == DeliveryState.PENDING)
        free = free.values(due_at=database_now(), attempts=WebhookDelivery.attempts - 1)
        session.execute(free.execution_options(synchronize_session=False))


def let_out(session: Session, tenant_id: str) -> None:
    """Those that wait for the end of the tenant's suspension have all their tries before them."""
    waiting = update(WebhookDelivery).where(
        WebhookDelivery.tenant_id == tenant_id, WebhookDelivery.state == DeliveryState.PENDING
    )
    session.execute(waiting.values(asked_at=database_now()).execution_options(synchronize_session=False))


def forget_old(session: Session, seconds: float) -> int:
    """Deliveries older than that, whatever became of them, and events that nothing is delivered of; BATCH at most of
    each. Returns how many went."""
    before = clock(session) - seconds
    old = select(WebhookDelivery.id).where(WebhookDelivery.id < _id_at(WebhookDelivery.id_kind, before))
    ids = session.scalars(old.limit(BATCH).with_for_update(skip_locked=True)).all()
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)))
    used = exists().where(WebhookDelivery.event_id == WebhookEvent.id)
    unused = select(WebhookEvent.id).where(WebhookEvent.id < _id_at(WebhookEvent.id_kind, before), ~used)
    events = session.scalars(unused.limit(BATCH).with_for_update(skip_locked=True)).all()
    session.execute(delete(WebhookEvent).where(WebhookEvent.id.in_(events)))
    return len(ids) + len(events)


def _id_at(kind: str, at: float) -> str:
    """Ids sort by age: those made before then are smaller (publisher.store.models.new_id)."""
    return f"{kind}_{int(at * 1000):012x}"
