"""An installation without processes: a tenant with a published variant and jobs, over a real database and Hub."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import update

from publisher.hub.changes import AddFile, Change
from publisher.hub.commits import CommittedFile
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.storage import HubStorage
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.dump import snapshot, write_rows
from publisher.store.keys import add_key, add_tenant
from publisher.store.models import Job, Variant
from tests.jobs.rows import add_job, add_variant, claim, metric, report

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB
SECRET = "a secret of the test's, which is long enough"


@dataclass
class Lab:
    """`published` and `running` are ids of a variant and a job."""

    settings: Settings
    database: Database
    hub: HubStorage
    tenant_id: str
    published: str
    running: str

    def publish(self, repo: str, **files: bytes) -> str:
        """A variant whose checkpoint is these files; returns its id."""
        variant = add_variant(self.database, self.tenant_id)
        commit = commit_files(self.hub, self.tenant_id, repo, files)
        endpoint = self.settings.resolved_hub_endpoint
        publication = {"endpoint": endpoint, "repo_id": f"lab/{repo}", "commit": commit, "url": endpoint}
        with self.database.write() as session:
            values = {"publication": publication, "publish_repo_id": f"lab/{repo}"}
            session.execute(update(Variant).where(Variant.id == variant.id).values(**values))
        return variant.id

    def blob(self, repo: str, name: str) -> Path:
        return self.hub.open_repository(f"lab/{repo}").resolve("main", name).path


def create_lab(folder: Path, database_url: str) -> Lab:
    """The database has its tables."""
    settings = Settings(data_dir=folder / "data", database_url=database_url)
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / "secret").write_text(SECRET)
    database, hub = Database(database_url), HubStorage(settings.hub_dir)
    with database.write() as session:
        tenant_id = add_tenant(session, "lab").id
        add_key(session, tenant_id, "ci", "loram_key-of-the-lab")
    lab = Lab(settings, database, hub, tenant_id, "", "")
    lab.published = lab.publish("model", weights=WEIGHTS, card=b"# caf\xc3\xa9")
    for _ in range(2):
        add_job(database, add_variant(database, tenant_id))
    lab.running = add_job(database, add_variant(database, tenant_id))
    claim(database, lab.running)
    report(database, metric("loss", 1, 0.1 + 0.2), metric("loss", 2, None))
    return lab


def commit_files(hub: HubStorage, tenant_id: str, repo: str, files: dict[str, bytes], namespace: str = "lab") -> str:
    repository = hub.create_repository(RepositoryId(namespace, repo), Owner(tenant_id, "lab"), private=True)
    added = [AddFile(name, CommittedFile.regular(content, hub.blobs.put(content))) for name, content in files.items()]
    return repository.commit(Change("main", "Publish", "", "lab", tuple(added))).id


def environment(settings: Settings) -> dict[str, str]:
    own = {"PUBLISHER_DATA_DIR": settings.data_dir, "PUBLISHER_DATABASE_URL": settings.database_url}
    own |= {"PUBLISHER_BROKER_URL": settings.broker_url}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PUBLISHER_")}
    return kept | {name: str(value) for name, value in own.items()}


def admin(settings: Settings, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """`publisher admin …` for these settings, as a process; `more`: other settings."""
    process = start_admin(settings.model_copy(update=more), *arguments)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_admin(settings: Settings, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "publisher.client.main", "admin", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(settings), stdout=pipe, stderr=pipe, text=True)


def all_rows(database: Database, folder: Path) -> dict[str, Any]:
    """Every table's rows, as text."""
    folder.mkdir()
    with snapshot(database) as connection:
        write_rows(connection, folder)
    return {path.name: sorted(gzip.decompress(path.read_bytes()).splitlines()) for path in folder.iterdir()}


def job_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)
