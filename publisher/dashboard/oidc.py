"""People sign in at a provider of identities (OpenID Connect) and come back to a session that stands on membership."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from publisher.api.outside import CurrentOutside, Outside
from publisher.api.service import CurrentService, Service
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.attempts import PATH, Attempts, Begun
from publisher.dashboard.sign_in import STALE, START, begin_session, form_page, own_page
from publisher.errors import NotFound, PublisherError
from publisher.people.identity import Identity
from publisher.people.provider import Attempt, Provider, Registration
from publisher.people.roles import Role
from publisher.people.rules import granted
from publisher.settings import Settings
from publisher.store import members
from publisher.store.audit import record
from publisher.store.models import Membership

Answer = TypeVar("Answer")

CALLBACK = f"{PATH}/callback"
#: what a provider answers where the person, not the service, said no (OpenID Connect Core, section 3.1.2.6)
_REFUSALS = {"access_denied", "login_required", "consent_required", "interaction_required"}

router = APIRouter(route_class=PageRoute)


def create_provider(settings: Settings) -> Provider | None:
    """None where people sign in with keys alone."""
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    registration = Registration(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        scopes=settings.oidc_scopes,
        redirect_uri=f"{settings.public_url}{CALLBACK}",
        seconds=settings.oidc_seconds,
    )
    return Provider(registration, {rule.claim for rule in settings.oidc_rules if rule.claim is not None})


def current_provider(request: Request) -> Provider:
    """Raises NotFound where there is none."""
    provider = cast(Provider | None, request.app.state.provider)
    if provider is None:
        raise NotFound("People sign in with API keys here.", way_out="Open /login.")
    return provider


@dataclass(frozen=True)
class Door:
    """What letting somebody in takes."""

    service: Service
    outside: Outside
    provider: Provider

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """What the provider says. Raises what `question` does, and Busy, TooManyAtOnce or NoAnswer."""
        return await self.outside.sign_ins.run("people", self.provider.issuer, question)

    @property
    def attempts(self) -> Attempts:
        settings = self.service.settings
        return Attempts(settings.signing_secrets(), secure=settings.public_url.startswith("https://"))


def _door(
    service: CurrentService, outside: CurrentOutside, provider: Annotated[Provider, Depends(current_provider)]
) -> Door:
    return Door(service, outside, provider)


CurrentDoor = Annotated[Door, Depends(_door)]


class Returned(BaseModel):
    """What comes back in the address. Providers add more, which is not read; some codes have thousands of letters."""

    state: str = Field(default="", max_length=200)
    code: str = Field(default="", max_length=8000)
    error: str = Field(default="", max_length=8000)
    iss: str = Field(default="", max_length=2000)


@router.get(PATH)
async def go(request: Request, door: CurrentDoor, next: str = START) -> Response:
    """To the provider. A link, not a form: the browser would not follow a form to another site."""
    begun = Begun(Attempt.begin(), own_page(next))
    try:
        url = await door.ask(lambda: door.provider.authorization_url(begun.attempt))
    except PublisherError as fault:
        return _refused(request, door, fault, begun.next)
    response = see_other(url)
    door.attempts.keep(response, begun)
    return response


@router.get(CALLBACK)
async def come_back(request: Request, door: CurrentDoor, returned: Annotated[Returned, Query()]) -> Response:
    """From the provider, with a code or an error."""
    begun = door.attempts.find(request, returned.state)
    # RFC 9207: an answer of another provider than the one that was asked
    if begun is None or (returned.iss and returned.iss != door.provider.issuer):
        return form_page(request, door.service, START, problem=STALE, status=403)
    response = await _answer(request, door, begun, returned)
    door.attempts.forget(response, returned.state)
    return response


async def _answer(request: Request, door: Door, begun: Begun, returned: Returned) -> Response:
    if returned.error or not returned.code:
        problem = _said(door.service.settings.oidc_name, returned.error)
        return form_page(request, door.service, begun.next, problem=problem, status=403)
    try:
        someone = await door.ask(lambda: door.provider.identify(begun.attempt, returned.code))
    except PublisherError as fault:
        return _refused(request, door, fault, begun.next)
    memberships = await run_in_threadpool(_sign_in, door.service, someone)
    if not memberships:
        return _stranger(door.service, someone)
    return await run_in_threadpool(_let_in, door.service, memberships, begun.next)


def _stranger(service: Service, someone: Identity) -> HTMLResponse:
    settings = service.settings
    return page("no_membership.html", status=403, someone=someone, ask=settings.oidc_help, provider=settings.oidc_name)


def _sign_in(service: Service, someone: Identity) -> list[Membership]:
    by_rule = granted(service.settings.oidc_rules, someone)
    try:
        return _write_sign_in(service, someone, by_rule)
    except IntegrityError:  # the same person, in two tabs at once: the other one has made the rows
        return _write_sign_in(service, someone, by_rule)


def _write_sign_in(service: Service, someone: Identity, by_rule: dict[str, Role]) -> list[Membership]:
    with service.database.write() as session:
        found = members.sign_in(session, someone, by_rule)
        if found:
            members.use(session, found[0])
        else:  # the provider vouches for who it is: nobody fills the log with anybody's names
            record(session, "session.refuse", someone.subject, tenant_id=None, email=someone.email)
        return found


def _let_in(service: Service, memberships: list[Membership], next: str) -> HTMLResponse:
    """By a page of this site: on the way from another one the browser would keep the session's strict cookie back."""
    target = next if len(memberships) == 1 else f"/tenants?{urlencode({'next': next})}"
    response = page("arrived.html", target=target)
    begin_session(service, response, memberships[0].id, memberships[0].tenant_id)
    return response


def _refused(request: Request, door: Door, fault: PublisherError, next: str) -> HTMLResponse:
    return form_page(request, door.service, next, problem=str(fault), status=fault.status)


def _said(name: str, error: str) -> str:
    """Only words of the standard: the rest of the address may be anybody's."""
    return f"{name} says: {error}." if error in _REFUSALS else f"{name} did not let you in."
