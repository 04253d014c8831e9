"""Sign in with an API key, sign out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse

from publisher.api.service import CurrentService, Service
from publisher.dashboard.access import ActingVisitor, CsrfToken, sessions_of
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.session import SIGN_IN_COOKIE
from publisher.store import browser_sessions, keys
from publisher.store.audit import record
from publisher.store.models import ApiKey
from publisher.store.origin import Subject

START = "/jobs"
#: one message for every reason, so that nothing can be learned from it
WRONG_KEY = "This API key is wrong or revoked."
STALE = "This form was open for too long, or cookies are blocked. Please try again."

router = APIRouter(route_class=PageRoute)


@router.get("/login")
def form(request: Request, service: CurrentService, next: str = START) -> HTMLResponse:
    return _form(request, service, next)


@router.post("/login")
def sign_in(
    request: Request,
    service: CurrentService,
    key: Annotated[str, Form(max_length=500)] = "",
    next: Annotated[str, Form(max_length=2000)] = START,
    csrf: CsrfToken = "",
) -> Response:
    sessions = sessions_of(service)
    if not sessions.is_genuine(csrf, request.cookies.get(SIGN_IN_COOKIE)):
        return _form(request, service, next, problem=STALE, status=403)
    with service.database.read() as session:
        found = keys.find_key(session, key.strip())
    if found is None:
        return _form(request, service, next, problem=WRONG_KEY, status=401)
    response = see_other(_own_page(next))
    begin_session(service, response, found)
    return response


def begin_session(service: Service, response: Response, key: ApiKey) -> None:
    """Sign in, and say so in the audit log."""
    begun = sessions_of(service).begin(response, key.id)
    subject = Subject.session(begun.id, key.id)
    with service.database.write() as session:
        record(session, "session.begin", subject.id or "", tenant_id=key.tenant_id, related=key.id, by=subject)


@router.post("/logout")
def sign_out(service: CurrentService, visitor: ActingVisitor) -> Response:
    with service.database.write() as session:
        browser_sessions.end(session, visitor.session.id, visitor.session.expires)
        subject = Subject.session(visitor.session.id, visitor.key_id)
        record(
            session, "session.end", subject.id or "", tenant_id=visitor.tenant_id, related=visitor.key_id, by=subject
        )
    response = see_other("/login")
    sessions_of(service).end(response)
    return response


def _form(
    request: Request, service: Service, next: str, *, problem: str | None = None, status: int = 200
) -> HTMLResponse:
    sessions = sessions_of(service)
    cookie = sessions.sign_in_cookie(request)
    response = page("login.html", status=status, problem=problem, next=_own_page(next), csrf=sessions.csrf(cookie))
    sessions.offer(request, response, cookie)
    return response


def _own_page(address: str) -> str:
    """`address` if it is a path of this site: a sign-in must not lead to somebody else's."""
    parts = urlsplit(address)
    # browsers read a backslash as a slash, and `//host` as another site
    foreign = parts.scheme or parts.netloc or "\\" in address or not address.startswith("/")
    return START if foreign or address.startswith("//") or not address.isprintable() else address
