"""Numbers for Prometheus: some open to all, as ever; the rest behind a key, or on a port of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from publisher.api.errors import documented
from publisher.api.fan_out import FanOut
from publisher.api.outside import Outside
from publisher.api.service import Service
from publisher.api.watchdog import OK, Watchdog
from publisher.errors import Unauthorized
from publisher.monitoring.database import JobsAndWorkers, JobStates
from publisher.monitoring.endpoint import MetricsServer
from publisher.monitoring.process import EventLoopDelay, HttpMetrics, HubDamage, HubSize, ProcessNumbers
from publisher.settings import Settings
from publisher.signing.signer import same

router = APIRouter(tags=["health"])
_bearer = HTTPBearer(auto_error=False, scheme_name="Metrics key", description="PUBLISHER_METRICS_KEY, if it is set")


@dataclass
class Monitoring:
    """Of one API process: `open` is what anybody may read where no key is set, `whole` has everything."""

    open: CollectorRegistry = field(default_factory=CollectorRegistry)
    whole: CollectorRegistry = field(default_factory=CollectorRegistry)
    loop: EventLoopDelay = field(default_factory=EventLoopDelay)
    http: HttpMetrics = field(init=False)
    _server: MetricsServer | None = None

    def __post_init__(self) -> None:
        self.http = HttpMetrics(self.whole)

    def observe(self, service: Service, watchdog: Watchdog, fan_out: FanOut, outside: Outside) -> None:
        """Have the registries tell of these parts of the application."""

        def database_is_there() -> bool:
            return watchdog.found()["database"].said == OK

        for registry in (self.open, self.whole):
            PlatformCollector(registry)
            ProcessCollector(registry=registry)
            registry.register(JobStates(service.database))
            if service.hub is not None:
                registry.register(HubDamage(service.hub))
        patience = service.settings.lease_seconds
        self.whole.register(JobsAndWorkers(service.database, patience, database_is_there))
        if service.hub is not None:
            self.whole.register(HubSize(service.hub.blobs.folder))
        self.whole.register(
            ProcessNumbers(
                data=service.settings.data_dir,
                up=lambda: {name: look.said == OK for name, look in watchdog.found().items()},
                streams=lambda: len(fan_out.listeners),
                lanes=lambda: _lanes(outside),
                loop=self.loop,
            )
        )

    def serve(self, settings: Settings) -> None:
        """On a port of its own, if the settings name one. Raises InfrastructureFault if it is taken."""
        if settings.metrics_port is not None:
            self._server = MetricsServer(self.whole, settings.metrics_address, settings.metrics_port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


def _lanes(outside: Outside) -> Mapping[str, tuple[int, int]]:
    lanes = {"calls": outside.calls, "readings": outside.readings, "sign_ins": outside.sign_ins}
    return {name: (lane.under_way, lane.refused) for name, lane in lanes.items()}


@router.get(
    "/metrics",
    name="get_metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **documented(401)},
)
def metrics(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Response:
    """Prometheus metrics. Where a key is set (PUBLISHER_METRICS_KEY) all of them, for who shows it; else this process,
    and jobs by state."""
    settings = cast(Service, request.app.state.service).settings
    monitoring = cast(Monitoring, request.app.state.monitoring)
    key = settings.metrics_key.get_secret_value() if settings.metrics_key else ""
    if not key:
        return _answer(monitoring.open)
    if credentials is None or not same(credentials.credentials, key):
        raise Unauthorized(
            "The metrics key is missing or wrong.", way_out="Send PUBLISHER_METRICS_KEY as a Bearer key."
        )
    return _answer(monitoring.whole)


def _answer(registry: CollectorRegistry) -> Response:
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
