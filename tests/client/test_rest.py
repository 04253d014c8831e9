"""The event stream's format, against the examples of the specification."""

from __future__ import annotations

import pytest

from publisher.client.rest import Event, ServiceClient, parse_events
from publisher.errors import InfrastructureFault


def test_events_are_read_from_their_lines() -> None:
    lines = [": keep-alive", "", "id: 3", "event: log", 'data: {"message":', 'data: "two lines"}', "", "id:4"]
    lines += ["event:state", 'data:{"state": "running"}', ""]
    assert list(parse_events(iter(lines))) == [
        Event(3, "log", {"message": "two lines"}),
        Event(4, "state", {"state": "running"}),
    ]


def test_an_event_that_was_cut_off_is_not_delivered() -> None:
    assert not list(parse_events(iter(["id: 1", "event: log", 'data: {"message": "half"}'])))


def test_a_service_that_is_away_is_named_with_the_way_out() -> None:
    with (
        ServiceClient("http://127.0.0.1:9", "key") as client,
        pytest.raises(InfrastructureFault, match=r"127.0.0.1:9 does not answer .*publisher up"),
    ):
        client.get("/v1/jobs")
