"""The address that assets are served at."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from publisher.dashboard import asset_files
from publisher.dashboard.answers import PageRoute
from publisher.dashboard.packing import takes_gzip
from publisher.errors import NotFound

router = APIRouter(route_class=PageRoute)


@router.get("/assets/{name}")
def asset(name: str, request: Request) -> Response:
    if name not in asset_files.names():
        raise NotFound(f"There is no asset {name!r}.")
    found = asset_files.asset(name)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if not takes_gzip(request):
        return Response(found.content, media_type=found.media_type, headers=headers)
    return Response(found.packed, media_type=found.media_type, headers=headers | {"Content-Encoding": "gzip"})
