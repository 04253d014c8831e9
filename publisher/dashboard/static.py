"""The address that assets are served at."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse

from publisher.dashboard.answers import PageRoute
from publisher.dashboard.asset_files import FOLDER, MEDIA_TYPES
from publisher.errors import NotFound

router = APIRouter(route_class=PageRoute)


@router.get("/assets/{name}")
def asset(name: str) -> FileResponse:
    if name not in MEDIA_TYPES:
        raise NotFound(f"There is no asset {name!r}.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return FileResponse(FOLDER / name, media_type=MEDIA_TYPES[name], headers=headers)
