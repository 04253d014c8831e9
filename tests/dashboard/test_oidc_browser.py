"""In a real browser, which keeps strict cookies back on the way from another site and follows no form to one."""

from __future__ import annotations

from pathlib import Path

from publisher.people.roles import Role
from publisher.store import members
from tests.dashboard.chromium import chromium
from tests.dashboard.conftest import serve
from tests.dashboard.rows import Account
from tests.people.provider import CLIENT_ID, CLIENT_SECRET, small_provider


def test_person_signs_in_at_another_site_and_out_of_both(tmp_path: Path) -> None:
    with small_provider("localhost") as provider, chromium(tmp_path) as page:
        registered = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
        with serve(tmp_path / "service", **registered) as service:
            account = Account.create(service.database, "lab")
            work = account.job().start()
            provider.user = {"sub": "ann", "name": "Ann", "email": "ann@acme.example", "email_verified": True}
            with service.database.write() as session:
                members.add(session, "lab", "ann@acme.example", Role.MEMBER)
            page.open(f"{service.url}/jobs/{work.job_id}")
            page.wait_for("location.pathname === '/login'")
            page.click("a.button")
            page.wait_for(f"location.pathname === '/jobs/{work.job_id}' && document.querySelector('.who span')")
            assert page.text(".who span") == "Ann"
            page.click(".title form[action$=pause] button")
            page.wait_for("document.querySelector('#status')?.dataset.state === 'pausing'")
            page.reload()
            assert page.text(".who span") == "Ann"
            page.click(".who button")
            page.wait_for("location.pathname === '/signed-out'")
            page.click("main a[href*='/end']")
            page.wait_for("location.hostname === 'localhost' && document.title === 'Signed out'")
            page.open(f"{service.url}/jobs")
            page.wait_for("location.pathname === '/login'")
            assert page.problems() == []
