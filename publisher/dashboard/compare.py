"""The page that puts variants beside each other: those that somebody chose, or all of a base model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from publisher.api.service import CurrentService
from publisher.dashboard.access import CurrentVisitor, Visitor
from publisher.dashboard.answers import PageRoute, page
from publisher.dashboard.comparison import MOST, Choice, Comparison, WantedChoice
from publisher.store.database import clock
from publisher.store.models import BaseModel
from publisher.store.resources import made_from, variants_by_id
from publisher.store.tenancy import owned

router = APIRouter(prefix="/compare", route_class=PageRoute)

PATH = "/compare"


@router.get("")
def compare(
    service: CurrentService,
    visitor: CurrentVisitor,
    choice: WantedChoice,
    v: Annotated[list[Annotated[str, Query(max_length=64)]] | None, Query(max_length=MOST)] = None,
    base_model: Annotated[str | None, Query(max_length=64)] = None,
) -> HTMLResponse:
    """`v`: ids of variants, in the order in which they stand until they are sorted."""
    with service.database.read() as session:
        base = None if base_model is None else owned(session, BaseModel, visitor.tenant_id, base_model)
        ids = list(dict.fromkeys(v or []))
        return page(
            "compare.html",
            visitor=visitor,
            now=clock(session),
            base=base,
            most=MOST,
            comparison=_of_base(session, base, choice) if base else _of_ids(session, visitor, ids, choice),
        )


def _of_base(session: Session, base: BaseModel, choice: Choice) -> Comparison:
    made = made_from(session, base.tenant_id, base.id, MOST)
    return Comparison.of(made, choice, PATH, [("base_model", base.id)])


def _of_ids(session: Session, visitor: Visitor, ids: list[str], choice: Choice) -> Comparison:
    chosen = variants_by_id(session, visitor.tenant_id, ids)
    return Comparison.of(chosen, choice, PATH, [("v", id) for id in ids])
