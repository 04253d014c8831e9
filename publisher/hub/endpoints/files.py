"""Downloading files, whole or by range."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from publisher.hub.access import Readable, Segment
from publisher.hub.repositories import StoredFile
from publisher.hub.sending import send_file

router = APIRouter()


@router.api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
def download(request: Request, repository: Readable, revision: Segment, path: Segment) -> Response:
    file = repository.resolve(revision, path)
    headers = _headers(file)
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return send_file(request, file.content, headers, file.name.rpartition("/")[-1])


def _headers(file: StoredFile) -> dict[str, str]:
    headers = {
        "X-Repo-Commit": file.commit,
        "ETag": f'"{file.etag}"',
        # Anybody may publish a page here, and it comes from the same origin as the dashboard.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if file.lfs:
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return headers


def _is_known(request: Request, etag: str) -> bool:
    """Whether If-None-Match names the file that would be sent."""
    known = [item.strip().removeprefix("W/") for item in request.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known
