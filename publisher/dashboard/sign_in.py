"""Sign in with an API key, sign out; publisher.dashboard.oidc signs people in."""

from __future__ import annotations

from typing import Annotated, cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse

from publisher.api.authentication import Caller, caller_of
from publisher.api.service import CurrentService, Service
from publisher.dashboard.access import CsrfToken, SendingVisitor, sessions_of
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.session import SIGN_IN_COOKIE
from publisher.keys.text import is_damaged
from publisher.people.provider import Provider
from publisher.store import browser_sessions
from publisher.store.audit import record
from publisher.store.origin import Subject
from publisher.store.tenants import Suspended

START = "/"
#: one message for every reason, so that nothing can be learned from it
WRONG_KEY = "This API key is wrong, revoked or expired."
STALE = "This form was open for too long, or cookies are blocked. Please try again."

router = APIRouter(route_class=PageRoute)


@router.get("/login")
def form(request: Request, service: CurrentService, next: str = START) -> HTMLResponse:
    return form_page(request, service, next)


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
        return form_page(request, service, next, problem=STALE, status=403)
    try:
        caller = _caller(service, key.strip())
    except Suspended as refusal:
        return form_page(request, service, next, problem=str(refusal), status=refusal.status)
    if caller is None:
        return form_page(request, service, next, problem=WRONG_KEY, status=401)
    response = see_other(own_page(next))
    begin_session(service, response, caller.key_id, caller.tenant_id)
    return response


def begin_session(
    service: Service, response: Response, stands_on: str, tenant_id: str, expires: float | None = None
) -> None:
    """Sign in with a key or a membership, and say so in the audit log; `expires`: as Sessions.begin has it."""
    begun = sessions_of(service).begin(response, stands_on, expires)
    subject = Subject.session(begun.id, stands_on)
    with service.database.write() as session:
        record(session, "session.begin", subject.id or "", tenant_id=tenant_id, related=stands_on, by=subject)


def _caller(service: Service, key: str) -> Caller | None:
    """None if the key opens nothing. Raises Suspended."""
    if is_damaged(key):
        return None
    with service.database.read() as session:
        found = service.doorkeeper.find(session, key)
    return None if found is None else caller_of(*found)


@router.post("/logout")
def sign_out(service: CurrentService, visitor: SendingVisitor) -> Response:
    with service.database.write() as session:
        browser_sessions.end(session, visitor.session.id, visitor.session.expires)
        stands_on = visitor.session.stands_on
        subject = Subject.session(visitor.session.id, stands_on)
        record(session, "session.end", subject.id or "", tenant_id=visitor.tenant_id, related=stands_on, by=subject)
    response = see_other("/login" if visitor.person_id is None else "/signed-out")
    sessions_of(service).end(response)
    return response


@router.get("/signed-out")
def signed_out(request: Request, service: CurrentService) -> HTMLResponse:
    """For people: a page of its own, since the browser would not follow the form that signs out to another site."""
    settings, provider = service.settings, cast(Provider | None, request.app.state.provider)
    url = None if provider is None else provider.sign_out_url(f"{settings.public_url}/login")
    return page("signed_out.html", sign_out_url=url, provider=settings.oidc_name)


def form_page(
    request: Request, service: Service, next: str, *, problem: str | None = None, status: int = 200
) -> HTMLResponse:
    sessions = sessions_of(service)
    cookie = sessions.sign_in_cookie(request)
    response = page(
        "login.html",
        status=status,
        problem=problem,
        next=own_page(next),
        csrf=sessions.csrf(cookie),
        provider=None if service.settings.oidc_issuer is None else service.settings.oidc_name,
    )
    sessions.offer(request, response, cookie)
    return response


def own_page(address: str) -> str:
    """`address` if it is a path of this site: a sign-in must not lead to somebody else's."""
    try:
        parts = urlsplit(address)
    except ValueError:  # `//[`: no address at all
        return START
    # browsers read a backslash as a slash, and `//host` as another site
    foreign = parts.scheme or parts.netloc or "\\" in address or not address.startswith("/")
    return START if foreign or address.startswith("//") or not address.isprintable() else address
