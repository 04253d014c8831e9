"""What one API process knows of itself: its requests, its event loop, its disk, and what it reaches."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from publisher.hub.storage import HubStorage
from publisher.monitoring import declared

#: seconds, up to what a call to a Hub may take
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
#: seconds between two looks at the event loop, and how many of them are remembered
LOOP_INTERVAL, LOOP_LOOKS = 0.5, 60
#: seconds after which the Hub's contents are counted anew: many files take a while
HUB_INTERVAL = 300.0


class HttpMetrics:
    """Counted by whatever goes around requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # a series more for each of thousands, which nobody reads
        disable_created_metrics()  # type: ignore[no-untyped-call]
        requests, seconds, in_flight = declared.REQUESTS, declared.REQUEST_SECONDS, declared.IN_FLIGHT
        self._requests = Counter(requests.name, requests.help, requests.labels, registry=registry)
        self._seconds = Histogram(seconds.name, seconds.help, seconds.labels, registry=registry, buckets=_BUCKETS)
        self._in_flight = Gauge(in_flight.name, in_flight.help, registry=registry)

    def began(self) -> None:
        self._in_flight.inc()

    def ended(self, method: str, route: str, status: int | None, seconds: float | None) -> None:
        """`status` and `seconds` of the answer; None: there was none, since the client left."""
        self._in_flight.dec()
        self._requests.labels(method, route, str(status or 499)).inc()
        if seconds is not None:
            self._seconds.labels(method, route).observe(seconds)


class EventLoopDelay:
    """How late the event loop is: what blocks it delays every request."""

    def __init__(self) -> None:
        self._delays: deque[float] = deque([0.0], maxlen=LOOP_LOOKS)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            begun = time.monotonic()
            await asyncio.sleep(LOOP_INTERVAL)
            self._delays.append(time.monotonic() - begun - LOOP_INTERVAL)

    @property
    def worst(self) -> float:
        """Seconds, of those remembered."""
        return max(0.0, *self._delays)


class ProcessNumbers(Collector):
    """Read from the parts of the application when Prometheus asks. `up`: dependency → whether it is there."""

    def __init__(
        self,
        *,
        data: Path,
        up: Callable[[], Mapping[str, bool]],
        streams: Callable[[], int],
        lanes: Callable[[], Mapping[str, tuple[int, int]]],
        loop: EventLoopDelay,
    ) -> None:
        self._data, self._up, self._streams, self._lanes, self._loop = data, up, streams, lanes, loop

    def collect(self) -> Iterator[Family]:
        up = declared.UP.gauge()
        for dependency, is_there in self._up().items():
            up.add_metric([dependency], float(is_there))
        yield up
        for metric, value in ((declared.STREAMS, float(self._streams())), (declared.LOOP_DELAY, self._loop.worst)):
            family = metric.gauge()
            family.add_metric([], value)
            yield family
        yield from self._of_lanes()
        yield from self._of_disk()

    def _of_lanes(self) -> Iterator[Family]:
        under_way, refused = declared.OUTSIDE.gauge(), declared.REFUSED.counter()
        for lane, (inside, turned_away) in self._lanes().items():
            under_way.add_metric([lane], inside)
            refused.add_metric([lane], turned_away)
        yield from (under_way, refused)

    def _of_disk(self) -> Iterator[Family]:
        try:
            free = shutil.disk_usage(self._data).free
        except OSError:  # /readyz says so
            return
        family = declared.DISK_FREE.gauge()
        family.add_metric([], free)
        yield family


class HubDamage(Collector):
    """Contents of the embedded Hub that were found damaged and not replaced since: open to all."""

    def __init__(self, hub: HubStorage) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Family]:
        family = declared.HUB_DAMAGED.gauge()
        family.add_metric([], len(self._hub.blobs.damage.all()))
        yield family


class HubSize(Collector):
    """Bytes that the embedded Hub holds, as they were counted last; a scrape never waits for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytes: int | None = None
        self._counted_at = -HUB_INTERVAL
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Family]:
        if time.monotonic() - self._counted_at >= HUB_INTERVAL and self._lock.acquire(blocking=False):
            threading.Thread(target=self._count, name="hub-size", daemon=True).start()
        family = declared.HUB_BYTES.gauge()
        if self._bytes is not None:
            family.add_metric([], self._bytes)
        yield family

    def _count(self) -> None:
        try:
            self._bytes = bytes_below(self._folder)
            self._counted_at = time.monotonic()
        finally:
            self._lock.release()


def bytes_below(folder: Path) -> int:
    """Of all files below a folder, which may change meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        total += 0 if path.is_dir() else found.st_size
    return total
