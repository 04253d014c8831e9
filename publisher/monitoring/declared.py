"""Every metric of the service: name, kind, labels, what it says and whose it is. docs/monitoring.md lists them all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from publisher.store import tallies
from publisher.store.tallies import Series


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Extent(StrEnum):
    """`installation`: from the database, the same from every API process: take the max over them. `process`: of the one
    that answers: sum over them."""

    INSTALLATION = "installation"
    PROCESS = "process"


@dataclass(frozen=True)
class Metric:
    """`series`: where its numbers are tallied, if they are. `is_open`: at /metrics without a key as well."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    extent: Extent = Extent.INSTALLATION
    series: Series | None = None
    is_open: bool = False

    def gauge(self) -> GaugeMetricFamily:
        assert self.kind is Kind.GAUGE
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        assert self.kind is Kind.COUNTER
        return CounterMetricFamily(self.name, self.help, labels=self.labels)

    def histogram(self) -> HistogramMetricFamily:
        assert self.kind is Kind.HISTOGRAM
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)

    @property
    def exposed(self) -> frozenset[str]:
        """The names that it has in what Prometheus reads."""
        suffixes = {Kind.GAUGE: ("",), Kind.COUNTER: ("",), Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
        return frozenset(self.name + suffix for suffix in suffixes[self.kind])


def _gauge(name: str, help: str, *labels: str, is_open: bool = False) -> Metric:
    return Metric(f"publisher_{name}", Kind.GAUGE, help, labels, is_open=is_open)


def _own(name: str, kind: Kind, help: str, *labels: str) -> Metric:
    return Metric(f"publisher_{name}", kind, help, labels, Extent.PROCESS)


def _tallied(name: str, kind: Kind, help: str, series: Series) -> Metric:
    return Metric(f"publisher_{name}", kind, help, series.labels, series=series)


JOBS = _gauge("jobs", "Jobs by state.", "state", is_open=True)
HUB_DAMAGED = _gauge("hub_damaged_files", "Stored contents found damaged.", is_open=True)
HUB_BYTES = _gauge("hub_bytes", "Bytes that the embedded Hub holds, counted every few minutes.")

UNFINISHED = _gauge("unfinished_jobs", "Jobs that have not ended, by queue and state.", "queue", "state")
QUEUED = _gauge(
    "queued_jobs",
    "Queued jobs by queue and what they wait for: their turn, a retry's time, a worker that holds them, a Hub, …",
    *("queue", "waiting_for"),
)
OLDEST = _gauge(
    "oldest_queued_job_age_seconds", "For how long the oldest of these has been queued.", "queue", "waiting_for"
)
ATTEMPTS = _tallied(
    "job_attempts_total",
    Kind.COUNTER,
    "Tries of jobs by how they ended, in which stage, and whose fault a failure was.",
    tallies.ATTEMPTS,
)
LEASE_EXPIRIES = _tallied(
    "lease_expiries_total",
    Kind.COUNTER,
    "Jobs taken from a worker that was silent for a lease.",
    tallies.LEASES_EXPIRED,
)
PUBLICATIONS = _tallied(
    "publications_total", Kind.COUNTER, "Tries that came to publishing, by how they ended.", tallies.PUBLICATIONS
)
STAGE_SECONDS = _tallied(
    "stage_duration_seconds", Kind.HISTOGRAM, "How long stages took that were made.", tallies.STAGE_SECONDS
)
STAGE_MEMORY = _tallied(
    "stage_peak_memory_bytes",
    Kind.HISTOGRAM,
    "Most memory that a stage's process held (cpu: resident, gpu: taken by torch).",
    tallies.STAGE_MEMORY,
)
SPEED = _gauge("alignment_tokens_per_second", "Speed that a worker's job last reported, while it aligns.", "worker")
WORKERS = _gauge(
    "workers",
    "Workers by kind, largest queue that they hold and state: idle, busy, stopped (shut down) or silent (died).",
    *("kind", "capacity", "state"),
)
HEARTBEAT = _gauge(
    "worker_heartbeat_age_seconds",
    "Since when a worker was not seen.",
    *("worker", "kind", "capacity", "state"),
)
WORKER_DISK = _gauge("worker_disk_free_bytes", "Free on the disk of a worker's stages.", "worker")
WEBHOOKS = _gauge("webhooks", "Webhooks by state: enabled, failing (nothing arrives at it) or disabled.", "state")
DELIVERY_LATE = _gauge(
    "webhook_delivery_late_seconds", "For how long the next try of a webhook's delivery has been due; 0 if none is."
)

UP = _own("dependency_up", Kind.GAUGE, "1 while this process reaches it or it has room, as /readyz says.", "dependency")
DISK_FREE = _own("disk_free_bytes", Kind.GAUGE, "Free on the disk of this process's data folder.")
STREAMS = _own("event_streams_open", Kind.GAUGE, "Event streams that somebody listens to.")
OUTSIDE = _own("outside_calls_in_flight", Kind.GAUGE, "Calls that wait for others or their turn, by lane.", "lane")
REFUSED = _own("outside_calls_refused_total", Kind.COUNTER, "Calls refused since too many were under way.", "lane")
REQUESTS = _own("http_requests_total", Kind.COUNTER, "Answered requests.", "method", "route", "status")
REQUEST_SECONDS = _own(
    "http_request_duration_seconds",
    Kind.HISTOGRAM,
    "From a request to the first byte of its answer.",
    *("method", "route"),
)
IN_FLIGHT = _own("http_requests_in_flight", Kind.GAUGE, "Requests under way, event streams among them.")
LOOP_DELAY = _own("event_loop_delay_seconds", Kind.GAUGE, "Most that the event loop was late in the last half minute.")

METRICS = tuple(each for each in list(globals().values()) if isinstance(each, Metric))
