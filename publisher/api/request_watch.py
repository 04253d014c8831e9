"""Each request as those see it who run the service: a line in the log that says who asked what and how it went, and the
numbers of all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from publisher.hub.answer_start import at_start
from publisher.logs import fields
from publisher.monitoring.process import HttpMetrics
from publisher.store.origin import current_request_id

_logger = logging.getLogger(__name__)

#: asked every few seconds by machines: told at level debug alone, and in no trace
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: ids in a path that a line names
_NAMED = {"job_": "job", "var_": "variant"}


@dataclass
class Watched:
    """A request and its answer. `route` is the template of its path, known when it was found; `seconds` until the first
    byte of the answer: how long the rest takes is the network's doing, and an event stream has no end."""

    scope: Scope
    begun: float = field(default_factory=time.perf_counter)
    status: int | None = None
    seconds: float | None = None

    @property
    def method(self) -> str:
        """One of the few that there are: anybody may invent more."""
        method = str(self.scope["method"])
        return method if method in _METHODS else "OTHER"

    @property
    def route(self) -> str:
        """`/v1/jobs/{id}`; `none` for a path that there is not."""
        template = getattr(self.scope.get("route"), "path", None)
        return "none" if template is None else f"{self._mounted_at}{template}"

    @property
    def _mounted_at(self) -> str:
        before = str(self.scope.get("app_root_path", ""))
        return str(self.scope.get("root_path", "")).removeprefix(before)

    def answered(self, status: int) -> None:
        self.status, self.seconds = status, time.perf_counter() - self.begun


class RequestWatch:
    """Goes around everything but what gives a request its id. `tell_line`: whether access lines are wanted."""

    def __init__(self, app: ASGIApp, *, metrics: HttpMetrics, tell_line: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._tell_line = tell_line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # not undone at the end: what the server itself says of a request that broke is about this one, too
        fields.begin(request_id=current_request_id.get())
        watched = Watched(scope)
        self._metrics.began()
        try:
            await self._app(scope, receive, at_start(send, lambda message: watched.answered(message["status"])))
        except Exception:
            if watched.status is None:  # the server answers it, outside of this
                watched.answered(500)
            raise
        finally:
            self._metrics.ended(watched.method, watched.route, watched.status, watched.seconds)
            self._tell(watched)

    def _tell(self, watched: Watched) -> None:
        fields.tell(**_named(watched.scope))
        path = watched.scope["path"]
        level = logging.DEBUG if is_quiet(watched.scope) else logging.INFO
        if self._tell_line() and _logger.isEnabledFor(level):
            client = watched.scope.get("client")
            line = {
                "client": client[0] if client else None,
                "method": watched.method,
                "path": path,  # without the query: signed addresses have their signature there
                "route": watched.route,
                "status": watched.status,
                "seconds": round(time.perf_counter() - watched.begun, 4),
            }
            _logger.log(level, "%s %s → %s", watched.method, path, watched.status, extra=line)


def is_quiet(scope: Scope) -> bool:
    """Whether a request is one of those that machines send every few seconds."""
    return scope.get("path") in _QUIET


def _named(scope: Scope) -> dict[str, str]:
    found = {}
    for value in map(str, scope.get("path_params", {}).values()):
        name = next((name for prefix, name in _NAMED.items() if value.startswith(prefix)), None)
        if name is not None:
            found[name] = value
    return found
