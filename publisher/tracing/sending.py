"""What sends spans, by OTLP over HTTP: the extra `otel`. Addresses, headers and sampling are OpenTelemetry's own
variables."""

from __future__ import annotations

import os

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

#: signed addresses have their signature there
_QUERY = "url.query"


class _WithoutQueries(SpanProcessor):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes and _QUERY in span.attributes:
            span.set_attribute(_QUERY, "hidden")


def create_provider(service: str, seconds: float) -> TracerProvider:
    """`seconds`: that an answer may take, unless OpenTelemetry's variable says otherwise."""
    named = "OTEL_SERVICE_NAME" in os.environ
    resource = Resource.create({} if named else {"service.name": f"loram-publisher-{service}"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(_WithoutQueries())
    exporter = OTLPSpanExporter(timeout=None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else seconds)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return provider
