"""Writes what webhooks are to be told of, in the transaction in which it happens: with the change, or not at all.

Called in front of the commit by the one place that writes jobs' events (publisher.jobs.numbering), while it holds the
tenant's row: a webhook that is made or deleted meanwhile waits. Of tenants without a webhook it is not called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from publisher.store import webhook_outbox
from publisher.store.models import Webhook, WebhookEvent, new_id
from publisher.store.states import EventKind
from publisher.webhooks.event_type import StateChange, VariantRow
from publisher.webhooks.register import EVENT_TYPES

Row = Mapping[str, Any]


def write(session: Session, rows: Collection[Row]) -> None:
    """Events and deliveries of what these rows (columns of JobEvent) tell, for the webhooks that want to know."""
    changes = [row for row in rows if row["kind"] == EventKind.STATE]
    if not changes:
        return
    hooks = webhook_outbox.enabled(session, {row["tenant_id"] for row in changes})
    if not hooks:
        return
    variants = _variants(session, {row["job_id"] for row in changes})
    new = [event for row in changes for event in _events(row, variants[row["job_id"]])]
    # deliveries go out in the order of their ids
    for event in new:
        event["id"] = new_id(WebhookEvent.id_kind)
    wanted = [(hook, event) for event in new for hook in hooks if _wants(hook, event)]
    webhook_outbox.add(session, _each_once(event for _, event in wanted), [(hook.id, event) for hook, event in wanted])


def _variants(session: Session, job_ids: Collection[str]) -> dict[str, VariantRow]:
    return {job_id: VariantRow(**columns) for job_id, columns in webhook_outbox.variants_of(session, job_ids).items()}


def _events(row: Row, variant: VariantRow) -> Iterable[dict[str, Any]]:
    change = StateChange(row["job_id"], row["seq"], row["at"], row["data"], variant)
    for kind in EVENT_TYPES:
        data = kind.arises(change) if kind.arises is not None else None
        if data is not None:
            told = data.model_dump(mode="json")
            yield {"tenant_id": row["tenant_id"], "type": kind.name, "at": row["at"], "data": told}


def _wants(hook: Webhook, event: Row) -> bool:
    return hook.tenant_id == event["tenant_id"] and (hook.events is None or event["type"] in hook.events)


def _each_once(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({event["id"]: event for event in events}.values())
