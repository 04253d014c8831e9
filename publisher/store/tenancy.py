"""The one place that filters by tenant. Every query for a person's resources starts here."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from publisher.errors import NotFound
from publisher.store.models import ApiKey, BaseModel, Corpus, Job, Sweep, Variant

Owned = TypeVar("Owned", ApiKey, BaseModel, Corpus, Sweep, Variant, Job)


def readable_by(tenant_id: str, model: type[Owned]) -> Select[Owned]:
    """All rows of `model` that the tenant may see, to be filtered, ordered and limited further."""
    return select(model).where(model.tenant_id == tenant_id)


def owned(session: Session, model: type[Owned], tenant_id: str, id: str) -> Owned:
    """The tenant's row with this id; NotFound if there is none, and the same if it is somebody else's."""
    row = session.scalar(readable_by(tenant_id, model).where(model.id == id))
    if row is None:
        raise NotFound(f"{_words(model)} {id} does not exist.")
    return row


def _words(model: type[object]) -> str:
    """`BaseModel` → `base model`."""
    name = model.__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
