"""Downloading files, whole or by range."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from publisher.hub.access import Readable, Segment
from publisher.hub.repositories import StoredFile

router = APIRouter()


class _LargeChunks(FileResponse):
    # 1 MiB: each chunk is a hop to a thread, 64 KiB of Starlette's default costs half of the speed.
    chunk_size = 1024**2


@router.api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
def download(request: Request, repository: Readable, revision: Segment, path: Segment) -> Response:
    file = repository.resolve(revision, path)
    headers = _headers(file)
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return _LargeChunks(
        file.path,
        headers=headers,
        media_type="application/octet-stream",
        filename=file.name.rpartition("/")[-1],
    )


def _headers(file: StoredFile) -> dict[str, str]:
    headers = {
        "X-Repo-Commit": file.commit,
        "ETag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
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
