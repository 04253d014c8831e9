"""Deleting a variant: a page that says what goes and what stays, and asks what becomes of the publication."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from publisher.api import variants as api
from publisher.api.outside import CurrentOutside
from publisher.api.service import CurrentService, Service
from publisher.api.variants import PublicationFate
from publisher.dashboard.access import ActingVisitor, CurrentVisitor, Visitor, entitled
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.errors import NotFound, PublisherError
from publisher.keys.scopes import Scope
from publisher.manifest.reports import Publication
from publisher.store.database import clock
from publisher.store.models import Variant
from publisher.store.tenancy import owned

router = APIRouter(prefix="/variants", route_class=PageRoute)


@router.get("/{id}/delete")
def ask(id: str, service: CurrentService, visitor: CurrentVisitor) -> HTMLResponse:
    entitled(visitor, Scope.VARIANTS_WRITE)
    return _form(id, service, visitor)


@router.post("/{id}/delete")
async def delete(
    id: str,
    service: CurrentService,
    visitor: ActingVisitor,
    outside: CurrentOutside,
    publication: Annotated[PublicationFate, Form()] = "keep",
) -> Response:
    sweep_id = await run_in_threadpool(_sweep_of, id, service, visitor)
    try:
        await api.delete_variant(id, service, visitor.caller, outside, publication)
    except NotFound:
        raise
    except PublisherError as fault:
        return await run_in_threadpool(_form, id, service, visitor, fault, publication)
    return see_other(f"/sweeps/{sweep_id}" if sweep_id else "/variants")


def _sweep_of(id: str, service: Service, visitor: Visitor) -> str | None:
    with service.database.read() as session:
        return owned(session, Variant, visitor.tenant_id, id).sweep_id


def _form(
    id: str,
    service: Service,
    visitor: Visitor,
    fault: PublisherError | None = None,
    fate: PublicationFate = "keep",
) -> HTMLResponse:
    with service.database.read() as session:
        row = owned(session, Variant, visitor.tenant_id, id)
        return page(
            "delete_variant.html",
            visitor=visitor,
            status=fault.status if fault else 200,
            now=clock(session),
            variant=row,
            publication=Publication.model_validate(row.publication) if row.publication else None,
            may_withdraw=Scope.HUB_WRITE in visitor.caller.rights,
            live=[job for job in row.jobs if not job.state.finished],
            fault=fault,
            fate=fate,
        )
