"""One call over as many tries as it may have: what becomes of each answer, said without sending anything."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

import httpx

from publisher import __version__
from publisher.client.call import Call
from publisher.errors import InfrastructureFault, PublisherError, RequestFault

T = TypeVar("T")

#: seconds to wait for a connection, and for each piece of an answer; a refused or silent address is told within five
TIMEOUT = httpx.Timeout(60, connect=4)
#: between two signs of life of a stream, which the service gives every 15 seconds
STREAM_TIMEOUT = httpx.Timeout(90, connect=4)

#: of proxies and of a service that is overloaded, restarting or without its database
_AWAY = frozenset({502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often a call is tried, at pauses (seconds) that double; a Retry-After longer than `longest` is not waited
    for."""

    tries: int = 4
    first: float = 0.25
    longest: float = 60

    def pause(self, tried: int, asked: float | None) -> float | None:
        """Before the next try, `asked` for by the service; None: there is none."""
        if tried >= self.tries or (asked or 0) > self.longest:
            return None
        return min(self.longest, max(asked or 0.0, self.first * 2.0 ** (tried - 1)))


RETRIES: Final = Retries()
NO_RETRIES: Final = Retries(tries=1)


class Exchange(Generic[T]):
    """After each try either `failed` or `answered` says how long to wait for the next one."""

    def __init__(self, url: str, call: Call[T], retries: Retries) -> None:
        self.call = call.once(secrets.token_urlsafe(16))
        self._url, self._retries = url, retries
        self._tried = 0
        self._may_have_arrived = False

    def failed(self, error: httpx.TransportError) -> float:
        """Seconds to the next try. Raises InfrastructureFault where there is none."""
        self._tried += 1
        refused = isinstance(error, httpx.ConnectError)
        self._may_have_arrived |= not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        waits = self.call.is_repeatable and not isinstance(error, httpx.ConnectTimeout)
        pause = self._retries.pause(self._tried, None) if refused or waits else None
        if pause is None:
            raise away(self._url, error) from error
        return pause

    def answered(self, response: httpx.Response) -> float | None:
        """Seconds to the next try; None: this is the answer."""
        self._tried += 1
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            return self._retries.pause(self._tried, retry_after(response))
        if response.status_code in _AWAY and self.call.is_repeatable:
            self._may_have_arrived = True
            return self._retries.pause(self._tried, retry_after(response))
        return None

    def answer(self, response: httpx.Response) -> T:
        """Raises what the problem details say."""
        if response.is_error and not self._was_done_before(response):
            raise problem(response)
        return parsed(response)  # type: ignore[no-any-return]

    def _was_done_before(self, response: httpx.Response) -> bool:
        """A repeated delete finds nothing, since the one before it arrived."""
        gone = response.status_code == HTTPStatus.NOT_FOUND
        return gone and self.call.method == "DELETE" and self._may_have_arrived


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "User-Agent": f"loram-publisher/{__version__}"}


def parsed(response: httpx.Response) -> Any:
    """JSON as it is, other text as text, None where there is nothing. InfrastructureFault for what is no service's."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "text/plain":
        return response.text
    if response.is_error or not response.content:  # a delete that was done before
        return None
    try:
        return response.json()
    except json.JSONDecodeError:
        raise InfrastructureFault(
            f"{origin(response)} answers {response.url.path} with {kind or 'something unnamed'}, not as a publisher's "
            "service does.",
            way_out="Is the address right?",
        ) from None


def away(url: str, error: httpx.TransportError) -> InfrastructureFault:
    why = str(error) or type(error).__name__
    return InfrastructureFault(
        f"{url} does not answer ({why}).", way_out="Is the service running? `publisher up` starts one."
    )


def problem(response: httpx.Response) -> PublisherError:
    """What problem details tell, with the status that they came with."""
    fault: type[PublisherError] = RequestFault if response.status_code < 500 else InfrastructureFault
    found = fault(_message(response))
    found.status, found.retry_after = response.status_code, retry_after(response)
    return found


def _message(response: httpx.Response) -> str:
    try:
        said = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        said = None
    if not isinstance(said, Mapping):  # of a proxy, not of the service
        return f"{response.request.method} {response.url.path}: HTTP {response.status_code}."
    errors = [f"{entry['field']}: {entry['message']}" for entry in said.get("errors", [])]
    message = "; ".join(errors) or str(said.get("detail") or said.get("title"))
    # a refused key is perhaps another service's
    return f"{origin(response)}: {message}" if response.status_code == HTTPStatus.UNAUTHORIZED else message


def origin(response: httpx.Response) -> str:
    return f"{response.url.scheme}://{response.url.netloc.decode()}"


def retry_after(response: httpx.Response) -> float | None:
    """Seconds; None: nothing was said, or a date, which only caches send."""
    said = response.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else None
