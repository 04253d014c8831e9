"""Absolute addresses in answers, and upload links that carry their own authorisation."""

from __future__ import annotations

import time
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request

from publisher.hub.faults import Forbidden
from publisher.hub.names import RepositoryId
from publisher.signing.keyring import Keyring
from publisher.signing.signer import Signer, unhex

# Long enough for a shard of 50 GB over a slow line, since the link is checked when the upload starts.
_LIFETIME_SECONDS = 6 * 3600
_NEW_LINK = "Start the upload again, that asks for a new one."


def hub_url(request: Request, public_url: str | None) -> str:
    """Address of the Hub without a trailing slash: the service's public address, if set, plus where it is mounted."""
    root_path: str = request.scope.get("root_path", "")
    if public_url is None:
        return f"{request.url.scheme}://{request.url.netloc}{root_path}".rstrip("/")
    mounted_at = root_path.removeprefix(request.scope.get("app_root_path", ""))
    return public_url.rstrip("/") + mounted_at


def repository_url(hub: str, id: RepositoryId) -> str:
    """Address of a repository of the Hub at `hub`, in a form from which every client reads it is a model of this id.

    Before 2.0, huggingface_hub takes the last part of an address's path for the type of repository: under
    `http://host/hub` that has to be `models`, at the root of a host there may be none.
    """
    return f"{hub}/models/{id}" if urlsplit(hub).path.strip("/") else f"{hub}/{id}"


class UploadLinks:
    """Signs and checks links that let anybody who holds one upload exactly one blob to one repository.

    Clients send uploads without their token, so the link itself is the permission. It says which sha256, how many
    bytes, for which repository, until when.
    """

    def __init__(self, secret: bytes | Keyring) -> None:
        self._signer = Signer(secret, "hub upload link")

    def path(self, id: RepositoryId, sha256: str, size: int, *, expires: int | None = None) -> str:
        """Path and query below the Hub. `expires` is in seconds since 1970; six hours from now by default."""
        until = int(time.time()) + _LIFETIME_SECONDS if expires is None else expires
        signature = self._signer.sign(_claims(id, sha256, size, until)).hex()
        query = {"size": size, "expires": until, "signature": signature}
        return f"/api/uploads/{id}/{sha256}?{urlencode(query)}"

    def check(self, id: RepositoryId, sha256: str, *, size: int, expires: int, signature: str) -> None:
        """Raises Forbidden for a link that was changed, made for something else, or has expired."""
        if not self._signer.is_genuine(_claims(id, sha256, size, expires), unhex(signature)):
            raise Forbidden("This upload link is not genuine.", way_out=_NEW_LINK)
        if expires < time.time():
            raise Forbidden("This upload link has expired.", way_out=_NEW_LINK)


def _claims(id: RepositoryId, sha256: str, size: int, expires: int) -> str:
    return f"{id}\n{sha256}\n{size}\n{expires}"
