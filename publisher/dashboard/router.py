"""The dashboard: pages for people, signed in by a cookie, over the same tables as the API."""

from __future__ import annotations

from fastapi import APIRouter, Response

from publisher.dashboard import base_models, corpora, families, jobs, oidc, order, sign_in, static, tenants, variants
from publisher.dashboard.answers import see_other

#: bytes; the largest form holds a key and an address
MAX_FORM = 16_384


def create_dashboard() -> APIRouter:
    """Routes to include in an application that keeps a publisher.api.service.Service as `app.state.service`."""
    router = APIRouter(include_in_schema=False, max_body_size=MAX_FORM)
    router.add_api_route("/", start, methods=["GET"])
    # what is new has an address among those of what is there: it comes first
    for resource in (static, sign_in, oidc, tenants, jobs, base_models, corpora, families, order, variants):
        router.include_router(resource.router)
    router.include_router(jobs.live)
    return router


def start() -> Response:
    return see_other("/jobs")
