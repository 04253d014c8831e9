"""Rows of a tenant, one of each kind that belongs to one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.store.keys import add_key, add_tenant
from publisher.store.models import (
    ApiKey,
    AuditEntry,
    BaseModel,
    Corpus,
    Job,
    Sweep,
    Variant,
    Webhook,
    WebhookDelivery,
    WebhookEvent,
)


@dataclass(frozen=True)
class Owner:
    """A tenant's id, and its rows' ids."""

    tenant_id: str
    key: str
    base_model: str
    corpus: str
    variant: str
    job: str
    sweep: str
    audit: str
    webhook: str
    event: str
    delivery: str


def add_owner(session: Session, name: str, *, idempotency_key: str | None = None) -> Owner:
    """Every tenant's rows look alike: nothing but the tenant tells them apart."""
    tenant = add_tenant(session, name).id
    base = BaseModel(tenant_id=tenant, repo_id="org/base", revision="0" * 40, facts={"published_as": "org/base"})
    corpus = Corpus(tenant_id=tenant, name="novels", source={"path": "/text"}, facts={"documents": 3})
    session.add_all([base, corpus])
    session.flush()
    variant = add_variant(session, tenant, base.id, idempotency_key)
    job = Job(tenant_id=tenant, variant_id=variant.id)
    sweep = Sweep(tenant_id=tenant, request={}, request_digest="0" * 64)
    session.add_all([job, sweep])
    session.flush()
    key = add_key(session, tenant, "ci", f"loram_key-of-{name}")
    told = session.scalars(select(AuditEntry.id).where(AuditEntry.tenant_id == tenant)).one()  # that the key was made
    hook = Webhook(tenant_id=tenant, url="https://example.com/hook", description="", secret="sealed")
    event = WebhookEvent(tenant_id=tenant, type="webhook.test", at=0.0, data={})
    session.add_all([hook, event])
    session.flush()
    delivery = add_delivery(session, hook, event)
    ids = (base.id, corpus.id, variant.id, job.id, sweep.id, told, hook.id, event.id, delivery.id)
    return Owner(tenant, key.id, *ids)


def add_delivery(session: Session, hook: Webhook, event: WebhookEvent) -> WebhookDelivery:
    times = {"due_at": 0.0, "asked_at": 0.0, "created_at": 0.0}
    delivery = WebhookDelivery(tenant_id=hook.tenant_id, webhook_id=hook.id, event_id=event.id, **times)
    session.add(delivery)
    session.flush()
    return delivery


def add_variant(session: Session, tenant: str, base_model: str, idempotency_key: str | None = None) -> Variant:
    variant = Variant(
        tenant_id=tenant,
        base_model_id=base_model,
        recipe={"pruning": {"criterion": "random", "ratio": 0.5}},
        recipe_digest="0" * 64,
        publish_repo_id="org/small",
        publish_private=False,
        idempotency_key=idempotency_key,
        request_digest="0" * 64,
    )
    session.add(variant)
    session.flush()
    return variant


#: what belongs to a tenant, and which of an owner's ids is its row's
OWNED = [
    (ApiKey, "key"),
    (BaseModel, "base_model"),
    (Corpus, "corpus"),
    (Sweep, "sweep"),
    (Variant, "variant"),
    (Job, "job"),
    (AuditEntry, "audit"),
    (Webhook, "webhook"),
    (WebhookEvent, "event"),
    (WebhookDelivery, "delivery"),
]
