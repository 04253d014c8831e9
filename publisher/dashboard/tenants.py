"""A person of several tenants chooses whose pages to see."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse

from publisher.api.service import CurrentService
from publisher.dashboard.access import SendingVisitor, SignedIn, Visitor, sessions_of
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.sign_in import START, own_page
from publisher.errors import NotFound
from publisher.store import browser_sessions, members
from publisher.store.models import Membership

router = APIRouter(prefix="/tenants", route_class=PageRoute)


@router.get("")
def tenants(service: CurrentService, visitor: SignedIn, next: str = START) -> HTMLResponse:
    with service.database.read() as session:
        mine = members.of_person(session, _person(visitor))
    return page("tenants.html", visitor=visitor, memberships=mine, next=own_page(next))


@router.post("")
def choose(
    service: CurrentService,
    visitor: SendingVisitor,
    membership: Annotated[str, Form(max_length=100)] = "",
    next: Annotated[str, Form(max_length=2000)] = START,
) -> Response:
    """Another session, which lasts no longer than this one would have; this one ends."""
    with service.database.write() as session:
        chosen = _mine(members.of_person(session, _person(visitor)), membership)
        members.use(session, chosen)
        browser_sessions.end(session, visitor.session.id, visitor.session.expires)
    response = see_other(own_page(next))
    sessions_of(service).begin(response, chosen.id, visitor.session.expires)
    return response


def _person(visitor: Visitor) -> str:
    if visitor.person_id is None:
        raise NotFound("An API key belongs to one tenant.", way_out="Sign out, and in with another key.")
    return visitor.person_id


def _mine(memberships: list[Membership], id: str) -> Membership:
    found = next((row for row in memberships if row.id == id), None)
    if found is None:
        raise NotFound("You are not a member there.")
    return found
