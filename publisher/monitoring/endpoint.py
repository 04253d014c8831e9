"""Metrics on a port of their own, which answers when the API does not."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from publisher.errors import InfrastructureFault


class MetricsServer:
    """Serves a registry until it is stopped. Raises InfrastructureFault if it cannot listen."""

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        try:
            self._server, self._thread = self._start(registry, address, port)
        except OSError as error:
            raise InfrastructureFault(
                f"PUBLISHER_METRICS_PORT: cannot listen on {address} port {port}: {error.strerror or error}.",
                way_out="Each API process needs a port of its own; with several behind one address use "
                "PUBLISHER_METRICS_KEY instead.",
            ) from error

    def _start(self, registry: CollectorRegistry, address: str, port: int) -> tuple[WSGIServer, threading.Thread]:
        return start_http_server(port, addr=address, registry=registry)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
