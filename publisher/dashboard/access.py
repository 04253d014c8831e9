"""Who looks at a page: the session's key or membership, checked against the database on every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Form, Request
from sqlalchemy.orm import Session as Rows

from publisher.api.service import CurrentService, Service
from publisher.dashboard.session import SESSION_COOKIE, Session, Sessions
from publisher.errors import RequestFault, Unauthorized
from publisher.people.roles import ALL_SCOPES, WRITE_VARIANTS, rights_of
from publisher.store import browser_sessions, keys, members, origin
from publisher.store.models import Tenant
from publisher.store.origin import Subject

STALE_FORM = "Open the page again and repeat what you did there."


class SignedOut(Unauthorized):
    """No session, or it expired or was ended, or its key was revoked: the way out is the sign-in page."""


class ForeignForm(RequestFault):
    """A form without this session's CSRF token."""

    status = 403
    slug = "foreign-form"
    title = "Form not accepted"


class MayOnlyLook(RequestFault):
    """A form of somebody whose role does not reach for it."""

    status = 403
    slug = "may-only-look"
    title = "Not allowed"


@dataclass(frozen=True)
class Visitor:
    """Who `session` stands for. `name` and what it is, `described`, are shown; `rights`: scopes of API keys;
    `person_id`: None where somebody came with an API key."""

    tenant_id: str
    tenant_name: str
    name: str
    described: str
    rights: frozenset[str]
    session: Session
    person_id: str | None = None

    @property
    def csrf(self) -> str:
        """What the forms on this visitor's pages carry."""
        return self.session.csrf

    @property
    def may_steer(self) -> bool:
        """Whether they may pause, resume, cancel and retry jobs."""
        return WRITE_VARIANTS in self.rights


def sessions_of(service: Service) -> Sessions:
    settings = service.settings
    return Sessions(settings.secret_bytes(), secure=settings.public_url.startswith("https://"))


def visitor(request: Request, service: CurrentService) -> Visitor:
    """Raises SignedOut."""
    session = sessions_of(service).open(request.cookies.get(SESSION_COOKIE, ""))
    if session is not None:
        with service.database.read() as rows:
            found = None if browser_sessions.ended(rows, [session.id]) else _with_key(rows, session)
            if found is not None:
                request.state.visitor = found
                origin.caller_is(Subject.session(session.id, session.stands_on))
                service.rates.admit(found.tenant_id)
                return found
    raise SignedOut("You are not signed in.", way_out="Sign in again.")


def _with_key(rows: Rows, session: Session) -> Visitor | None:
    key = keys.active_key(rows, session.stands_on)
    if key is None:
        return _as_member(rows, session)
    tenant = rows.get_one(Tenant, key.tenant_id)
    return Visitor(tenant.id, tenant.name, key.name, f"API key {key.prefix}…", ALL_SCOPES, session)


def _as_member(rows: Rows, session: Session) -> Visitor | None:
    membership = members.standing_one(rows, session.stands_on)
    if membership is None or membership.person is None:
        return None
    tenant, person = membership.tenant, membership.person
    described = f"{membership.role} of {tenant.name}"
    return Visitor(tenant.id, tenant.name, person.name, described, rights_of(membership.role), session, person.id)


def visitor_of(request: Request) -> Visitor | None:
    """Who was found to be signed in, for the page that says what went wrong then."""
    return getattr(request.state, "visitor", None)


CurrentVisitor = Annotated[Visitor, Depends(visitor)]
CsrfToken = Annotated[str, Form(max_length=200)]


def acting_visitor(request: Request, service: CurrentService, someone: CurrentVisitor, csrf: CsrfToken = "") -> Visitor:
    """The visitor who sent a form; ForeignForm if the form was not on one of this session's pages."""
    if not sessions_of(service).is_genuine(csrf, request.cookies.get(SESSION_COOKIE)):
        raise ForeignForm("This form does not belong to your session.", way_out=STALE_FORM)
    return someone


ActingVisitor = Annotated[Visitor, Depends(acting_visitor)]


def steering_visitor(someone: ActingVisitor) -> Visitor:
    """One who sent a form that changes a job. Raises MayOnlyLook."""
    if not someone.may_steer:
        raise MayOnlyLook(f"As {someone.described} you may look, not change.", way_out="Ask an admin of the tenant.")
    return someone


SteeringVisitor = Annotated[Visitor, Depends(steering_visitor)]
