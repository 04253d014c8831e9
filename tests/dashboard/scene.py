"""A tenant that has something of everything, and the address of every page that shows it.

A new page is one line in `PAGES`: tests/dashboard/test_accessibility.py looks at all of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from publisher.architecture.masks_file import FILE_NAME
from publisher.dashboard.access import sessions_of
from publisher.dashboard.published_files import BILL as BILL_FILE
from publisher.hub.changes import AddFile, Change
from publisher.hub.commits import CommittedFile
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.repositories import Repository
from publisher.keys.scopes import Scope
from publisher.keys.text import new_key
from publisher.people.roles import Role
from publisher.store import hub_credentials, keys, webhooks
from publisher.store.database import clock
from publisher.store.models import ApiKey, Membership, Person, Webhook, WebhookDelivery, WebhookEvent
from publisher.store.quotas import QUOTAS, STORED_BYTES, set_limit
from publisher.store.states import DeliveryState
from publisher.store.tenants import find_tenant
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.results import BILL, masks, publish, smaller, sweep, sweep_id
from tests.dashboard.rows import OUT_OF_DISK, Account, Work, log, manifest, metric, progress

#: RFC 6761: a name that nobody has
NOWHERE = "https://receiver.invalid/hook"

#: an example of every page → its route. {…} are names of `Scene.ids`; a route may have several
PAGES: Mapping[str, str] = {
    "/login": "/login",
    "/signed-out": "/signed-out",
    "/tenants": "/tenants",
    "/overview": "/overview",
    "/jobs": "/jobs",
    "/jobs/{running}": "/jobs/{id}",
    "/jobs/{failed}": "/jobs/{id}",
    "/jobs/{succeeded}": "/jobs/{id}",
    "/jobs/{queued}": "/jobs/{id}",
    "/base-models": "/base-models",
    "/base-models/{base}": "/base-models/{id}",
    "/base-models/new": "/base-models/new",
    "/corpora": "/corpora",
    "/corpora/{corpus}": "/corpora/{id}",
    "/corpora/new": "/corpora/new",
    "/families": "/families",
    "/variants": "/variants",
    "/variants/{variant}": "/variants/{id}",
    "/variants/{planned}": "/variants/{id}",
    "/variants/new": "/variants/new",
    "/variants/new?like={variant}": "/variants/new",
    "/variants/{variant}/delete": "/variants/{id}/delete",
    "/compare?v={variant}&v={other}&v={planned}": "/compare",
    "/sweeps": "/sweeps",
    "/sweeps/{sweep}": "/sweeps/{id}",
    "/settings/keys": "/settings/keys",
    "/settings/members": "/settings/members",
    "/settings/webhooks": "/settings/webhooks",
    "/settings/webhooks/{webhook}": "/settings/webhooks/{id}",
    "/settings/hub": "/settings/hub",
    "/settings/quotas": "/settings/quotas",
    "/settings/audit": "/settings/audit",
    "/settings/audit?action=key&created_after=yesterday": "/settings/audit",
    "/repositories": "/repositories",
    "/repositories/{repository}": "/repositories/{namespace}/{name}",
    "/nothing": "",
}
#: answered with a file, a stream or another address
NO_PAGES = frozenset(
    {
        "/",
        "/assets/{name}",
        "/events",
        "/jobs/rows",
        "/jobs/{id}/events",
        "/jobs/{id}/log.txt",
        "/jobs/{id}/outlook",
        "/login/oidc",
        "/login/oidc/callback",
        "/repositories/{namespace}/{name}/files/{commit}/{path:path}",
        "/settings",
        "/variants/{id}/files/{path:path}",
    }
)


@dataclass(frozen=True)
class Scene:
    """`cookie`: of an admin's session; `ids`: what stands in the addresses of `PAGES`."""

    account: Account
    cookie: str
    ids: Mapping[str, str]


def furnish(dashboard: RunningDashboard) -> Scene:
    account = dashboard.account()
    done = _jobs(account)
    repository = add_repository(dashboard, account)
    swept = sweep(dashboard, account)
    for ratio, work in enumerate(swept[:2]):
        work.start().succeed(smaller(110_000_000 - 20_000_000 * ratio, 62.0 + ratio))
    published = publish(dashboard, account, {FILE_NAME: masks(), BILL_FILE: BILL}, name="result")
    ids = {name: work.job_id for name, work in done.items()} | {
        "base": account.base_model(),
        "variant": published.variant_id,
        "other": done["succeeded"].variant_id,
        "planned": done["queued"].variant_id,
        "sweep": sweep_id(swept[0]),
        "corpus": _corpus(dashboard, account),
        "webhook": add_webhook(account),
        "repository": str(repository.id),
    }
    _keys(account)
    _settings(dashboard, account)
    return Scene(account, member_cookie(dashboard, account), ids)


