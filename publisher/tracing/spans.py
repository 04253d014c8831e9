"""Traces by OpenTelemetry where an address to send them to is configured: a request, the job that it makes, its stages.

The API of OpenTelemetry comes with FastAPI, which makes a span of each request once there is a provider; without one
everything here costs next to nothing. What sends them is the extra `otel`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

#: how a process is told the span that it works for, as in the W3C's header
VARIABLE = "TRACEPARENT"
#: seconds that an answer of the receiver may take: nobody's job waits for it longer
SECONDS = 2.0
_ADDRESSES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

Attributes = Mapping[str, str | int | float | bool]


def is_wanted() -> bool:
    """By OpenTelemetry's own variables."""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    is_off = is_off or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    return not is_off and any(os.environ.get(name) for name in _ADDRESSES)


def start(service: str) -> None:
    """Send this process's spans from now on, if that is wanted. `service`: api, worker or job."""
    if not is_wanted():
        return
    try:
        from publisher.tracing.sending import create_provider
    except ImportError as error:
        # no reason not to start: platforms set these variables for all that runs on them
        logger.warning("no traces are sent: %s. Install loram-publisher[otel].", error)
        return
    trace.set_tracer_provider(create_provider(service, SECONDS))


def flush() -> None:
    """Send what has ended, before a process may be killed; gives up after a moment."""
    provider = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):
        cast("TracerProvider", provider).force_flush(int(SECONDS * 1000))


@contextmanager
def span(name: str, parent: str | None = None, attributes: Attributes | None = None) -> Iterator[None]:
    """What happens inside; below `parent` (a traceparent) or the span under way."""
    with _tracer().start_as_current_span(name, context=_context(parent), attributes=attributes):
        yield


def begin(name: str, parent: str | None = None, attributes: Attributes | None = None) -> Callable[[bool], None]:
    """A span that ends elsewhere: call what is returned, and say whether all went well."""
    begun = _tracer().start_span(name, context=_context(parent), attributes=attributes)

    def end(well: bool) -> None:
        if not well:
            begun.set_status(Status(StatusCode.ERROR))
        begun.end()

    return end


def current() -> str | None:
    """The traceparent of the span under way; None if there is none."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def given() -> str | None:
    """The traceparent that this process was started with."""
    return os.environ.get(VARIABLE)


def _tracer() -> trace.Tracer:
    return trace.get_tracer("publisher")


def _context(parent: str | None) -> Context | None:
    return None if parent is None else TraceContextTextMapPropagator().extract({"traceparent": parent})
