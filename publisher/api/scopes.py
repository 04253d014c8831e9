"""Which scope a call needs: one table, and what is not in it is not let in."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from publisher.api.authentication import CurrentCaller
from publisher.keys.scopes import Scope, require

#: (tag of the route, method) → the scope that a key must have, None: any key will do; HEAD is as GET
NEEDED: Mapping[tuple[str, str], Scope | None] = {
    ("base models", "GET"): Scope.MODELS_READ,
    ("base models", "POST"): Scope.MODELS_WRITE,
    ("base models", "PATCH"): Scope.MODELS_WRITE,
    ("base models", "DELETE"): Scope.MODELS_WRITE,
    ("corpora", "GET"): Scope.MODELS_READ,
    ("corpora", "POST"): Scope.MODELS_WRITE,
    ("corpora", "PATCH"): Scope.MODELS_WRITE,
    ("corpora", "DELETE"): Scope.MODELS_WRITE,
    ("families", "GET"): Scope.MODELS_READ,
    # nothing is made
    ("plans", "POST"): Scope.MODELS_READ,
    ("variants", "GET"): Scope.MODELS_READ,
    ("variants", "POST"): Scope.VARIANTS_WRITE,
    ("variants", "PATCH"): Scope.VARIANTS_WRITE,
    ("variants", "DELETE"): Scope.VARIANTS_WRITE,
    ("sweeps", "GET"): Scope.MODELS_READ,
    ("sweeps", "POST"): Scope.VARIANTS_WRITE,
    ("sweeps", "DELETE"): Scope.VARIANTS_WRITE,
    ("jobs", "GET"): Scope.MODELS_READ,
    ("jobs", "POST"): Scope.VARIANTS_WRITE,
    ("jobs", "DELETE"): Scope.VARIANTS_WRITE,
    ("workers", "GET"): Scope.MODELS_READ,
    ("API keys", "GET"): Scope.ADMIN,
    ("API keys", "POST"): Scope.ADMIN,
    # a key revokes itself whatever it may do; revoke_api_key asks for admin where it is another
    ("API keys", "DELETE"): None,
    # whose key it is, every key may know
    ("me", "GET"): None,
    ("webhooks", "GET"): Scope.ADMIN,
    ("webhooks", "POST"): Scope.ADMIN,
    ("webhooks", "PATCH"): Scope.ADMIN,
    ("webhooks", "DELETE"): Scope.ADMIN,
    ("hub credentials", "GET"): Scope.ADMIN,
    ("hub credentials", "PUT"): Scope.ADMIN,
    ("hub credentials", "DELETE"): Scope.ADMIN,
    ("audit", "GET"): Scope.ADMIN,
    ("quotas", "GET"): Scope.MODELS_READ,
}


async def require_scope(request: Request, caller: CurrentCaller) -> None:
    """Raises MissingScope. After the key, which is asked for first."""
    scope = scope_of(request.scope["route"], request.method)
    if scope is not None:
        require(scope, caller.rights)


def scope_of(route: APIRoute, method: str) -> Scope | None:
    return NEEDED[str(route.tags[0]), _read_as(method)]


def _read_as(method: str) -> str:
    return "GET" if method == "HEAD" else method


def refuse_unlisted(app: FastAPI) -> None:
    """Raises RuntimeError for a route under /v1 that says no scope or does not ask for it: nobody is let in by
    accident."""
    for route in iter_route_contexts(app.routes):
        if not (route.path or "").startswith("/v1/"):
            continue
        if not _asks(route.dependant):
            raise RuntimeError(f"{route.path} does not depend on publisher.api.scopes.require_scope")
        tags = [str(tag) for tag in route.tags]
        for method in sorted(route.methods or ()):
            if not tags or (tags[0], _read_as(method)) not in NEEDED:
                raise RuntimeError(f"{method} {route.path} of {tags} has no scope in publisher.api.scopes.NEEDED")


def _asks(dependant: Dependant) -> bool:
    return any(each.call is require_scope or _asks(each) for each in dependant.dependencies)