def _jobs(account: Account) -> dict[str, Work]:
    running = account.job().start().stages("fetch", "calibrate", "prune", running="align")
    running.report(*[metric("loss", step, 8 - step / 10) for step in range(1, 21)], log("line 0"), stage="align")
    running.report(progress("align", 100, 1000), stage="align")
    failed = account.job("org/broken").start().stages("fetch", running="align").fail(OUT_OF_DISK)
    succeeded = account.job("org/small").start().stages("fetch").succeed(manifest())
    return {"running": running, "failed": failed, "succeeded": succeeded, "queued": account.job("org/next")}


def add_repository(dashboard: RunningDashboard, account: Account, name: str = "small", **files: str) -> Repository:
    """In the embedded Hub, private, with a first commit of these files."""
    hub = dashboard.service.hub
    assert hub is not None
    owner = Owner(account.tenant_id, account.name)
    made = hub.create_repository(RepositoryId(account.name, name), owner, private=True)
    add_commit(made, "Add files", **(files or {"config.json": "{}", "README.md": "# Small"}))
    return made


def add_commit(repository: Repository, title: str, **files: str) -> str:
    """Its id."""
    operations = []
    for path, text in files.items():
        content = text.encode()
        operations.append(AddFile(path, CommittedFile.regular(content, repository.blobs.put(content))))
    return repository.commit(Change("main", title, "", "lab", tuple(operations))).id


def _corpus(dashboard: RunningDashboard, account: Account) -> str:
    """The text that the recipes of the jobs name."""
    path = dashboard.corpora / f"{account.name}.jsonl"
    path.write_text("".join(f'{{"text": "Document {number} of the classics."}}\n' for number in range(40)))
    return account.corpus("classics", path)


def _keys(account: Account) -> None:
    with account.database.write() as session:
        now = clock(session)
        for name, expires_at in (("ci", now + 90 * 86400), ("old", now - 60)):
            scopes = [Scope.VARIANTS_WRITE]
            keys.add_key(
                session, account.tenant_id, name, new_key(), account.key_id, scopes=scopes, expires_at=expires_at
            )
        keys.revoke(session, keys.add_key(session, account.tenant_id, "lost", new_key(), account.key_id))


def add_webhook(account: Account, url: str = NOWHERE, description: str = "of ads") -> str:
    """With a delivery in each state; none is due for a while."""
    with account.database.write() as session:
        hook = Webhook(tenant_id=account.tenant_id, url=url, description=description, secret="sealed")
        webhooks.add(session, hook, 100)
        now = clock(session)
        for number, state in enumerate(DeliveryState):
            event = WebhookEvent(tenant_id=account.tenant_id, type="job.failed", at=now, data={"job_id": "job_1"})
            session.add(event)
            session.flush()
            session.add(_delivery(account, hook, event, state, now, number))
        return hook.id


def _delivery(
    account: Account, hook: Webhook, event: WebhookEvent, state: DeliveryState, now: float, number: int
) -> WebhookDelivery:
    delivered = state is DeliveryState.DELIVERED
    return WebhookDelivery(
        tenant_id=account.tenant_id,
        webhook_id=hook.id,
        event_id=event.id,
        state=state,
        attempts=number + 1,
        due_at=now + 86400,
        asked_at=now,
        tried_at=now,
        delivered_at=now if delivered else None,
        status=200 if delivered else 503,
        error=None if delivered else "it answered 503.",
        seconds=0.2,
        created_at=now,
    )


def add_member(
    account: Account, role: Role = Role.ADMIN, name: str = "Ms Admin", email: str | None = None
) -> Membership:
    """Who has signed in."""
    with account.database.write() as session:
        person = Person(issuer="https://id.example", subject=secrets.token_hex(8), name=name, email=email)
        session.add(person)
        session.flush()
        row = Membership(tenant_id=account.tenant_id, person_id=person.id, role=role.value, email=email)
        session.add(row)
    return row


def member_cookie(dashboard: RunningDashboard, account: Account, role: Role = Role.ADMIN) -> str:
    """Of a session that stands on a new member's membership."""
    return sessions_of(dashboard.service).seal(add_member(account, role).id)


def _settings(dashboard: RunningDashboard, account: Account) -> None:
    add_member(account, Role.VIEWER, "Mr Viewer", f"{secrets.token_hex(4)}@example.org")
    with account.database.write() as session:
        tenant = find_tenant(session, account.name)
        session.add(Membership(tenant_id=tenant.id, email="invited@example.org", role=Role.MEMBER.value))
        for name, quota in QUOTAS.items():
            set_limit(session, tenant, quota, 10_000_000 if name == STORED_BYTES.name else 1000)
    set_hub(dashboard, account)


def set_hub(dashboard: RunningDashboard, account: Account) -> None:
    """Of the tenant's own."""
    keyring, token = dashboard.service.settings.sealing_secrets(), SecretStr("hf_0123456789")
    where = (account.tenant_id, "https://hub.example")
    with account.database.write() as session:
        hub_credentials.put(session, keyring, *where, write_token=token, read_token=None, set_by=account.key_id)


def revoked(account: Account, id: str) -> bool:
    with account.database.read() as session:
        return session.get_one(ApiKey, id).revoked_at is not None
