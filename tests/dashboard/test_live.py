"""The event stream with a session: what a page shows and what the stream adds make up the whole job, once."""

from __future__ import annotations

import re
from collections.abc import Generator

import httpx

from publisher.client.rest import Event, parse_events
from tests.dashboard.rows import OUT_OF_DISK, Account, log, metric, progress

STREAM = re.compile(r'data-events="([^"]+)"')


def follow(browser: httpx.Client, address: str, **headers: str) -> Generator[Event, None, None]:
    accepted = {"Accept": "text/event-stream"} | headers
    with browser.stream("GET", address, headers=accepted) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from parse_events(response.iter_lines())


def test_stream_goes_on_where_the_page_ended(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="align")
    work.report(log("on the page"), metric("loss", 1, 3.0), progress("align", 1, 4), stage="align")
    page = browser.get(f"/jobs/{work.job_id}").text
    on_page = work.last_seq
    address = STREAM.search(page)
    assert address is not None
    work.report(log("after the page"), metric("loss", 2, 2.5), stage="align").fail(OUT_OF_DISK)
    events = list(follow(browser, address[1]))
    assert [event.id for event in events] == list(range(on_page + 1, work.last_seq + 1))
    assert [event.kind for event in events] == ["log", "metric", "state"]
    assert "on the page" in page
    assert "after the page" not in page


def test_reconnecting_browser_gets_the_rest_once(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().report(*[log(f"line {number}") for number in range(10)])
    stream = follow(browser, f"/jobs/{work.job_id}/events?after=0")
    seen = [next(stream) for _ in range(5)]
    stream.close()
    work.report(log("meanwhile")).fail(OUT_OF_DISK)
    # the address still says where the page ended; the header, which the browser adds, counts
    rest = list(follow(browser, f"/jobs/{work.job_id}/events?after=0", **{"Last-Event-ID": str(seen[-1].id)}))
    assert [event.id for event in [*seen, *rest]] == list(range(1, work.last_seq + 1))


def test_finished_job_needs_no_stream(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().fail(OUT_OF_DISK)
    assert STREAM.search(browser.get(f"/jobs/{work.job_id}").text) is None
    assert browser.get(f"/jobs/{work.job_id}/events?after={work.last_seq}").status_code == 204
