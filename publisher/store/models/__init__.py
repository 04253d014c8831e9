"""Tables. Times are UTC in seconds since 1970, taken from the database's clock where they decide anything."""

from __future__ import annotations

from publisher.store.models.events import AuditEntry, JobEvent, MetricPoint
from publisher.store.models.processes import ServiceProcess, Tally, Worker
from publisher.store.models.resources import BaseModel, Corpus, Job, JobAttempt, Label, Sweep, Variant, VariantFile
from publisher.store.models.table import DELIVERY_STATE, STATE, Table, new_id
from publisher.store.models.tenants import (
    ApiKey,
    EndedSession,
    HubCredential,
    HubNamespace,
    Membership,
    Person,
    QuotaLimit,
    StoredObject,
    Tenant,
)
from publisher.store.models.webhooks import Webhook, WebhookDelivery, WebhookEvent

__all__ = [
    "DELIVERY_STATE",
    "STATE",
    "ApiKey",
    "AuditEntry",
    "BaseModel",
    "Corpus",
    "EndedSession",
    "HubCredential",
    "HubNamespace",
    "Job",
    "JobAttempt",
    "JobEvent",
    "Label",
    "Membership",
    "MetricPoint",
    "Person",
    "QuotaLimit",
    "ServiceProcess",
    "StoredObject",
    "Sweep",
    "Table",
    "Tally",
    "Tenant",
    "Variant",
    "VariantFile",
    "Webhook",
    "WebhookDelivery",
    "WebhookEvent",
    "Worker",
    "new_id",
]
