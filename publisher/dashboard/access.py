"""Who looks at a page: the session's key, checked against the database on every request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Form, Request

from publisher.api.authentication import Caller, caller_of
from publisher.api.service import CurrentService, Service
from publisher.dashboard.session import SESSION_COOKIE, Session, Sessions
from publisher.errors import RequestFault, Unauthorized
from publisher.keys.scopes import Scope, require
from publisher.store import browser_sessions, keys

STALE_FORM = "Open the page again and repeat what you did there."


class SignedOut(Unauthorized):
    """No session, or it expired or was ended, or its key was revoked: the way out is the sign-in page."""


class ForeignForm(RequestFault):
    """A form without this session's CSRF token."""

    status = 403
    slug = "foreign-form"
    title = "Form not accepted"


@dataclass(frozen=True)
class Visitor:
    """Who `session` stands for."""

    caller: Caller
    key_name: str
    key_prefix: str
    session: Session

    @property
    def tenant_id(self) -> str:
        return self.caller.tenant_id

    @property
    def may_act(self) -> bool:
        """Whether its key may do anything to jobs: pages offer it only then."""
        return Scope.VARIANTS_WRITE in self.caller.rights

    @property
    def key_id(self) -> str:
        """Of the key that the session was begun with."""
        return self.session.key_id

    @property
    def csrf(self) -> str:
        """What the forms on this visitor's pages carry."""
        return self.session.csrf


def sessions_of(service: Service) -> Sessions:
    settings = service.settings
    return Sessions(settings.secret_bytes(), secure=settings.public_url.startswith("https://"))


def visitor(request: Request, service: CurrentService) -> Visitor:
    """Raises SignedOut, or Suspended."""
    session = sessions_of(service).open(request.cookies.get(SESSION_COOKIE, ""))
    if session is not None:
        with service.database.read() as rows:
            found = keys.active_key_and_tenant(rows, session.key_id)
            if found is not None and not browser_sessions.ended(rows, [session.id]):
                service.doorkeeper.note_id(session.key_id)
                caller = replace(caller_of(*found), session_id=session.id, expires=session.expires)
                someone = Visitor(caller, found[0].name, found[0].prefix, session)
                request.state.visitor = someone
                return someone
    raise SignedOut("You are not signed in.", way_out="Sign in with an API key.")


def visitor_of(request: Request) -> Visitor | None:
    """Who was found to be signed in, for the page that says what went wrong then."""
    return getattr(request.state, "visitor", None)


SignedIn = Annotated[Visitor, Depends(visitor)]


def reading_visitor(someone: SignedIn) -> Visitor:
    """Raises MissingScope where the session's key is not for looking."""
    require(Scope.MODELS_READ, someone.caller.rights)
    return someone


CurrentVisitor = Annotated[Visitor, Depends(reading_visitor)]
CsrfToken = Annotated[str, Form(max_length=200)]


def sending_visitor(request: Request, service: CurrentService, someone: SignedIn, csrf: CsrfToken = "") -> Visitor:
    """The visitor who sent a form; ForeignForm if the form was not on one of this session's pages."""
    if not sessions_of(service).is_genuine(csrf, request.cookies.get(SESSION_COOKIE)):
        raise ForeignForm("This form does not belong to your session.", way_out=STALE_FORM)
    return someone


SendingVisitor = Annotated[Visitor, Depends(sending_visitor)]


def acting_visitor(someone: SendingVisitor) -> Visitor:
    """The sender of a form that does something to a job. Raises MissingScope where its key is not for that."""
    require(Scope.VARIANTS_WRITE, someone.caller.rights)
    return someone


ActingVisitor = Annotated[Visitor, Depends(acting_visitor)]
