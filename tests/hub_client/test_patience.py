"""How long Hubs ask to be left alone, and that a job's process does not sleep through it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from huggingface_hub import CommitOperationAdd, HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from publisher.errors import HubUnavailable
from publisher.hub_client import patience
from publisher.hub_client.faults import Asked, hub_faults
from publisher.hub_client.patience import impatient, retry_after
from tests.servers import serve

NOW = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "Wed, 21 Oct 2015 07:29:30 GMT", "date": NOW}, 90),
        ({"retry-after": "Wed, 21 Oct 2015 07:00:00 GMT", "date": NOW}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": '"api";r=3;t=55', "retry-after": "7"}, 7),
        ({"retry-after": "9" * 400}, 86400),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86400),
        ({"ratelimit": f'"api";r=0;t={"9" * 400}'}, 86400),
        ({"ratelimit": f'"api";r=0;t={"9" * 5000}', "retry-after": "7"}, 7),
    ],
)
def test_a_hub_says_how_long_in_several_ways(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@dataclass
class BusyHub:
    """`answers`: status and Retry-After of the next answers to `about`; then it is well."""

    endpoint: str = ""
    about: str = ""
    answers: list[tuple[int, str | None]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def refuse(self, about: str, *answers: tuple[int, str | None]) -> None:
        self.about, self.answers = about, list(answers)

    def count(self, about: str) -> int:
        return len([path for path in self.asked if about in path])


@pytest.fixture(scope="module")
def server() -> Iterator[BusyHub]:
    hub, app = BusyHub(), FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def answer(path: str) -> JSONResponse:
        hub.asked.append(path)
        if hub.about in path and hub.answers:
            status, after = hub.answers.pop(0)
            return JSONResponse({}, status, headers={"Retry-After": after} if after else {})
        files = [{"path": "a.txt", "uploadMode": "regular", "shouldIgnore": False}]
        return JSONResponse({"files": files, "commitUrl": f"{hub.endpoint}/org/m/commit/1", "commitOid": "1"})

    with serve(app) as port:
        hub.endpoint = f"http://127.0.0.1:{port}"
        yield hub


@pytest.fixture
def hub(server: BusyHub) -> Iterator[BusyHub]:
    server.refuse("")
    server.asked.clear()
    impatient()
    yield server
    set_client_factory(default_client_factory)


def commit(hub: BusyHub) -> None:
    with hub_faults(Asked("org/m", hub.endpoint, "TOKEN")):
        api = HfApi(endpoint=hub.endpoint, token="hf_x")
        api.create_commit("org/m", [CommitOperationAdd("a.txt", b"a")], commit_message="m")


@pytest.mark.parametrize("status", [429, 503])
def test_long_waits_are_raised_with_their_seconds(hub: BusyHub, status: int) -> None:
    hub.refuse("/preupload/", *[(status, "3600")] * 9)
    with pytest.raises(HubUnavailable) as caught:
        commit(hub)
    assert caught.value.retry_after == 3600
    assert (hub.count("/preupload/"), hub.count("/commit/")) == (1, 0)


def test_hiccup_is_tried_again_on_the_spot(hub: BusyHub) -> None:
    hub.refuse("/preupload/", (503, None))
    commit(hub)
    assert (hub.count("/preupload/"), hub.count("/commit/")) == (2, 1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_commit_is_sent_once(hub: BusyHub, status: int) -> None:
    """A second one's answer could not be told from the first's."""
    hub.refuse("/commit/", (status, None))
    with pytest.raises(HubUnavailable, match=str(status)):
        commit(hub)
    assert hub.count("/commit/") == 1


def test_silence_ends(hub: BusyHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most calls of huggingface_hub would wait for ever."""
    monkeypatch.setattr(patience, "_PIECE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(HubUnavailable, match="did not answer for org/m: ReadTimeout"),
            hub_faults(Asked("org/m", endpoint, "TOKEN")),
        ):
            HfApi(endpoint=endpoint, token="hf_x").model_info("org/m")
