"""When a worker stops its job's process by force."""

from __future__ import annotations

import pytest

from publisher.jobs import leases, service
from publisher.settings import Settings
from publisher.store.database import Database
from tests.jobs import rows
from tests.jobs.test_publishing import INTENT
from worker.jobs.supervision import Supervision


@pytest.mark.parametrize("publishing", [True, False])
def test_cancel_is_enforced_unless_only_the_hub_knows_how_the_job_ends(
    database: Database, settings: Settings, publishing: bool
) -> None:
    lease = rows.claim(database, rows.add_job(database), seconds=10 * settings.cancel_grace_seconds)
    with database.write() as session:
        if publishing:
            leases.intend(session, lease, INTENT)
        service.cancel(session, lease.job_id)
    supervision = Supervision(database, settings, lease, lambda: False)
    assert not supervision._is_overdue()
    rows.let_pass(database, lease.job_id, settings.cancel_grace_seconds + 1)
    assert supervision._is_overdue() is not publishing
