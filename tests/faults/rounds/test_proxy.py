"""A Hub that misbehaves: what its client is told, and what has happened behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests import servers
from tests.faults.rounds.proxy import Behaviour, HubProxy
from tests.faults.rounds.recorder import wait
from tests.faults.rounds.script import HubCall, HubFault, Misbehaviour
from tests.servers import wait_until

COMMIT = "/hub/api/models/default/small/commit/main"


class Behind:
    """A server that keeps the bodies that reached it whole."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.app = Starlette(routes=[Route("/{path:path}", self._take, methods=["GET", "POST", "PUT"])])

    async def _take(self, request: Request) -> JSONResponse:
        self.bodies.append(await request.body())
        return JSONResponse({"host": request.headers["host"]})


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def proxy(behind: Behind) -> Iterator[HubProxy]:
    with servers.serve(behind.app) as upstream, HubProxy(upstream, servers.free_port()) as proxy:
        yield proxy


def commit(proxy: HubProxy, fault: HubFault | None = None, **how: Any) -> httpx.Response:
    proxy.behaviour = Behaviour({"small": [fault]} if fault else {})
    return httpx.post(f"http://127.0.0.1:{proxy.port}{COMMIT}", timeout=10, **how)


def fault(kind: Misbehaviour, seconds: float = 0.0) -> HubFault:
    return HubFault(kind, job=0, call=HubCall.COMMIT, nth=0, times=1, seconds=seconds)


def test_what_is_not_to_be_disturbed_passes_with_the_address_that_it_was_sent_to(
    proxy: HubProxy, behind: Behind
) -> None:
    answer = commit(proxy, content=iter([b"first,", b"second"]))
    assert answer.json() == {"host": f"127.0.0.1:{proxy.port}"}
    assert behind.bodies == [b"first,second"]
    wait_until(lambda: bool(proxy.behaviour.seen), "the proxy has written down what it saw", 10)
    assert [(seen.repository, seen.call, seen.status) for seen in proxy.behaviour.seen] == [
        ("small", HubCall.COMMIT, 200)
    ]


@pytest.mark.parametrize("kind", [Misbehaviour.TOO_MANY, Misbehaviour.ERROR, Misbehaviour.UNAVAILABLE])
def test_a_refusal_does_not_reach_the_hub(proxy: HubProxy, behind: Behind, kind: Misbehaviour) -> None:
    answer = commit(proxy, fault(kind), content=b"x")
    assert answer.status_code == int(kind)
    assert ("retry-after" in answer.headers) == (kind is Misbehaviour.TOO_MANY)
    assert behind.bodies == []


@pytest.mark.parametrize(
    ("kind", "reached"),
    [
        (Misbehaviour.CUT_BEFORE, []),
        (Misbehaviour.CUT_DURING, []),
        (Misbehaviour.ANSWER_LOST, [b"whole"]),
        (Misbehaviour.ANSWER_HALF, [b"whole"]),
        (Misbehaviour.PASSED_LATE, [b"whole"]),
    ],
)
def test_a_client_without_an_answer_cannot_know_what_has_happened(
    proxy: HubProxy, behind: Behind, kind: Misbehaviour, reached: list[bytes]
) -> None:
    with pytest.raises(httpx.TransportError):
        commit(proxy, fault(kind, seconds=0.05), content=b"whole")
    assert wait(lambda: proxy.in_flight == 0, 10)
    assert behind.bodies == reached


def test_points_are_before_the_hub_knows_and_after_it_has_answered(proxy: HubProxy, behind: Behind) -> None:
    points: list[tuple[str, int]] = []
    proxy.behaviour = Behaviour(on_point=lambda name, call, moment: points.append((moment, len(behind.bodies))))
    httpx.post(f"http://127.0.0.1:{proxy.port}{COMMIT}", content=b"x", timeout=10)
    assert points == [("before", 0), ("after", 1)]


def test_the_fault_comes_at_its_number_and_as_often_as_it_is_to(proxy: HubProxy, behind: Behind) -> None:
    planned = HubFault(Misbehaviour.UNAVAILABLE, job=0, call=HubCall.COMMIT, nth=1, times=2, seconds=0.0)
    proxy.behaviour = Behaviour({"small": [planned]})
    with httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", timeout=10) as http:
        answers = [http.post(COMMIT, content=b"x").status_code for _ in range(4)]
    assert answers == [200, 503, 503, 200]
