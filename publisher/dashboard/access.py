"""Who looks at a page: the session's key or membership, checked against the database on every request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Form, Request
from sqlalchemy.orm import Session as Rows

from publisher.api.authentication import Caller, caller_of, in_tenant
from publisher.api.service import CurrentService, Service
from publisher.dashboard.session import SESSION_COOKIE, Session, Sessions
from publisher.errors import RequestFault, Unauthorized
from publisher.keys.scopes import Scope, require
from publisher.logs.fields import tell
from publisher.people.roles import rights_of
from publisher.store import browser_sessions, keys, members, origin
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
    """Who `session` stands for. `name` and what it is, `described`, are shown; `person_id`: None where somebody came
    with an API key."""

    caller: Caller
    name: str
    described: str
    session: Session
    person_id: str | None = None

    @property
    def tenant_id(self) -> str:
        return self.caller.tenant_id

    @property
    def tenant_name(self) -> str:
        return self.caller.tenant_name

    @property
    def may_act(self) -> bool:
        """Whether they may do anything to jobs: pages offer it only then."""
        return self.may(Scope.VARIANTS_WRITE)

    @property
    def may_register(self) -> bool:
        """Whether base models and corpora."""
        return self.may(Scope.MODELS_WRITE)

    def may(self, scope: Scope) -> bool:
        """Whether they have a right: pages offer what needs it only then."""
        return scope in self.caller.rights

    @property
    def csrf(self) -> str:
        """What the forms on this visitor's pages carry."""
        return self.session.csrf


def sessions_of(service: Service) -> Sessions:
    settings = service.settings
    return Sessions(settings.signing_secrets(), secure=settings.public_url.startswith("https://"))


def visitor(request: Request, service: CurrentService) -> Visitor:
    """Raises SignedOut, or Suspended."""
    session = sessions_of(service).open(request.cookies.get(SESSION_COOKIE, ""))
    if session is not None:
        with service.database.read() as rows:
            found = None if browser_sessions.ended(rows, [session.id]) else _with_key(service, rows, session)
        if found is not None:
            request.state.visitor = found
            origin.caller_is(Subject.session(session.id, session.stands_on))
            tell(tenant=found.tenant_id, key_id=session.stands_on)
            service.rates.admit(found.tenant_id)
            return found
    raise SignedOut("You are not signed in.", way_out="Sign in again.")


def _with_key(service: Service, rows: Rows, session: Session) -> Visitor | None:
    found = keys.active_key_and_tenant(rows, session.stands_on)
    if found is None:
        return _as_member(rows, session)
    key, _ = found
    service.doorkeeper.note_id(key.id)
    return Visitor(_by_session(caller_of(*found), session), key.name, f"API key {key.prefix}…", session)


def _as_member(rows: Rows, session: Session) -> Visitor | None:
    membership = members.standing_one(rows, session.stands_on)
    if membership is None or membership.person is None:
        return None
    tenant, person = membership.tenant, membership.person
    caller = in_tenant(tenant, membership.id, rights_of(membership.role))
    described = f"{membership.role} of {tenant.name}"
    return Visitor(_by_session(caller, session), person.name, described, session, person.id)


def _by_session(caller: Caller, session: Session) -> Caller:
    return replace(caller, session_id=session.id, expires=session.expires)


def visitor_of(request: Request) -> Visitor | None:
    """Who was found to be signed in, for the page that says what went wrong then."""
    return getattr(request.state, "visitor", None)


SignedIn = Annotated[Visitor, Depends(visitor)]


def reading_visitor(someone: SignedIn) -> Visitor:
    """Raises MissingScope where the session's key is not for looking."""
    require(Scope.MODELS_READ, someone.caller.rights)
    return someone


def entitled(someone: Visitor, scope: Scope) -> Visitor:
    """Raises MissingScope for a key that lacks the scope, MayOnlyLook for a person whose role does."""
    if someone.person_id is not None and scope not in someone.caller.rights:
        raise MayOnlyLook(
            f"As {someone.described} you may not do this: it takes {scope}.", way_out="Ask an admin of the tenant."
        )
    require(scope, someone.caller.rights)
    return someone


def looking_with(scope: Scope) -> Callable[[Visitor], Visitor]:
    """What a page depends on that only those may see who have the scope."""

    def check(someone: SignedIn) -> Visitor:
        return entitled(someone, scope)

    return check


def sending_with(scope: Scope) -> Callable[[Visitor], Visitor]:
    """What a form depends on that only those may send who have the scope."""

    def check(someone: SendingVisitor) -> Visitor:
        return entitled(someone, scope)

    return check


CurrentVisitor = Annotated[Visitor, Depends(reading_visitor)]
CsrfToken = Annotated[str, Form(max_length=200)]


def sending_visitor(request: Request, service: CurrentService, someone: SignedIn, csrf: CsrfToken = "") -> Visitor:
    """The visitor who sent a form; ForeignForm if the form was not on one of this session's pages."""
    if not sessions_of(service).is_genuine(csrf, request.cookies.get(SESSION_COOKIE)):
        raise ForeignForm("This form does not belong to your session.", way_out=STALE_FORM)
    return someone


SendingVisitor = Annotated[Visitor, Depends(sending_visitor)]


ActingVisitor = Annotated[Visitor, Depends(sending_with(Scope.VARIANTS_WRITE))]
Administrator = Annotated[Visitor, Depends(looking_with(Scope.ADMIN))]
SendingAdministrator = Annotated[Visitor, Depends(sending_with(Scope.ADMIN))]
RegistrarLooking = Annotated[Visitor, Depends(looking_with(Scope.MODELS_WRITE))]
RegisteringVisitor = Annotated[Visitor, Depends(sending_with(Scope.MODELS_WRITE))]
