"""How soon a service answers while thousands of connections have sent half of a request each.

    python -m tests.benchmarks.half_open [--connections 10000] [--requests 50]

Loopback only; needs as many file descriptors for this process and for the server (`ulimit -n`).
"""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from publisher.store import keys
from tests.hub.test_connections import HALF, answers
from tests.servers import free_port, wait_until

KEY = "loram_" + keys.new_key()[6:]


def latencies(port: int, requests: int) -> str:
    """Each over a connection of its own, as a newcomer's."""
    said = []
    for path in ("/healthz", "/readyz", "/v1/jobs"):
        took = []
        for _ in range(requests):
            begun = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
            assert connection.getresponse().status == 200
            connection.close()
            took.append(time.perf_counter() - begun)
        said.append(f"{path} median {statistics.median(took) * 1000:.0f} ms, slowest {max(took) * 1000:.0f} ms")
    return "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=50)
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "publisher.app:app", "--port", str(port), "--log-level", "error"]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_ones:
        environment = os.environ | {"PUBLISHER_DATA_DIR": folder, "PUBLISHER_BOOTSTRAP_KEY": KEY}
        process = subprocess.Popen(command, env=environment)
        try:
            wait_until(lambda: answers(f"{url}/healthz"), "start of the API")
            print(f"before: {latencies(port, asked.requests)}")
            begun = time.perf_counter()
            for _ in range(asked.connections):
                connection = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                connection.sendall(HALF)
            print(f"{asked.connections:,} half-open connections after {time.perf_counter() - begun:.1f} s")
            print(f"with them: {latencies(port, asked.requests)}")
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
