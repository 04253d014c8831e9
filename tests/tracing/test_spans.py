"""Traces as a receiver of OTLP gets them: from real processes, over HTTP."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from publisher.jobs import leases
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.models import Job
from tests.jobs.rows import add_job
from tests.servers import free_port, wait_until


@dataclass
class Receiver:
    """`spans`: service → those that it sent."""

    url: str = ""
    spans: dict[str, list[Span]] = field(default_factory=dict)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            found = [span for scope in resource.scope_spans for span in scope.spans]
            self.spans.setdefault(names[0], []).extend(found)

    def named(self, service: str, name: str) -> list[Span]:
        return [span for span in self.spans.get(service, []) if span.name == name]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    received.url = f"http://127.0.0.1:{server.server_port}"
    yield received
    server.shutdown()
    thread.join()
    server.server_close()


def environment(receiver: Receiver, data: Path) -> dict[str, str]:
    return os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "PUBLISHER_DATA_DIR": str(data)}


@contextmanager
def api(environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "publisher.app:app", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, env=environment)

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, "start of the API")
        yield url
    finally:
        process.terminate()
        process.wait()


def test_a_request_is_a_span_with_its_route_and_without_its_query(receiver: Receiver, tmp_path: Path) -> None:
    with api(environment(receiver, tmp_path)) as url:
        httpx.get(f"{url}/v1/jobs/job_1?signature=planted-secret")
        httpx.get(f"{url}/healthz")
        wait_until(lambda: "loram-publisher-api" in receiver.spans, "a span", 20)
    (span,) = receiver.spans["loram-publisher-api"]
    told = {each.key: each.value for each in span.attributes}
    assert told["http.route"].string_value == "/v1/jobs/{id}"
    assert told["http.response.status_code"].int_value == 401
    assert "planted-secret" not in str(span)


#: what a worker does with a job, and then the process that it starts for it
WORK = """
import os, subprocess, sys
from publisher.jobs import transitions
from publisher.jobs.identity import identity_of
from publisher.jobs.leases import Lease
from publisher.settings import settings
from publisher.store.database import Database
from publisher.tracing import spans
from worker.jobs.reporter import JobReporter
job, token, part = sys.argv[1], int(sys.argv[2]), sys.argv[3]
spans.start(part)
database, lease = Database(settings().resolved_database_url), Lease(job, token)
if part == "worker":
    with database.read() as session:
        identity = identity_of(session, lease)
    with spans.span("job", identity.traceparent, identity.as_attributes()):
        environment = os.environ | {spans.VARIABLE: spans.current()}
        subprocess.run([sys.executable, "-c", sys.stdin.read(), job, str(token), "job"], env=environment, check=True)
else:
    with JobReporter(database, lease, settings()) as reporter:
        reporter.on_stage("fetch", "started", None)
        reporter.on_stage("fetch", "finished", 0.1)
        reporter.on_stage("prune", "started", None)
        reporter.finish(lambda session: transitions.release(session, lease))
        os._exit(0)  # as one that is killed when its job has ended
"""


def test_a_jobs_stages_belong_to_the_request_that_asked_for_it(receiver: Receiver, tmp_path: Path) -> None:
    asked = f"00-{'a' * 32}-{'b' * 16}-01"
    settings = Settings(data_dir=tmp_path)
    lease = claimed_job(settings, asked)
    command = [sys.executable, "-c", WORK, lease.job_id, str(lease.token), "worker"]
    subprocess.run(command, env=environment(receiver, tmp_path), input=WORK, text=True, check=True)
    (job,) = receiver.named("loram-publisher-worker", "job")
    assert (job.trace_id.hex(), job.parent_span_id.hex()) == ("a" * 32, "b" * 16)
    assert {each.key: each.value.string_value for each in job.attributes}["loram.job"] == lease.job_id
    for name, status in (("stage fetch", 0), ("stage prune", 2)):
        (stage,) = receiver.named("loram-publisher-job", name)
        assert (stage.trace_id, stage.parent_span_id) == (job.trace_id, job.span_id)
        assert stage.status.code == status


def claimed_job(settings: Settings, traceparent: str) -> leases.Lease:
    migrate.upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    job_id = add_job(database)
    with database.write() as session:
        session.get_one(Job, job_id).traceparent = traceparent
        session.flush()
        lease = leases.claim(session, job_id, "w1", 60)
    database.close()
    assert lease is not None
    return lease


def test_a_job_keeps_the_span_that_it_was_asked_for_in(receiver: Receiver, tmp_path: Path) -> None:
    script = """
from publisher.settings import settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.tracing import spans
from tests.jobs.rows import add_job, load
migrate.upgrade(settings().resolved_database_url)
database = Database(settings().resolved_database_url)
assert load(database, add_job(database)).traceparent is None
spans.start("api")
with spans.span("request"):
    assert load(database, add_job(database)).traceparent == spans.current()
"""
    subprocess.run([sys.executable, "-c", script], env=environment(receiver, tmp_path), check=True)


def test_a_receiver_that_is_away_or_missing_holds_nothing_up(tmp_path: Path) -> None:
    script = """
from publisher.tracing import spans
spans.start("job")
with spans.span("x"):
    assert spans.current() is not None
spans.flush()
"""
    address = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    subprocess.run([sys.executable, "-c", script], env=os.environ | address, check=True, timeout=30)


def test_without_an_address_there_is_nothing_to_pay_for() -> None:
    script = """
import sys
from publisher.tracing import spans
spans.start("api")
with spans.span("x"):
    assert spans.current() is None
spans.begin("y")(True)
assert "opentelemetry.sdk" not in sys.modules
"""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", script], env=bare, check=True)
