"""HTTP to a provider of identities: bounded in bytes and time, however it behaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

from publisher.errors import InfrastructureFault, RequestFault

Result = TypeVar("Result")

#: a discovery document has 2 to 6 KB, a token answer with many groups some tens
MAX_BYTES = 512 * 1024


class ProviderAway(InfrastructureFault):
    """The provider does not answer, or not as OpenID Connect says."""

    slug = "sign-in-unavailable"
    title = "Sign-in unavailable"


class SignInRefused(RequestFault):
    """The provider, or what it answered, does not let this person in."""

    status = 403
    slug = "sign-in-refused"
    title = "Sign-in refused"


class _Bounded(httpx2.SyncByteStream):
    """An answer's bytes, until there are too many of them or it is too late."""

    def __init__(self, inner: httpx2.SyncByteStream, deadline: float) -> None:
        self._inner, self._deadline = inner, deadline

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for chunk in self._inner:
            received += len(chunk)
            if received > MAX_BYTES:
                raise httpx2.ReadError(f"more than {MAX_BYTES} bytes")
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("too slow")
            yield chunk

    def close(self) -> None:
        self._inner.close()


def client(seconds: float, **registration: Any) -> OAuth2Client:
    """For one sign-in, which its calls together may take `seconds` for. Redirects are not followed: the secret and the
    code go where the operator said, or nowhere."""
    deadline = time.monotonic() + seconds

    def begin(request: httpx2.Request) -> None:
        if time.monotonic() > deadline:
            raise httpx2.ReadTimeout("too slow")

    def bound(response: httpx2.Response) -> None:
        # a few KB may unpack to gigabytes; nobody was asked for it
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.ReadError("a compressed answer")
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _Bounded(response.stream, deadline)

    calls = OAuth2Client(
        **registration,
        leeway=0,  # a token is used at once, however short its life
        timeout=seconds,
        follow_redirects=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        event_hooks={"request": [begin], "response": [bound]},
    )
    calls.register_compliance_hook("access_token_response", _token_answer)
    return calls


def _token_answer(response: httpx2.Response) -> httpx2.Response:
    """Raises ValueError for what the library would stumble over: it expects numbers of seconds."""
    found = json.loads(response.content)
    if isinstance(found, dict):
        for name in ("expires_in", "expires_at"):
            if not isinstance(found.get(name, 0), int | float | str | None):
                raise ValueError(f"{name} is no number")
    return response


def asked(issuer: str, what: str, call: Callable[[], Result]) -> Result:
    """What `call` returns. Raises ProviderAway, or SignInRefused if the provider says that the request is to blame."""
    try:
        return call()
    except OAuthError as error:
        said = error.error if str(error.error).isidentifier() else "an error"
        raise SignInRefused(f"{issuer} refused {what}: {said}.", way_out="Sign in again.") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ProviderAway(f"{issuer} did not answer as it should when asked for {what}: {why}.") from None


def read_object(response: httpx2.Response) -> dict[str, Any]:
    """A JSON object. Raises httpx2.HTTPStatusError or ValueError."""
    if response.status_code != 200:
        raise ValueError(f"HTTP {response.status_code}")
    found = json.loads(response.content)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found
