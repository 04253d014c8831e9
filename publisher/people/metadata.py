"""What a provider of identities says about itself: its discovery document and its keys, kept for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from authlib.integrations.httpx_client import OAuth2Client
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from publisher.people.addresses import is_safe
from publisher.people.calls import asked, read_object

#: seconds for which document and keys count
KEPT = 3600.0
#: seconds between two looks for keys that a token names and nobody knows: whoever makes up tokens makes no more calls
BETWEEN_LOOKS = 30.0


@dataclass(frozen=True)
class Metadata:
    """OpenID Connect Discovery 1.0, section 3: what of it is used here."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    token_auth_methods: tuple[str, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any], issuer: str) -> Metadata:
        """Raises ValueError for a document of another issuer or with an address that nothing secret may go to."""
        if document.get("issuer") != issuer:
            raise ValueError(f"it says that it is {document.get('issuer')!r}, and PUBLISHER_OIDC_ISSUER is {issuer!r}")
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return cls(
            authorization_endpoint=_address(document, "authorization_endpoint"),
            token_endpoint=_address(document, "token_endpoint"),
            jwks_uri=_address(document, "jwks_uri"),
            userinfo_endpoint=_optional(document, "userinfo_endpoint"),
            end_session_endpoint=_optional(document, "end_session_endpoint"),
            token_auth_methods=tuple(map(str, methods)),
        )


def _address(document: Mapping[str, Any], name: str) -> str:
    url = document.get(name)
    if not isinstance(url, str) or not is_safe(url):
        raise ValueError(f"its {name} {url!r} is no https address")
    return url


def _optional(document: Mapping[str, Any], name: str) -> str | None:
    return _address(document, name) if document.get(name) is not None else None


class Directory:
    """One provider's metadata and keys, for all threads of a process."""

    def __init__(self, issuer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._clock = issuer, clock
        self._lock = threading.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._looked_at = -BETWEEN_LOOKS

    def metadata(self, client: OAuth2Client) -> Metadata:
        """Raises ProviderAway."""
        kept = self._metadata
        if kept is None or self._clock() - kept[0] > KEPT:
            address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            kept = self._clock(), asked(self._issuer, "its discovery document", lambda: self._read(client, address))
            self._metadata = kept
        return kept[1]

    def known(self) -> Metadata | None:
        """What was read before, however long ago."""
        return None if self._metadata is None else self._metadata[1]

    def keys(self, client: OAuth2Client) -> KeySet:
        """Those that its tokens are signed with. Raises ProviderAway."""
        kept = self._keys
        if kept is None or self._clock() - kept[0] > KEPT:
            kept = self._fetch_keys(client)
        return kept[1]

    def newer_keys(self, client: OAuth2Client) -> KeySet | None:
        """Fetched again, since a token does not fit those that are known; None if that was done a moment ago."""
        with self._lock:
            if self._clock() - self._looked_at < BETWEEN_LOOKS:
                return None
            self._looked_at = self._clock()
        return self._fetch_keys(client)[1]

    def _fetch_keys(self, client: OAuth2Client) -> tuple[float, KeySet]:
        uri = self.metadata(client).jwks_uri
        self._keys = self._clock(), asked(self._issuer, "its keys", lambda: _read_keys(client, uri))
        return self._keys

    def _read(self, client: OAuth2Client, address: str) -> Metadata:
        return Metadata.read(read_object(client.request("GET", address, withhold_token=True)), self._issuer)


def _read_keys(client: OAuth2Client, uri: str) -> KeySet:
    found = read_object(client.request("GET", uri, withhold_token=True))
    try:
        return KeySet.import_key_set({"keys": found.get("keys") or []})
    except (JoseError, TypeError, KeyError) as error:  # what a key lacks, or has of another kind
        raise ValueError(f"its keys cannot be read: {error}") from None
