"""Uploading large files: which ones, where to, and the bytes themselves."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterable, AsyncIterator

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from publisher.errors import OutOfDisk
from publisher.hub.access import CurrentHub, Hub, Segment, Writable
from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest, UploadMismatch
from publisher.hub.names import RepositoryId, check_new_path
from publisher.hub.protocol import LargeBatch, LargeObject, Preupload, Preuploaded, Sha256
from publisher.hub.repositories import Repository
from publisher.hub.uploads import MAX_INLINE_BYTES, inline_limit, refuse_pull_request, upload_mode

router = APIRouter()
_PIECE_BYTES = 1024**2
# The link says how many bytes may come; a limit of the application that mounts the Hub must not stop them.
_NO_LIMIT = 2**62


@router.post("/api/models/{namespace}/{name}/preupload/{revision}", response_model_exclude_none=True)
def preupload(
    body: Preupload, request: Request, repository: Writable, revision: Segment, create_pr: str = ""
) -> Preuploaded:
    """Refuses paths and revisions that the commit would refuse, before gigabytes are sent."""
    refuse_pull_request(create_pr)
    committed = repository.commit_at(revision).files
    left, limit, modes = MAX_INLINE_BYTES, inline_limit(request.headers.get("user-agent", "")), {}
    # Small ones first, as many as fit: what does not is uploaded on its own.
    for file in sorted(body.files, key=lambda file: file.size):
        known = _whole(repository, committed.get(check_new_path(file.path)))
        mode = modes[file.path] = upload_mode(file, known, inline_bytes=min(limit, left))
        left -= file.size if mode.upload_mode == "regular" else 0
    return Preuploaded(files=[modes[file.path] for file in body.files])


def _whole(repository: Repository, committed: CommittedFile | None) -> CommittedFile | None:
    """None for what is damaged, so that clients send it again instead of leaving it out as unchanged."""
    if committed is None or repository.blobs.fault(committed.sha256, committed.size) is not None:
        return None
    return committed


@router.post("/{namespace}/{name}.git/info/lfs/objects/batch")
def batch(body: LargeBatch, request: Request, hub: CurrentHub, repository: Writable) -> JSONResponse:
    """An upload link for each object that this repository does not have yet."""
    if body.operation != "upload":
        raise BadRequest(
            f"LFS operation {body.operation!r} is not offered.", field="operation", way_out="Download by /resolve/."
        )
    missing = [item for item in body.objects if repository.large_file(item.oid) is None]
    _require_space(hub, sum(item.size for item in missing))
    repository.require_room({item.oid: item.size for item in missing})
    links = {item.oid: f"{hub.url(request)}{hub.links.path(repository.id, item.oid, item.size)}" for item in missing}
    return JSONResponse(
        {"transfer": "basic", "objects": [_batch_entry(item, links.get(item.oid)) for item in body.objects]},
        media_type="application/vnd.git-lfs+json",
    )


def _batch_entry(item: LargeObject, link: str | None) -> dict[str, object]:
    entry: dict[str, object] = {"oid": item.oid, "size": item.size}
    # Without actions, the client takes the object as already there.
    return entry if link is None else {**entry, "authenticated": True, "actions": {"upload": {"href": link}}}


def _require_space(hub: Hub, size: int) -> None:
    free = shutil.disk_usage(hub.storage.root).free
    if size > free:
        raise OutOfDisk(
            f"The Hub has {free} bytes free, the upload needs {size}.", way_out="Free space, then try again."
        )


@router.put("/api/uploads/{namespace}/{name}/{sha256}", max_body_size=_NO_LIMIT)
async def upload(
    *,
    request: Request,
    hub: CurrentHub,
    namespace: Segment,
    name: Segment,
    sha256: Sha256,
    size: int,
    expires: int,
    signature: str,
) -> dict[str, bool]:
    """Needs no token: the link is the permission. Nothing is kept unless size and sha256 are as announced."""
    id = RepositoryId.parse(f"{namespace}/{name}")
    hub.links.check(id, sha256, size=size, expires=expires, signature=signature)
    repository = await run_in_threadpool(hub.storage.open_repository, id)
    _check_length(request, size)
    await run_in_threadpool(repository.admit_upload)
    taken = await run_in_threadpool(repository.take_room, {sha256: size})
    try:
        await _receive(repository, request.stream(), sha256, size)
        await run_in_threadpool(repository.add_large_object, sha256, size)
    except Exception:
        await run_in_threadpool(repository.give_room_back, taken)
        raise
    return {"success": True}


def _check_length(request: Request, size: int) -> None:
    announced = request.headers.get("content-length")
    if announced is not None and announced != str(size):
        raise UploadMismatch(f"The upload has {announced} bytes, its link is for {size}.")


async def _receive(repository: Repository, stream: AsyncIterable[bytes], sha256: str, size: int) -> None:
    with repository.blobs.receive(sha256, size) as incoming:
        async for piece in in_pieces(stream):
            await run_in_threadpool(incoming.write, piece)
        await run_in_threadpool(incoming.finish)


async def in_pieces(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Gathers the network's small chunks, so that the hop to a thread is paid once per megabyte."""
    gathered = bytearray()
    async for chunk in stream:
        gathered += chunk
        if len(gathered) >= _PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
