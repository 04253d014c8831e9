"""The one place that filters by tenant. Every query for a person's resources starts here."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from publisher.errors import NotFound
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

Owned = TypeVar(
    "Owned", ApiKey, AuditEntry, BaseModel, Corpus, Sweep, Variant, Job, Webhook, WebhookEvent, WebhookDelivery
)


def readable_by(tenant_id: str, model: type[Owned]) -> Select[Owned]:
    """All rows of `model` that the tenant may see, to be filtered, ordered and limited further."""
    return select(model).where(model.tenant_id == tenant_id)


def owned(session: Session, model: type[Owned], tenant_id: str, id: str, *, kept: bool = False) -> Owned:
    """The tenant's row with this id; NotFound if there is none, and the same if it is somebody else's.

    `kept`: nobody deletes it until the transaction ends.
    """
    found = readable_by(tenant_id, model).where(model.id == id)
    row = session.scalar(found.with_for_update(read=True, key_share=True) if kept else found)
    if row is None:
        raise NotFound(f"{_words(model)} {id} does not exist.")
    return row


def hold(session: Session, row: BaseModel | Corpus | Sweep | Variant | Job | Webhook) -> None:
    """Lock a row, as it is now, until the transaction ends; NotFound if it has just been deleted."""
    id, model = row.id, type(row)
    try:
        session.refresh(row, with_for_update=True)
    except InvalidRequestError:
        raise NotFound(f"{_words(model)} {id} does not exist any more.") from None


def _words(model: type[object]) -> str:
    """`BaseModel` → `base model`."""
    name = model.__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
