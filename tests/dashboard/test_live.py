"""The event stream with a session: what a page shows and what the stream adds make up the whole job, once."""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import islice

import httpx

from publisher.client.events import Event, parse_events
from publisher.dashboard.session import SESSION_COOKIE
from tests.dashboard.conftest import RunningDashboard, csrf, sign_in
from tests.dashboard.rows import OUT_OF_DISK, Account, log, metric, progress

STREAM = {"Accept": "text/event-stream"}


def follow(browser: httpx.Client, address: str, **headers: str) -> Generator[Event, None, None]:
    with browser.stream("GET", address, headers=STREAM | headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from parse_events(response.iter_lines())


def told(page: str, name: str) -> str:
    """What a page says in an attribute of that name."""
    found = re.search(rf'data-{name}="([^"]+)"', page)
    assert found is not None, name
    return found[1]


def address_of(page: str, **query: str) -> str:
    """Where the script of this page listens."""
    asked = {"session": told(page, "session"), "after": told(page, "number")} | query
    return f"/events?{httpx.QueryParams(asked)}"


def test_stream_goes_on_where_the_page_ended(account: Account, browser: httpx.Client) -> None:
    work, other = account.job().start().stages("fetch", running="align"), account.job()
    work.report(log("on the page"), metric("loss", 1, 3.0), progress("align", 1, 4), stage="align")
    page = browser.get(f"/jobs/{work.job_id}").text
    assert int(told(page, "seq")) == work.last_seq
    assert "on the page" in page
    work.report(log("after the page"), metric("loss", 2, 2.5), stage="align").fail(OUT_OF_DISK)
    other.start().report(log("of another"))
    events = list(islice(follow(browser, address_of(page, kind="state", all_of=work.job_id)), 4))
    assert [event.kind for event in events] == ["log", "metric", "state", "state"]
    assert [event.data["job_id"] for event in events] == [work.job_id] * 3 + [other.job_id]
    assert [event.data["seq"] for event in events[:3]] == list(range(work.last_seq - 2, work.last_seq + 1))


def test_reconnecting_browser_gets_the_rest_once(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().report(*[log(f"line {number}") for number in range(10)])
    address = address_of(browser.get("/jobs").text, after="0")
    stream = follow(browser, address)
    seen = [next(stream) for _ in range(5)]
    stream.close()
    work.report(log("meanwhile")).fail(OUT_OF_DISK)
    # the address still says where the page ended; the header, which the browser adds, counts
    rest = islice(follow(browser, address, **{"Last-Event-ID": str(seen[-1].id)}), work.last_seq - 5)
    assert [event.id for event in [*seen, *rest]] == list(range(1, work.last_seq + 1))


def test_a_jobs_own_stream_comes_with_the_session_too(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().fail(OUT_OF_DISK)
    assert [event.id for event in follow(browser, f"/jobs/{work.job_id}/events")] == [1, 2, 3]
    assert browser.get(f"/jobs/{work.job_id}/events?after={work.last_seq}").status_code == 204


def test_a_tab_of_another_session_is_told_nothing(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    """Its page is of who was signed in before; the cookie is of who is now."""
    account.job()
    address = address_of(browser.get("/jobs").text)
    with dashboard.signed_in(dashboard.account()) as other:
        assert other.get(address, headers=STREAM).status_code == 401


def test_signing_out_ends_the_session_and_its_streams(dashboard: RunningDashboard, account: Account) -> None:
    account.job()
    with dashboard.signed_in(account) as browser, dashboard.signed_in(account) as other:
        page = browser.get("/jobs")
        cookie = browser.cookies[SESSION_COOKIE]
        address, others = address_of(page.text, after="0"), address_of(other.get("/jobs").text, after="0")
        stream, goes_on = follow(browser, address), follow(other, others)
        assert next(stream).id == next(goes_on).id == 1
        assert browser.post("/logout", data={"csrf": csrf(page)}).status_code == 303
        assert list(stream) == []
        # a copy of the cookie is worth nothing, and neither did another session with the same key end
        assert httpx.get(f"{dashboard.url}/jobs", cookies={SESSION_COOKIE: cookie}).status_code == 303
        account.job()
        assert next(goes_on).id == 2
        assert sign_in(browser, account.key).status_code == 303
        assert browser.get("/jobs").status_code == 200
