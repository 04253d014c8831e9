"""A webhook that is deleted at the moment at which somebody else changes it."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from publisher.errors import NotFound
from publisher.store import migrate, tenancy, webhooks
from publisher.store.database import Database
from publisher.store.keys import add_tenant
from publisher.store.models import Webhook


def test_what_was_deleted_meanwhile_is_not_found(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.upgrade(postgresql_url)
    database = Database(postgresql_url)
    with database.write() as session:
        tenant_id = add_tenant(session, "vision").id
        hook = Webhook(tenant_id=tenant_id, url="https://ci.example/", events=None, description="", secret="v1")
        webhooks.add(session, hook, 20)
    remove = webhooks.remove

    def found_and_gone(session: Session, model: type[Webhook], tenant_id: str, id: str) -> Webhook:
        row = tenancy.owned(session, model, tenant_id, id)
        monkeypatch.setattr(webhooks, "owned", tenancy.owned)
        with database.write() as another:
            remove(another, tenant_id, id)
        return row

    monkeypatch.setattr(webhooks, "owned", found_and_gone)
    with pytest.raises(NotFound, match=hook.id), database.write() as session:
        webhooks.add_event(session, webhooks.held(session, tenant_id, hook.id), "webhook.test", {})
    database.close()
