"""The embedded Hub as an application to mount: what `huggingface_hub` and `transformers` expect of an HF_ENDPOINT."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from publisher.hub.access import Hub
from publisher.hub.answers import add_handlers
from publisher.hub.endpoints import accounts, commits, files, models, references, repositories, trees, uploads, xet
from publisher.hub.links import UploadLinks
from publisher.hub.middleware import EncodedSegments, UnloggedSignatures
from publisher.hub.owner import Owner
from publisher.hub.storage import HubStorage
from publisher.signing.keyring import Keyring

# For bodies that are read into memory; commits and uploads are streamed and have limits of their own.
_MAX_BODY_BYTES = 16 * 1024**2


def create_hub(
    storage: HubStorage,
    *,
    authenticate: Callable[[str], Owner | None],
    secret: bytes | Keyring,
    public_url: str | None = None,
) -> FastAPI:
    """An application to mount, usually at "/hub".

    `authenticate` gets the bearer token and says whose it is, or None; it runs in a thread and may block.
    `secret` signs upload links: the same in all processes that serve this storage, at least 16 bytes.
    `public_url` is the service's address as clients see it, without the mount path; by default links have the
    address that the request came to.
    """
    shortest = min(len(each.value) for each in Keyring.of(secret))
    if shortest < 16:
        raise ValueError(f"The Hub's secret has {shortest} bytes; use at least 16 random ones.")
    app = FastAPI(title="Embedded Hub", openapi_url=None, redirect_slashes=False, max_body_size=_MAX_BODY_BYTES)
    app.state.hub = Hub(storage, authenticate, UploadLinks(secret), public_url)
    app.add_middleware(EncodedSegments)
    app.add_middleware(UnloggedSignatures)
    add_handlers(app)
    for resource in (accounts, repositories, references, commits, trees, xet, uploads, files, models):
        app.include_router(resource.router)
    return app
