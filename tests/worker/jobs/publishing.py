"""A job that publishes a tiny model to the embedded Hub, through somebody in the middle who does what tests ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from huggingface_hub import HfApi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.base_model.facts import inspect_folder, inspect_repository
from publisher.hub.app import service_hub
from publisher.hub.storage import HubStorage
from publisher.jobs import service
from publisher.jobs.leases import Lease
from publisher.settings import Settings
from publisher.store import keys, migrate
from publisher.store.database import Database
from publisher.store.models import BaseModel, Job, Tenant, Variant
from publisher.store.states import JobState
from tests.jobs import rows
from tests.models import tiny_llama
from tests.servers import free_port, serve
from worker.jobs.child import JobProcess
from worker.jobs.reporter import JobReporter

RECIPE = {
    "pruning": {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1},
    "alignment": None,
    "quantization": {"scheme": "none"},
    "evaluation": None,
}
KEY = "loram_key-of-the-tenant"


@dataclass
class Middle:
    """Stands before the Hub. `before` and `after` map a part of "GET /path" to what is done once such a request comes,
    or was answered by the Hub. `swallow` and `lose`: requests that are not passed on, or whose answers are not.
    `answers`: a status, and headers, in the Hub's stead."""

    app: ASGIApp
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    after: dict[str, Callable[[], object]] = field(default_factory=dict)
    swallow: str | None = None
    lose: str | None = None
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    swallowed: tuple[Scope, bytes] | None = None

    def reset(self) -> None:
        self.before, self.after, self.answers, self.seen = {}, {}, {}, []
        self.swallow = self.lose = self.swallowed = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = f"{scope.get('method')} {scope.get('path')}"
        self.seen.append(path)
        _once(self.before, path)
        for part, (status, headers) in self.answers.items():
            if part in path:
                return await _answer(send, status, headers)
        if self.swallow is not None and self.swallow in path:
            self.swallowed = (scope, await _body(receive))
            return await _cut(send)
        if self.lose is not None and self.lose in path:
            await self.app(scope, receive, _nowhere)
            _once(self.after, path)
            return await _cut(send)
        await self.app(scope, receive, send)
        _once(self.after, path)
        return None

    async def deliver(self) -> int:
        """What was swallowed arrives now; the status that the Hub answers."""
        assert self.swallowed is not None
        scope, body = self.swallowed
        said: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            said.extend([message["status"]] if "status" in message else [])

        await self.app(scope, receive, send)
        return said[0]


def _once(hooks: dict[str, Callable[[], object]], path: str) -> None:
    for part in [part for part in hooks if part in path]:
        hooks.pop(part)()


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def _nowhere(message: Message) -> None:
    return None


async def _cut(send: Send) -> None:
    """The connection ends within the answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"{"})


async def _answer(send: Send, status: int, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b""})


@dataclass
class Publishing:
    """The service's database and Hub, and tries of jobs in this process."""

    settings: Settings
    database: Database
    middle: Middle
    tenant_id: str
    base_model_id: str
    number: int = 0

    @property
    def hub(self) -> HfApi:
        """As the tenant, past nobody in the middle."""
        return HfApi(endpoint=self.settings.resolved_hub_endpoint, token=KEY)

    def add_job(self, repo_id: str | None = None, **variant: Any) -> str:
        self.number += 1
        with self.database.write() as session:
            row = Variant(
                tenant_id=self.tenant_id,
                base_model_id=variant.get("base_model_id", self.base_model_id),
                recipe=RECIPE,
                recipe_digest="0" * 64,
                publish_repo_id=repo_id or f"org/small-{self.number}",
                publish_private=variant.get("private", False),
                request_digest="0" * 64,
            )
            session.add(row)
            session.flush()
            return service.enqueue(session, row).id

    def add_base_from_hub(self) -> str:
        """The base model as a repository of the embedded Hub."""
        with self.database.read() as session:
            folder = str(session.get_one(BaseModel, self.base_model_id).path)
        self.hub.create_repo("org/base", private=True)
        revision = self.hub.upload_folder(folder_path=folder, repo_id="org/base").oid
        facts = inspect_repository("org/base", revision, self.settings.resolved_hub_endpoint, KEY)
        stored = facts.model_dump(mode="json")
        with self.database.write() as session:
            row = BaseModel(tenant_id=self.tenant_id, repo_id="org/base", revision=revision, facts=stored)
            session.add(row)
            session.flush()
            return row.id

    def repo_id(self, job_id: str) -> str:
        with self.database.read() as session:
            return session.get_one(Job, job_id).variant.publish_repo_id

    def run(self, job_id: str, settings: Settings | None = None) -> Job:
        """One try from the claim to its end, now, whenever the job was to be tried."""
        rows.let_pass(self.database, job_id, 7 * 24 * 3600)
        return self.work(rows.claim(self.database, job_id), settings)

    def work(self, lease: Lease, settings: Settings | None = None) -> Job:
        used = settings or self.settings
        with JobReporter(self.database, lease, used) as reporter:
            JobProcess(self.database, used, lease, reporter).run()
        return rows.load(self.database, lease.job_id)

    def cancel(self, job_id: str) -> None:
        with self.database.write() as session:
            service.cancel(session, job_id)

    def publications(self, job_id: str) -> list[str]:
        if not self.hub.repo_exists(self.repo_id(job_id)):
            return []
        commits = self.hub.list_repo_commits(self.repo_id(job_id))
        return [commit.commit_id for commit in commits if commit.title.startswith("Publish")]

    def logs(self, job_id: str) -> list[str]:
        return [event.data["message"] for event in rows.read_events(self.database, job_id) if event.kind == "log"]

    def agreed(self, job_id: str) -> JobState:
        """The final state, which is what the Hub shows."""
        job = rows.load(self.database, job_id)
        with self.database.read() as session:
            publication = session.get_one(Variant, job.variant_id).publication
        found = self.publications(job_id)
        if job.state is JobState.SUCCEEDED:
            assert publication is not None
            assert found == [publication["commit"]]
        else:
            assert job.state is JobState.CANCELLED
            assert (found, publication) == ([], None)
        assert job.publishing is None
        return job.state


@contextmanager
def publishing(folder: Path) -> Iterator[Publishing]:
    settings = Settings(
        data_dir=folder / "data",
        broker_url="filesystem://",
        public_url=f"http://127.0.0.1:{free_port()}",
        worker_device="cpu",
        retry_backoff_seconds=0,
    )
    migrate.upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    app = FastAPI()
    app.mount("/hub", service_hub(settings, database, HubStorage(settings.hub_dir), None))
    middle = Middle(app)
    with serve(middle) as port:
        settings = settings.model_copy(update={"public_url": f"http://127.0.0.1:{port}"})
        yield Publishing(settings, database, middle, *_rows(database, tiny_llama(folder / "base")))
    database.close()


def _rows(database: Database, base: Path) -> tuple[str, str]:
    """A tenant with a key, and its base model."""
    facts = inspect_folder(base)
    with database.write() as session:
        tenant = Tenant(name="org")
        session.add(tenant)
        session.flush()
        keys.add_key(session, tenant.id, "test", KEY)
        row = BaseModel(
            tenant_id=tenant.id,
            repo_id=facts.repo_id,
            revision=facts.revision,
            path=str(base),
            facts=facts.model_dump(mode="json"),
        )
        session.add(row)
        session.flush()
        return tenant.id, row.id
