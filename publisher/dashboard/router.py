"""The dashboard: pages for people, signed in by a cookie, over the same tables as the API."""

from __future__ import annotations

from fastapi import APIRouter, Response

from publisher.dashboard import (
    api_keys,
    audit,
    base_models,
    compare,
    corpora,
    families,
    hub_credentials,
    job_page,
    jobs,
    members,
    oidc,
    order,
    overview,
    quotas,
    repositories,
    settings,
    sign_in,
    static,
    sweeps,
    tenants,
    variant_deletion,
    variants,
    webhooks,
)
from publisher.dashboard.access import SignedIn
from publisher.dashboard.answers import PageRoute, see_other
from publisher.dashboard.navigation import sections

#: bytes; the largest form holds a key and an address
MAX_FORM = 16_384


def create_dashboard() -> APIRouter:
    """Routes to include in an application that keeps a publisher.api.service.Service as `app.state.service`."""
    router = APIRouter(include_in_schema=False, max_body_size=MAX_FORM, route_class=PageRoute)
    router.add_api_route("/", start, methods=["GET"])
    # what is new has an address among those of what is there: it comes first
    results = (order, variants, variant_deletion, compare, sweeps)
    for resource in (
        static,
        sign_in,
        oidc,
        tenants,
        overview,
        jobs,
        job_page,
        base_models,
        corpora,
        families,
        *results,
    ):
        router.include_router(resource.router)
    for page in (settings, api_keys, webhooks, hub_credentials, repositories, members, quotas, audit):
        router.include_router(page.router)
    router.include_router(jobs.live)
    return router


def start(visitor: SignedIn) -> Response:
    """The first page that the visitor may open: a key that only reads a Hub has no overview."""
    first = next(iter(sections(visitor)), None)
    return see_other("/overview" if first is None else first.address)
