"""Pages of base models."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from publisher.api.base_models_schema import BaseModelAnswer
from publisher.api.service import CurrentService
from publisher.dashboard.access import CurrentVisitor
from publisher.dashboard.answers import PageRoute, page
from publisher.dashboard.first_steps import first_steps, order_command
from publisher.dashboard.listing import PAGE, Cursor
from publisher.store.database import clock
from publisher.store.models import BaseModel
from publisher.store.paging import newest_first
from publisher.store.resources import made_from
from publisher.store.tenancy import owned, readable_by

router = APIRouter(prefix="/base-models", route_class=PageRoute)


@router.get("")
def base_models(service: CurrentService, visitor: CurrentVisitor, cursor: Cursor = None) -> HTMLResponse:
    with service.database.read() as session:
        rows = newest_first(session, readable_by(visitor.tenant_id, BaseModel), BaseModel, cursor, PAGE)
        return page(
            "base_models.html",
            visitor=visitor,
            now=clock(session),
            base_models=rows.items,
            cursor=cursor,
            next_cursor=rows.next_cursor,
            steps=None if rows.items else first_steps(session, visitor.tenant_id, service.settings.public_url),
        )


@router.get("/{id}")
def base_model(id: str, service: CurrentService, visitor: CurrentVisitor) -> HTMLResponse:
    with service.database.read() as session:
        row = owned(session, BaseModel, visitor.tenant_id, id)
        facts = BaseModelAnswer.of(row)
        return page(
            "base_model.html",
            visitor=visitor,
            now=clock(session),
            model=row,
            facts=facts,
            geometry=[(name.replace("_", " "), _word(value)) for name, value in facts.geometry],
            variants=made_from(session, visitor.tenant_id, id, PAGE),
            order=order_command(session, visitor.tenant_id, service.settings.public_url, id),
        )


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
