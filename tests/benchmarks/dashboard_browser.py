"""How soon the dashboard's pages can be used on a slow machine: in Chromium, with the processor slowed down.

    python -m tests.benchmarks.dashboard_browser [--slower 6] [--rounds 5]

Every page of tests/dashboard/scene.py, empty of caches at first and then with stylesheets and scripts in them.
`usable` is when the document's scripts have run (the end of DOMContentLoaded) or, later, the last task of over 50 ms
before load has ended, in ms since the navigation began; the median of the rounds, and the slowest page against the
target of a second. The server shares the machine, and is not slowed down.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from publisher.dashboard.session import SESSION_COOKIE
from tests.dashboard.chromium import Chromium, chromium
from tests.dashboard.conftest import RunningDashboard, serve
from tests.dashboard.scene import PAGES, Scene, furnish

TARGET = 1000
_WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => longTasks.push(...list.getEntries().map((task) => task.startTime + task.duration)))
  .observe({ type: 'longtask', buffered: true });
"""
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd > 0"
_USABLE = """(() => {
  const page = performance.getEntriesByType('navigation')[0];
  return Math.max(page.domContentLoadedEventEnd, ...longTasks.filter((end) => end <= page.loadEventEnd + 1000));
})()"""
_BYTES = "performance.getEntriesByType('navigation')[0].encodedBodySize"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slower", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as dashboard:
        scene = furnish(dashboard)
        with chromium(Path(folder)) as page:
            page.emulate(1280, 800)
            page.open(f"{dashboard.url}/login")
            page.run(f"document.cookie = '{SESSION_COOKIE}={scene.cookie}; path=/'")
            page.before_every_page(_WATCH)
            page.slow_down(asked.slower)
            report(page, dashboard, scene, asked.rounds)


def report(page: Chromium, dashboard: RunningDashboard, scene: Scene, rounds: int) -> None:
    print(f"{'page':52} {'first':>7} {'median':>7} {'gzip':>7}")
    slowest = 0.0
    for address in PAGES:
        times = [_opened(page, dashboard.url + address.format(**scene.ids)) for _ in range(rounds + 1)]
        slowest = max(slowest, statistics.median(times[1:]))
        print(f"{address:52} {times[0]:7.0f} {statistics.median(times[1:]):7.0f} {page.run(_BYTES):7,}", flush=True)
    print(f"slowest {slowest:.0f} ms, target {TARGET}: {'met' if slowest <= TARGET else 'MISSED'}")


def _opened(page: Chromium, address: str) -> float:
    page.open(address)
    page.wait_for(_LOADED)
    return float(page.run(_USABLE))


if __name__ == "__main__":
    main()
